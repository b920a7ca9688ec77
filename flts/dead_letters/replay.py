"""Replays dead letters ("letters" below): publishes their records again, only for the group that dead-lettered them.

For each letter the replayer publishes the record, waits for the acknowledgement, and then writes a mark, a create-only
object. After a crash between the two steps the letter has no mark. A second replay publishes the record again, with the
same event_id. The ids of all results are derived from that event_id, so only the record is doubled. In the reverse
order a crash would lose the letter: it would be marked and never published.

The key of a mark contains the letter's id and digest, so a mark of an earlier embedded broker does not match a letter
of the present one. A mark is kept for `KEEP_SECONDS`, a day longer than the brokers keep a letter.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from flts.contracts import topics
from flts.contracts.events import Event
from flts.dead_letters.letters import DeadLetters, Head, Letter, Place
from flts.errors import FltsError, NotFoundError, RejectedError, RetryableError
from flts.messaging.codec import ONLY_GROUP, REPLAY_OF, decode
from flts.messaging.kafka import DEAD_LETTER_RETENTION_SECONDS, RawHeaders, full_name
from flts.observability.logs import get_logger
from flts.settings import KafkaSettings
from flts.storage import layout
from flts.storage.leases import Leases
from flts.storage.ports import ObjectStore
from flts.storage.records import Record, Records

log = get_logger(__name__)

KEEP_SECONDS = DEAD_LETTER_RETENTION_SECONDS + 24 * 3600
LEASE_SECONDS = 60.0
"""Seconds; longer than a batch and one acknowledgement. After a crash of a gateway, replays are refused for so long."""
BATCH_SECONDS = 10.0
"""Seconds for which one call publishes. The answer lists the remaining letters, and the client calls again."""
READ_AHEAD = 50

Sent = Literal["replayed", "refused", "already_replayed", "same_record"]


class ReplayMarks:
    """The marks of replayed letters: an object for each, with the time, the user and the reason.

    Parameters
    ----------
    store, bucket
        The object store, and the bucket that holds the records of runs.
    """

    def __init__(self, store: ObjectStore, bucket: str, *, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._bucket = bucket
        self._records = Records(store, bucket)
        self._now = now

    def replayed(self, group: str) -> frozenset[str]:
        """Return the uids of a group's replayed letters."""
        found = (layout.REPLAY.parse(key) for key in self._records.keys(layout.REPLAY.prefix(group)))
        return frozenset(parts["uid"] for parts in found if parts is not None)

    def mark(self, group: str, uid: str, record: Record) -> bool:
        """Write the mark of a replayed letter; return whether it is the first mark of this letter."""
        return self._records.create(layout.REPLAY(group, uid), {**record, "at": self._iso()})

    def read(self, group: str, uid: str) -> Record | None:
        """Return the mark of a letter (time, user and reason), or None if the letter was not replayed."""
        return self._records.read(layout.REPLAY(group, uid))

    def forget_old(self) -> int:
        """Remove the marks older than `KEEP_SECONDS`, whose letters the brokers have removed; return their number."""
        oldest = self._now() - KEEP_SECONDS
        old = [info.key for info in self._store.list(self._bucket, layout.REPLAY.prefix()) if info.modified < oldest]
        for key in old:
            self._store.delete(self._bucket, key)
        return len(old)

    def _iso(self) -> str:
        return datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True, slots=True)
class Result:
    """The result of replaying one letter."""

    id: str
    outcome: Sent
    code: str | None = None
    message: str | None = None
    event: Event | None = None
    """The event of the replayed record, if it could be decoded."""


@dataclass(frozen=True, slots=True)
class Report:
    """The result of one call of `Replayer.replay`."""

    results: tuple[Result, ...]
    remaining: tuple[str, ...]
    """Ids of the requested letters that one call had no time for."""


Check = Callable[[str, Event], str | None]
"""(group, event): raises a `RejectedError` if the replay would have no effect; returns a note for the user or None."""
PublishRecord = Callable[[str, bytes | None, bytes | None, RawHeaders], None]


@dataclass
class Replayer:
    """Replays dead letters at a limited rate, and each record once unless the caller requests a repeat.

    Parameters
    ----------
    settings : KafkaSettings
    letters : DeadLetters
    marks : ReplayMarks
    leases
        Leases in the store, so that two gateways do not replay the same letters at the same time.
    publish : function
        (topic, key, value, headers): publishes a record and returns when the brokers have acknowledged it.
    check : function
        Refuses letters whose replay would have no effect.
    """

    settings: KafkaSettings
    letters: DeadLetters
    marks: ReplayMarks
    leases: Leases
    publish: PublishRecord
    check: Check
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _owner: str = field(default_factory=lambda: uuid.uuid4().hex, init=False)
    _busy: threading.Lock = field(default_factory=threading.Lock, init=False)

    def replay(
        self,
        group: str,
        ids: Sequence[str],
        *,
        rate: float,
        again: bool = False,
        force: bool = False,
        record: Record,
    ) -> Report:
        """Publish letters to their source topics again, for this group only.

        Parameters
        ----------
        ids : sequence of str
            Ids of the letters, in the order of publishing.
        rate : float
            Most letters per second.
        again : bool
            Also publish letters that were replayed before.
        force : bool
            Also publish letters that `check` refuses.
        record : dict
            The user and the reason; stored in each mark.

        Raises
        ------
        NotFoundError
            If the group or a letter does not exist.
        RetryableError
            If another replay is running (of this group, or of any group in this process), or if a backend is away. The
            letters published before have their marks.
        """
        heads = {head.id: head for head in self.letters.heads(group)}
        unknown = [letter_id for letter_id in ids if letter_id not in heads]
        if unknown:
            msg = f"{group} has no dead letter {unknown[0][:60]}; `flts dlq list {group}` lists what it has"
            raise NotFoundError(msg, code="unknown_letter", field="ids")
        with self._alone(group):
            return self._send_all(group, [heads[each] for each in ids], heads.values(), record, rate, again, force)

    def _send_all(  # noqa: PLR0917 - the arguments of one request, as in `replay`
        self,
        group: str,
        chosen: Sequence[Head],
        known: Iterable[Head],
        record: Record,
        rate: float,
        again: bool,
        force: bool,
    ) -> Report:
        done = answered_records(known, self.marks.replayed(group))
        sent: set[Place] = set()
        results: list[Result] = []
        began = self.clock()
        remaining: tuple[str, ...] = ()
        turn = began
        read: dict[str, Letter] = {}
        for number, head in enumerate(chosen):
            if self.clock() - began >= BATCH_SECONDS:
                remaining = tuple(each.id for each in chosen[number:])
                break
            if head.source in sent:
                # This call has just replayed the same record. A record has two letters if a service was killed after it
                # published the first letter and before it committed the offset. So the second letter is only marked as
                # replayed.
                self.marks.mark(group, head.uid, {**record, "same_record": True})
                results.append(Result(head.id, "same_record"))
                continue
            if head.source in done and not again:
                results.append(Result(head.id, "already_replayed", "already_replayed", "--again replays it once more"))
                continue
            if head.id not in read:
                read = self.letters.read_many(group, [each.id for each in chosen[number : number + READ_AHEAD]])
            self.sleep(max(0.0, turn - self.clock()))
            turn = max(turn, self.clock()) + 1 / rate
            result = self._send(group, head, read.get(head.id), record, force=force)
            if result.outcome == "replayed":
                sent.add(head.source)
            results.append(result)
        count = sum(result.outcome == "replayed" for result in results)
        log.info("dead_letters_replayed", group=group, replayed=count, remaining=len(remaining), **record)
        return Report(tuple(results), remaining)

    def _send(self, group: str, head: Head, letter: Letter | None, record: Record, *, force: bool) -> Result:
        if letter is None:
            return Result(head.id, "refused", "letter_gone", "the brokers have removed it meanwhile")
        try:
            topic = self._topic_of(letter)
            event, note = self._look_at(group, topic, letter, force=force)
            headers = [
                (name, value) for name, value in letter.original_headers() if name not in (ONLY_GROUP, REPLAY_OF)
            ]
            headers += [(ONLY_GROUP, group.encode()), (REPLAY_OF, letter.id.encode())]
            self.publish(head.source[0], letter.key, letter.value, headers)
        except RejectedError as error:
            return Result(head.id, "refused", error.code, error.message)
        self.marks.mark(group, head.uid, {**record, "letter": head.id, "source": list(head.source)})
        return Result(head.id, "replayed", message=note, event=event)

    def _topic_of(self, letter: Letter) -> topics.Topic:
        for topic in topics.ALL:
            if full_name(self.settings, topic.name) == letter.source[0]:
                return topic
        msg = f"it names no topic of the pipeline as its source, but {letter.source[0][:100]!r}"
        raise RejectedError(msg, code="no_source_topic")

    def _look_at(
        self, group: str, topic: topics.Topic, letter: Letter, *, force: bool
    ) -> tuple[Event | None, str | None]:
        try:
            event = decode(topic, letter.value, letter.headers)
        except RejectedError as error:
            # Without a decoded event no check is possible. The record is replayed nevertheless, because the consumer
            # may have been repaired since and may decode it.
            return None, f"it cannot be read here either: {error.message[:300]}"
        try:
            return event, self.check(group, event)
        except RejectedError as error:
            if force:
                return event, f"sent although {error.message}"
            raise

    @contextmanager
    def _alone(self, group: str) -> Iterator[None]:
        name = f"replay-{group}"
        # The lease below excludes other processes. The lock `_busy` excludes other threads of this process: a replay of
        # one group also blocks replays of all other groups.
        if not self._busy.acquire(blocking=False):
            raise _busy(group)
        try:
            if not self.leases.acquire(name, self._owner, LEASE_SECONDS):
                raise _busy(group)
            try:
                yield
            finally:
                try:
                    self.leases.release(name, self._owner)
                except FltsError as error:  # the lease expires by itself, so the error is only logged
                    log.warning("replay_lease_kept", group=group, error=str(error))
        finally:
            self._busy.release()


def answered_records(heads: Iterable[Head], replayed: Collection[str]) -> set[Place]:
    """Return the positions of the records with a replayed letter. Two letters may belong to the same record."""
    return {head.source for head in heads if head.uid in replayed}


def _busy(group: str) -> RetryableError:
    msg = f"dead letters of {group} are being replayed at this moment; ask again when that has ended"
    return RetryableError(msg, code="replay_running", retry_after_seconds=5)
