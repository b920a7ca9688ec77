"""Eight kinds of messages that nobody can work on, made from good ones; some of them can be mended."""

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
"""With key and value just below what a broker takes by default: 1,048,588 bytes in all."""
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
"""The kinds, and the reason that stands in the dead letter."""
UNREADABLE = tuple(kind for kind in CODES if kind not in {"missing object", "wrong hash"})
"""Those that fail before anything is worked on: no try is counted."""
CLAIMED = ("missing object", "wrong hash")


@dataclass(frozen=True)
class Poison:
    """A record that somebody will give up."""

    kind: str
    event: Event
    """The good one that it was made of; what of it can be read is this one's, the ids too."""
    key: bytes
    value: bytes
    headers: RawHeaders
    mend: Callable[[ObjectStore], None] = field(default=lambda _: None)
    """Puts what its claim promises where the claim says."""

    @property
    def topic(self) -> str:
        return topic_of(self.event).name

    def publish(self, publisher: Publisher, prefix: str = "") -> None:
        publisher.publish_record(f"{prefix}{self.topic}", self.key, self.value, self.headers)


def poison(
    kind: str, event: Event, store: ObjectStore | None = None, *, header_bytes: int = HUGE_HEADER_BYTES
) -> Poison:
    """Return a good event as poison.

    Parameters
    ----------
    store : ObjectStore, optional
        Needed for the kinds whose claim is not right: the object stays where it is, the claim gets a key of its own.
    header_bytes : int
        Of the header that is too large.
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
    """Return whether an event of this kind names an object."""
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
    """Return the claim whose object the consumers of the event read."""
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
