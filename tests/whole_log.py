"""Read every record that the broker has, and produce records again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from flts.contracts import topics
from tests.eventually import eventually
from tests.trainers import INSTALLED

GROUPS = {
    "preprocess": ("raw-data",),
    **dict.fromkeys(INSTALLED, ("training-data", "model-refit")),
    "eval": ("training-data", "model-training", "model-refit"),
    "inference-worker": ("inference-data",),
}
"""Topics of each consumer group."""
PIPELINE = tuple(topic.name for topic in topics.ALL)


@dataclass(frozen=True, slots=True)
class Logged:
    """One record as it was produced."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]

    @property
    def content(self) -> dict[str, Any]:
        return dict(json.loads(self.value or b"{}"))


def read_log(address: str, names: Iterable[str] = ()) -> list[Logged]:
    """Return all records of these topics, by default of the pipeline's, sorted by topic and partition."""
    records = []
    with _reader(address, "reader") as consumer:
        for part, end in sorted(_ends(consumer, names or PIPELINE).items()):
            if not end:
                continue
            consumer.assign([TopicPartition(*part, OFFSET_BEGINNING)])
            position = 0
            while position < end:
                message = consumer.poll(10)
                assert message is not None, f"{part} ends at {end}, nothing after {position}"
                assert message.error() is None, message.error()
                position = message.offset() + 1
                headers = tuple((name, value) for name, value in message.headers() or [])
                records.append(Logged(part[0], message.key(), message.value(), headers))
    return records


def produce(address: str, records: Iterable[Logged]) -> int:
    """Produce records in this order with their keys and headers, wait for the acknowledgements, return the count."""
    errors: list[Any] = []
    producer = Producer({"bootstrap.servers": address, "linger.ms": 5, "partitioner": "consistent_random"})
    count = 0
    for record in records:
        count += 1
        producer.produce(
            record.topic,
            key=record.key,
            value=record.value,
            headers=list(record.headers),
            on_delivery=lambda error, _message: errors.append(error) if error else None,
        )
        producer.poll(0)
    assert producer.flush(30) == 0, "records were not acknowledged"
    assert not errors, errors
    return count


def lags(address: str) -> dict[str, int]:
    """Return the lag of each consumer group in records."""
    behind = {}
    for group, names in GROUPS.items():
        with _reader(address, group) as consumer:
            ends = _ends(consumer, names)
            committed = consumer.committed([TopicPartition(*part) for part in ends], timeout=10)
            behind[group] = sum(ends[part.topic, part.partition] - max(0, part.offset) for part in committed)
    return behind


def wait_read(address: str, *, timeout: float = 300) -> None:
    """Wait until the lag is 0 twice in a row, because the last records may have caused further records."""

    def read() -> bool:
        for _ in range(2):
            behind = lags(address)
            assert not any(behind.values()), f"lag: {behind}"
        return True

    eventually(read, "every group has read everything", timeout=timeout, every=0.3)


def ids_by_topic(records: Iterable[Logged]) -> dict[str, Counter[str]]:
    """Return how often each event_id was published, by topic; a progress report always has a new id and is left out."""
    found: dict[str, Counter[str]] = {}
    for record in records:
        if record.topic != topics.RUN_PROGRESS.name:
            found.setdefault(record.topic, Counter())[record.content["event_id"]] += 1
    return found


@contextmanager
def _reader(address: str, group: str) -> Iterator[Consumer]:
    with closing(Consumer({"bootstrap.servers": address, "group.id": group, "fetch.wait.max.ms": 20})) as consumer:
        yield consumer


def _ends(consumer: Consumer, names: Iterable[str]) -> dict[tuple[str, int], int]:
    known = consumer.list_topics(timeout=10).topics
    parts = [TopicPartition(name, number) for name in names for number in known[name].partitions]
    return {(part.topic, part.partition): consumer.get_watermark_offsets(part, timeout=10)[1] for part in parts}
