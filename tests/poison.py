"""Eight kinds of records that a consumer cannot process, made from good events; some of them can be repaired."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flts.contracts.claim_check import ClaimCheck
from flts.contracts.events import (
    Event,
    InferenceData,
    ModelSelected,
    ModelTraining,
    PerformanceEval,
    RawData,
    RunProgress,
    TrainingData,
)
from flts.contracts.topics import topic_of
from flts.messaging.codec import encode
from flts.messaging.kafka import Publisher, RawHeaders
from flts.storage.ports import ObjectStore

HUGE_HEADER_BYTES = 1_000_000
"""Bytes; the whole record is slightly smaller than the broker's default limit of 1,048,588 bytes."""
CODES: Mapping[str, str] = {
    "truncated": "not_json",
    "not JSON": "not_json",
    "unknown event": "unknown_event",
    "unknown version": "unknown_version",
    "wrong schema": "bad_message",
    "1 MB header": "headers_too_large",
    "missing object": "object_not_found",
    "wrong hash": "hash_mismatch",
}
"""Error code in the dead letter, by kind of poison."""
UNREADABLE = tuple(kind for kind in CODES if kind not in {"missing object", "wrong hash"})
"""Kinds that fail before the handler is called: the consumer counts no attempt."""
CLAIMED = ("missing object", "wrong hash")


@dataclass(frozen=True)
class Poison:
    """A record that its consumer will give up."""

    kind: str
    event: Event
    """The good event from which the record was made; readable fields, such as the ids, are this event's."""
    key: bytes
    value: bytes
    headers: RawHeaders
    mend: Callable[[ObjectStore], None] = field(default=lambda _: None)
    """Stores the object that the claim promises at the claim's key."""

    @property
    def topic(self) -> str:
        return topic_of(self.event).name

    def publish(self, publisher: Publisher, prefix: str = "") -> None:
        publisher.publish_record(f"{prefix}{self.topic}", self.key, self.value, self.headers)


def poison(
    kind: str, event: Event, store: ObjectStore | None = None, *, header_bytes: int = HUGE_HEADER_BYTES
) -> Poison:
    """Return a poison record, made from a good event.

    Parameters
    ----------
    store : ObjectStore, optional
        Needed for the kinds with a wrong claim: the object stays unchanged, and the claim gets a key of its own.
    header_bytes : int
        Size of the header of the kind "1 MB header".
    """
    if kind in CLAIMED:
        assert store is not None
        return _claimed(kind, event, store)
    key, value, headers = encode(event)
    kept: RawHeaders = list(headers)
    content = json.loads(value)
    if kind == "truncated":
        value = value[: len(value) // 2]
    elif kind == "not JSON":
        value = f"time,down,up\n2024-01-01 00:00:00,1.0,2.0\n# {event.event_id}\n".encode()
    elif kind == "unknown event":
        kept = [("event", b"never-heard-of"), *kept[1:]]
    elif kind == "unknown version":
        value = json.dumps(content | {"v": 99}).encode()
    elif kind == "wrong schema":
        value = json.dumps({name: content[name] for name in ("v", "identifier", "pipeline_run_id")}).encode()
    else:
        kept = [*kept, ("baggage", b"x" * header_bytes)]
    return Poison(kind, event, key, value, kept)


def has_claim(event: Event) -> bool:
    """Return whether events of this type contain a claim."""
    return not isinstance(event, RunProgress)


def _claimed(kind: str, event: Event, store: ObjectStore) -> Poison:
    claim = _claim_of(event)
    right, _ = store.get(claim.bucket, claim.object_key)
    ending = "missing" if kind == "missing object" else "damaged"
    moved = claim.model_copy(update={"object_key": f"{claim.object_key}.{event.event_id[:8]}.{ending}"})
    if kind == "wrong hash":
        store.put(moved.bucket, moved.object_key, right[:-1] + bytes([right[-1] ^ 1]))
    key, value, headers = encode(_with_claim(event, moved))
    return Poison(kind, event, key, value, list(headers), lambda s: _put(s, moved, right))


def _put(store: ObjectStore, claim: ClaimCheck, data: bytes) -> None:
    store.put(claim.bucket, claim.object_key, data)


def _claim_of(event: Event) -> ClaimCheck:
    """Return the claim of the object that the event's consumers read."""
    if isinstance(event, RawData):
        return event.train
    if isinstance(event, InferenceData):
        return event.raw_test
    if isinstance(event, TrainingData):
        return event.claim()
    claim = event.log if isinstance(event, PerformanceEval) else None
    if isinstance(event, ModelTraining | ModelSelected):
        claim = event.bundle
    assert claim is not None, f"{type(event).__name__} names no object"
    return claim


def _with_claim(event: Event, claim: ClaimCheck) -> Event:
    changes: dict[str, Any]
    if isinstance(event, RawData):
        changes = {"train": claim}
    elif isinstance(event, InferenceData):
        changes = {"raw_test": claim}
    elif isinstance(event, TrainingData):
        changes = {"object_key": claim.object_key}
    elif isinstance(event, PerformanceEval):
        changes = {"log": claim}
    else:
        changes = {"bundle": claim}
    return event.model_copy(update=changes)
