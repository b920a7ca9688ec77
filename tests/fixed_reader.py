"""A repaired decoder: it accepts records that the service's own decoder refused.

A folder holds the event of each such record, named by the digest of the record's bytes. So the decoder accepts a
record only if every byte is unchanged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from flts.contracts.events import Event
from flts.contracts.topics import Topic
from flts.errors import RejectedError
from flts.messaging import codec, delivery
from flts.messaging.codec import ONLY_GROUP, REPLAY_OF
from tests.poison import Poison

Headers = Iterable[tuple[str, bytes | None]]


def teach(folder: Path, poison: Poison) -> None:
    """Make the decoder accept a poison record and return the event from which it was made."""
    folder.mkdir(exist_ok=True)
    name = f"{digest(poison.value, poison.headers)}.json"
    (folder / name).write_text(poison.event.model_dump_json())


def install(folder: Path) -> None:
    """Use the repaired decoder in this process from now on, with the events in ``folder``."""

    def decode(topic: Topic, value: bytes | None, headers: Headers | None) -> Event:
        kept = list(headers or ())
        try:
            return codec.decode(topic, value, kept)
        except RejectedError:
            known = folder / f"{digest(value, kept)}.json"
            if not known.exists():
                raise
            return topic.events[0].model_validate_json(known.read_text())

    delivery.decode = decode


def digest(value: bytes | None, headers: Headers) -> str:
    """Return a digest of a record's value and headers, without the headers that a replay adds."""
    own = [(name, text) for name, text in headers if name not in (ONLY_GROUP, REPLAY_OF)]
    return hashlib.sha256(repr((value, own)).encode()).hexdigest()
