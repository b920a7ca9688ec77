"""Reads a group's dead letters ("letters" below). Reading joins no consumer group and removes nothing.

The id of a letter is its position in the dead-letter topic, ``<partition>-<offset>``. After a restart of the embedded
broker the offsets begin at 0 again. So a letter also has a digest of its content, and both together identify it.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from flts.contracts.topics import dead_letter_topic, group_of_dead_letters
from flts.errors import BackendAwayError, NotFoundError
from flts.messaging.codec import REASONS, header
from flts.messaging.kafka import REQUEST_SECONDS, RawHeaders, consumer_config, full_name
from flts.settings import KafkaSettings

POLL_SECONDS = 0.5
SILENT_SECONDS = 10.0
"""Seconds; a broker that sends no record for so long, although its end offsets show more, counts as away."""
MOST_HEADS = 50_000
"""Newest letters kept in memory per group; the summary of a letter needs about 1 KB."""
HEAD_CHARACTERS = 400

Place = tuple[str, int, int]
"""Topic (full name), partition and offset."""
_LETTER_ID = re.compile(r"(\d{1,9})-(\d{1,18})")


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter with its full value and headers.

    Parameters
    ----------
    group : str
        The group that dead-lettered the record; name without prefix.
    headers
        The reasons, and the headers of the original record that fitted.
    """

    group: str
    partition: int
    offset: int
    at: datetime | None
    key: bytes | None
    value: bytes | None
    headers: RawHeaders

    @property
    def id(self) -> str:
        """Position in the dead-letter topic, ``<partition>-<offset>``."""
        return f"{self.partition}-{self.offset}"

    @property
    def digest(self) -> str:
        """Digest of the content. It distinguishes letters at the same position of two embedded brokers."""
        parts = [self.key or b"", self.value or b"", str(self.at and self.at.timestamp()).encode()]
        parts += [part for name, value in self.headers for part in (name.encode(), value or b"")]
        digest = hashlib.sha256()
        for part in parts:
            digest.update(len(part).to_bytes(8) + part)
        return digest.hexdigest()[:16]

    @property
    def source(self) -> Place:
        """Position of the original record: topic (full name), partition and offset."""
        return (
            header(self.headers, "source-topic") or "",
            _number(header(self.headers, "source-partition")),
            _number(header(self.headers, "source-offset")),
        )

    def original_headers(self) -> RawHeaders:
        """Return the headers of the original record, without those that did not fit into the letter."""
        return [(name, value) for name, value in self.headers if name not in REASONS]


@dataclass(frozen=True, slots=True)
class Head:
    """The summary of a letter that is kept in memory, for listing, filtering and counting."""

    id: str
    digest: str
    at: datetime | None
    source: Place
    identifier: str | None
    event: str | None
    error_code: str
    error: str
    attempts: int
    size: int
    """Bytes of the value."""

    @property
    def uid(self) -> str:
        """Id and digest, which stay unique when an embedded broker begins again at offset 0."""
        return f"{self.id}-{self.digest}"


def head_of(letter: Letter) -> Head:
    """Return the summary of a letter."""
    return Head(
        id=letter.id,
        digest=letter.digest,
        at=letter.at,
        source=letter.source,
        identifier=None if letter.key is None else letter.key[:100].decode("utf-8", "replace"),
        event=header(letter.headers, "event"),
        error_code=header(letter.headers, "error_code") or "unknown",
        error=(header(letter.headers, "error") or "")[:HEAD_CHARACTERS],
        attempts=_number(header(letter.headers, "attempts")),
        size=len(letter.value or b""),
    )


class DeadLetters:
    """Reads the dead letters of every group of an installation. Thread-safe.

    The summary of a letter is fetched once; later calls fetch only newer letters.

    Parameters
    ----------
    settings : KafkaSettings
        The brokers' address and the prefix of the topics.
    client_id : str
        Kafka client id.
    """

    def __init__(self, settings: KafkaSettings, client_id: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._client_id = f"{client_id}-dead-letters"
        self._clock = clock
        self._lock = threading.Lock()
        self._consumer: Consumer | None = None
        self._cluster_id: str | None = None
        self._shelves: dict[str, _Shelf] = {}

    def groups(self) -> list[str]:
        """Return the groups that have a dead-letter topic, in order of name, without prefix.

        Raises
        ------
        BackendAwayError
            If the brokers do not answer.
        """
        with self._lock:
            found = (group_of_dead_letters(name) for name in self._topics())
        prefix = self._settings.namespace_prefix
        return sorted(group.removeprefix(prefix) for group in found if group is not None and group.startswith(prefix))

    def heads(self, group: str) -> list[Head]:
        """Return the summaries of a group's letters, oldest first.

        Raises
        ------
        NotFoundError
            If the group has no dead-letter topic.
        BackendAwayError
            If the brokers do not answer.
        """
        with self._lock:
            shelf = self._refreshed(group)
            return sorted(shelf.heads.values(), key=lambda head: (head.at or _EPOCH, head.id))

    def read(self, group: str, letter_id: str) -> Letter:
        """Return one letter with its full value and headers.

        Raises
        ------
        NotFoundError
            If the group has no such letter, or the brokers removed it during the call.
        BackendAwayError
            If the brokers do not answer.
        """
        found = self.read_many(group, [letter_id])
        if letter_id not in found:
            raise _no_letter(group, letter_id)
        return found[letter_id]

    def read_many(self, group: str, letter_ids: Collection[str]) -> dict[str, Letter]:
        """Return letters with their full content, by id. Letters that the brokers remove during the call are missing.

        Raises
        ------
        NotFoundError
            If the group has no letter with one of these ids.
        BackendAwayError
            If the brokers do not answer.
        """
        with self._lock:
            shelf = self._refreshed(group)
            ranges: dict[int, tuple[int, int]] = {}
            for letter_id in letter_ids:
                found = _LETTER_ID.fullmatch(letter_id)
                place = (int(found[1]), int(found[2])) if found else None
                if place is None or place not in shelf.heads:
                    raise _no_letter(group, letter_id)
                start, end = ranges.get(place[0], (place[1], 0))
                ranges[place[0]] = (min(start, place[1]), max(end, place[1] + 1))
            if not ranges:
                return {}
            # A fetch can wait 50 ms, so a fetch for each letter would be slow. One pass reads all records from the
            # first wanted letter to the last.
            wanted = frozenset(letter_ids)
            return {letter.id: letter for letter in self._fetch(group, ranges) if letter.id in wanted}

    def close(self) -> None:
        """Close the Kafka client."""
        with self._lock:
            self._drop()

    def _refreshed(self, group: str) -> _Shelf:
        full = full_name(self._settings, dead_letter_topic(group))
        partitions = self._topics().get(full)
        if not partitions:
            msg = f"{group[:100]} is not a group with dead letters"
            raise NotFoundError(msg, code="unknown_group", field="group")
        shelf = self._shelves.setdefault(group, _Shelf())
        wanted = {}
        for partition in partitions:
            low, high = self._ends(TopicPartition(full, partition))
            # Fewer records than before: the topic was created again, so the cached letters no longer exist.
            if shelf.read.get(partition, 0) > high:
                shelf.forget(partition)
            shelf.remove_below(partition, low)
            start = max(low, shelf.read.get(partition, 0))
            if start < high:
                wanted[partition] = (start, high)
        if wanted:
            for letter in self._fetch(group, wanted):
                shelf.add(letter)
        for partition, (_, high) in wanted.items():
            shelf.read[partition] = high
        shelf.shorten()
        return shelf

    def _fetch(self, group: str, ranges: dict[int, tuple[int, int]]) -> Iterator[Letter]:
        """Yield the letters of offset ranges (end exclusive) that the brokers still have."""
        consumer = self._connected()
        full = full_name(self._settings, dead_letter_topic(group))
        left = {partition: end for partition, (_, end) in ranges.items()}
        try:
            consumer.assign([TopicPartition(full, partition, start) for partition, (start, _) in ranges.items()])
            heard = self._clock()
            while left:
                message = consumer.poll(POLL_SECONDS)
                if message is None:
                    if self._clock() - heard > SILENT_SECONDS:
                        msg = f"Kafka at {self._settings.kafka_bootstrap_servers} gives no messages of {full}"
                        raise BackendAwayError(msg, code="kafka_away")
                    continue
                heard = self._clock()
                error = message.error()
                if error is not None:
                    if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
                        left.pop(message.partition(), None)
                    elif not error.retriable() and error.code() not in _PASSING:
                        raise KafkaException(error)  # noqa: TRY301 - handled below like the client's other errors
                    continue
                partition, offset = message.partition(), message.offset()
                end = left.get(partition)
                if end is None or offset >= end:
                    left.pop(partition, None)
                    continue
                if offset + 1 == end:
                    del left[partition]
                yield _letter(group, message)
        except KafkaException as error:
            raise self._away(error) from error
        finally:
            consumer.unassign()

    def _ends(self, part: TopicPartition) -> tuple[int, int]:
        try:
            low, high = self._connected().get_watermark_offsets(part, timeout=REQUEST_SECONDS)
        except KafkaException as error:
            raise self._away(error) from error
        return int(low), int(high)

    def _topics(self) -> dict[str, list[int]]:
        try:
            known = self._connected().list_topics(timeout=REQUEST_SECONDS)
        except KafkaException as error:
            raise self._away(error) from error
        if self._cluster_id != known.cluster_id:
            # The embedded broker loses its topics when it ends, and has a new cluster id after its start. The cached
            # letters of the earlier cluster no longer exist, so they are dropped.
            self._cluster_id = known.cluster_id
            self._shelves.clear()
        return {name: sorted(topic.partitions) for name, topic in known.topics.items()}

    def _connected(self) -> Consumer:
        if self._consumer is None:
            config = consumer_config(self._settings, self._client_id, None)
            self._consumer = Consumer({**config, "enable.partition.eof": True})
        return self._consumer

    def _drop(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _away(self, error: KafkaException) -> BackendAwayError:
        msg = f"Kafka at {self._settings.kafka_bootstrap_servers} did not answer: {error.args[0].str()}"
        return BackendAwayError(msg, code="kafka_away")


@dataclass
class _Shelf:
    """The summaries of one group's letters."""

    heads: dict[tuple[int, int], Head] = field(default_factory=dict)
    read: dict[int, int] = field(default_factory=dict)
    """The next offset to read, by partition."""

    def add(self, letter: Letter) -> None:
        self.heads[letter.partition, letter.offset] = head_of(letter)

    def forget(self, partition: int) -> None:
        self.read.pop(partition, None)
        self.heads = {place: head for place, head in self.heads.items() if place[0] != partition}

    def remove_below(self, partition: int, low: int) -> None:
        if any(place[0] == partition and place[1] < low for place in self.heads):
            self.heads = {place: head for place, head in self.heads.items() if place[0] != partition or place[1] >= low}

    def shorten(self) -> None:
        if len(self.heads) > MOST_HEADS:
            newest = sorted(self.heads.items(), key=lambda item: item[1].at or _EPOCH)[-MOST_HEADS:]
            self.heads = dict(newest)


_EPOCH = datetime.fromtimestamp(0, UTC)
_PASSING = (
    KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001 - the library's public names for them
    KafkaError._TRANSPORT,  # noqa: SLF001
    KafkaError._RESOLVE,  # noqa: SLF001
)


def _letter(group: str, message: Message) -> Letter:
    partition, offset = message.partition(), message.offset()
    assert partition is not None
    assert offset is not None
    kind, milliseconds = message.timestamp()
    headers: Sequence[tuple[str, bytes | None]] = message.headers() or []
    return Letter(
        group=group,
        partition=partition,
        offset=offset,
        at=datetime.fromtimestamp(milliseconds / 1000, UTC) if kind else None,
        key=message.key(),
        value=message.value(),
        headers=list(headers),
    )


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() else -1


def _no_letter(group: str, letter_id: str) -> NotFoundError:
    msg = f"{group} has no dead letter {letter_id[:60]}; `flts dlq list {group}` lists what it has"
    return NotFoundError(msg, code="unknown_letter", field="id")
