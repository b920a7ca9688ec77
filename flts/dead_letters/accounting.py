"""Accounts for every record: sent = done + in flight + dead letters, for each topic and group, from Kafka's offsets.

The terms, for one group and one topic:

sent
    Records in the topic: end offsets minus log start offsets. Records that retention removed are not counted.
in flight
    Sent, and not committed by the group: waiting or being processed. A record with a dead letter but without a commit
    (the service was killed between the two) is in flight, because it will be delivered again.
dead letters
    Committed, with a dead letter that was not replayed. Such a kill can cause two dead letters of one record, which
    count once.
done
    Committed and not a dead letter. Records that the group skipped, because they are replays for another group, are
    done.
replayed
    Records with a dead letter that was published again. A replay is a new record and is part of ``sent``. The original
    record then counts as done. Example: 10 sent, 2 dead letters, both replayed with success: sent 12, done 12. The
    number of original records is ``sent`` minus the topic's replays: 10.

The sum is exact unless records are missing: retention removed them before the group read them (``lost``), or the topic
was created again and has fewer records than the group has committed (``ahead``).

Offsets do not show whether an effect took place. For that, compare ``done`` with the records in the store.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from flts.contracts.topics import Topic, consumed_by
from flts.dead_letters.letters import DeadLetters, Head
from flts.errors import BackendAwayError, NotFoundError
from flts.messaging.kafka import REQUEST_SECONDS, common_config, full_name
from flts.settings import KafkaSettings

Replayed = Callable[[str], Collection[str]]
"""Returns the uids (`Head.uid`) of a group's replayed dead letters."""
Offsets = dict[tuple[str, int], int]
ANSWER_SECONDS = 8.0
LOOK_SECONDS = 0.2
LOST = (KafkaError._TIMED_OUT, KafkaError._TRANSPORT)  # noqa: SLF001 - the library's public names for them
MOVING = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.REQUEST_TIMED_OUT,
)
"""Errors that pass: a new topic has no leader yet, or a group's coordinator has moved to another broker."""
NO_GROUP = (KafkaError.GROUP_ID_NOT_FOUND, KafkaError.UNKNOWN_TOPIC_OR_PART)


@dataclass(frozen=True, slots=True)
class Account:
    """The account of one group and one topic. Both names are without prefix."""

    topic: str
    group: str
    sent: int
    done: int
    in_flight: int
    dead_letters: int
    replayed: int
    lost: int
    """Records that retention removed before the group had committed them."""
    ahead: int
    """Committed offsets beyond the topic's end, because the topic was created again."""

    @property
    def holds(self) -> bool:
        """Whether each record that was sent is done, in flight or a dead letter."""
        parts = (self.done, self.in_flight, self.dead_letters)
        return min(parts) >= 0 and sum(parts) == self.sent and not self.lost and not self.ahead

    def as_dict(self) -> dict[str, Any]:
        """Return the account as a record of the API."""
        return {**asdict(self), "holds": self.holds}


class Accounting:
    """Computes the accounts of an installation. Thread-safe.

    Parameters
    ----------
    settings : KafkaSettings
        The brokers' address and the prefix of the installation.
    client_id : str
        Kafka client id.
    consumers : mapping, optional
        The topics of each group (names without prefix). The default is every group that has a dead-letter topic, with
        the topics that `consumed_by` returns.
    letters : DeadLetters, optional
        A reader that the caller uses too, so that each dead letter is read once.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        client_id: str = "accounting",
        *,
        consumers: Mapping[str, Sequence[Topic]] | None = None,
        letters: DeadLetters | None = None,
    ) -> None:
        self._settings = settings
        self._client_id = client_id
        self._consumers = consumers
        self.letters = letters or DeadLetters(settings, client_id)
        self._lock = threading.Lock()
        self._admin: AdminClient | None = None

    def accounts(self, replayed: Replayed | None = None) -> list[Account]:
        """Return the account of each topic and group, ordered by topic and group.

        Parameters
        ----------
        replayed : function, optional
            Returns the replayed dead letters of a group (`flts.dead_letters.replay.ReplayMarks.replayed`). Without it
            no dead letter counts as replayed.

        Raises
        ------
        BackendAwayError
            If the brokers do not answer.
        """
        consumers = self._consumers
        if consumers is None:
            consumers = {group: found for group in self.letters.groups() if (found := consumed_by(group))}
        accounts = [self._account(group, topic, replayed) for group, topics in consumers.items() for topic in topics]
        return sorted(accounts, key=lambda account: (account.topic, account.group))

    def _account(self, group: str, topic: Topic, replayed: Replayed | None) -> Account:
        full = full_name(self._settings, topic.name)
        # A service publishes the dead letter of a failed record before it commits the record's offset. The lines below
        # read the offsets before the dead letters, so they find the dead letter of each committed record that failed.
        # In the other order such a record could be counted as done.
        starts = self._offsets(full, OffsetSpec.earliest())
        committed = self._committed(full_name(self._settings, group), list(starts))
        letters = self._letters(group, full)
        done_again = frozenset(replayed(group)) if replayed is not None else frozenset()
        ends = self._offsets(full, OffsetSpec.latest())
        position = {
            part: min(max(committed.get(part, 0), start), ends.get(part, start)) for part, start in starts.items()
        }
        sent = sum(ends.get(part, start) - start for part, start in starts.items())
        in_flight = sum(max(0, ends.get(part, at) - at) for part, at in position.items())
        of_record: dict[tuple[str, int, int], bool] = {}
        for head in letters:
            part = head.source[:2]
            if part in starts and starts[part] <= head.source[2] < position[part]:
                of_record[head.source] = of_record.get(head.source, False) or head.uid in done_again
        dead = sum(not answered for answered in of_record.values())
        return Account(
            topic=topic.name,
            group=group,
            sent=sent,
            done=sent - in_flight - dead,
            in_flight=in_flight,
            dead_letters=dead,
            replayed=len(of_record) - dead,
            lost=sum(max(0, start - committed.get(part, start)) for part, start in starts.items()),
            ahead=sum(max(0, at - ends.get(part, at)) for part, at in committed.items()),
        )

    def _letters(self, group: str, full_topic: str) -> list[Head]:
        try:
            heads = self.letters.heads(group)
        except NotFoundError:
            return []  # the group has no dead-letter topic
        return [head for head in heads if head.source[0] == full_topic]

    def _offsets(self, full_topic: str, which: OffsetSpec) -> Offsets:
        def ask(admin: AdminClient) -> Offsets:
            known = admin.list_topics(timeout=REQUEST_SECONDS).topics.get(full_topic)
            if known is None or not known.partitions:
                return {}
            parts = [TopicPartition(full_topic, number) for number in known.partitions]
            answers = admin.list_offsets(dict.fromkeys(parts, which), request_timeout=REQUEST_SECONDS)
            return {(part.topic, part.partition): int(answer.result().offset) for part, answer in answers.items()}

        return self._ask(ask)

    def _committed(self, full_group: str, parts: list[tuple[str, int]]) -> Offsets:
        """Return the group's committed offsets without joining the group; partitions without a commit are left out."""
        if not parts:
            return {}
        # The offsets are read through a consumer and not through the admin client: librdkafka 2.16 crashes on the
        # answer to the admin client's ListConsumerGroupOffsets if a broker has just started and is not yet a
        # coordinator.
        config = {**common_config(self._settings, f"{self._client_id}-accounting"), "group.id": full_group}

        def ask(_: AdminClient) -> Offsets:
            reader = Consumer(config)
            try:
                found = reader.committed([TopicPartition(*part) for part in parts], timeout=REQUEST_SECONDS)
            except KafkaException as error:
                if error.args[0].code() in NO_GROUP:
                    return {}  # no consumer has joined the group yet
                raise
            finally:
                reader.close()
            for part in found:
                if part.error is not None and part.error.code() not in NO_GROUP:
                    raise KafkaException(part.error)
            return {(part.topic, part.partition): int(part.offset) for part in found if part.offset >= 0}

        return self._ask(ask)

    def _ask(self, question: Callable[[AdminClient], Offsets]) -> Offsets:
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            with self._lock:
                if self._admin is None:
                    self._admin = AdminClient(common_config(self._settings, f"{self._client_id}-accounting"))
                admin = self._admin
            try:
                return question(admin)
            except KafkaException as error:
                reason: KafkaError = error.args[0]
                if time.monotonic() > deadline or reason.code() not in (*LOST, *MOVING):
                    msg = f"Kafka at {self._settings.kafka_bootstrap_servers} did not answer: {reason.str()}"
                    raise BackendAwayError(msg, code="kafka_away") from error
                if reason.code() in LOST:
                    # After the cluster was replaced, an old client keeps sending requests to the old coordinator. So
                    # the client is dropped, and the next attempt creates a new client.
                    with self._lock:
                        self._admin = None
            time.sleep(LOOK_SECONDS)
