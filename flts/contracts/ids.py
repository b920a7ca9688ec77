"""Ids of runs, events and configurations. Ids that a repeat must reproduce are derived from the input."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
import uuid
from collections.abc import Mapping
from typing import Any

from flts.errors import RejectedError

GLOBAL_IDENTIFIER = "global"
IDENTIFIER_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_uuid7_lock = threading.Lock()
_uuid7_last = 0


def new_pipeline_run_id() -> str:
    """Return a UUIDv7 (RFC 9562): ordered by time, within one process also inside a millisecond."""
    global _uuid7_last  # noqa: PLW0603 - the ids of a process must increase, so the last id is kept
    with _uuid7_lock:
        now = time.time_ns() * 4096 // 1_000_000
        _uuid7_last = max(now, _uuid7_last + 1)
        stamp = _uuid7_last
    milliseconds, fraction = divmod(stamp, 4096)
    value = (milliseconds & (2**48 - 1)) << 80 | 7 << 76 | fraction << 64 | 2 << 62
    value |= int.from_bytes(os.urandom(8), "big") & (2**62 - 1)
    return str(uuid.UUID(int=value))


def run_created_seconds(pipeline_run_id: str) -> float:
    """Return the time in the UUIDv7 of a run, at which the run was created, in epoch seconds."""
    return (uuid.UUID(pipeline_run_id).int >> 80) / 1000


def derived_event_id(parent_event_id: str, made: str) -> str:
    """Return the UUIDv5 of an input's event_id and the name of an output, so that a repeat derives the same id."""
    return str(uuid.uuid5(uuid.UUID(parent_event_id), made))


def derived_run_id(parent_event_id: str, model_type: str) -> str:
    """Return the run_id (32 hex digits) of the model that a trainer trains for an event."""
    return uuid.uuid5(uuid.UUID(parent_event_id), model_type).hex


def canonical_json(value: Mapping[str, Any]) -> bytes:
    """Return the canonical JSON of a value: sorted keys, no spaces, UTF-8, no NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def sha256_of(value: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def check_identifier(identifier: str) -> str:
    """Return the identifier if it is valid.

    Raises
    ------
    RejectedError
        If it does not match ``[A-Za-z0-9][A-Za-z0-9._-]{0,63}``.
    """
    if IDENTIFIER_PATTERN.fullmatch(identifier) is None:
        msg = (
            "an identifier starts with a letter or digit and goes on with at most 63 letters, digits, "
            f"'.', '_' or '-'; got {identifier[:80]!r}"
        )
        raise RejectedError(msg, code="bad_identifier", field="identifier")
    return identifier
