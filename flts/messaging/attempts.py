"""Attempts are recorded in the store before the work begins, so that an out-of-memory kill does not lose the count."""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

from flts.contracts.events import Event
from flts.errors import ObjectNotFoundError, PreconditionFailedError
from flts.storage import layout
from flts.storage.ports import ObjectStore

DIED = "the process ended in the middle of the work (killed, or out of memory)"


class AttemptsExhaustedError(Exception):
    """All attempts at an event were used up; the message is the last attempt's error."""

    def __init__(self, last_error: str, attempts: int) -> None:
        super().__init__(last_error)
        self.attempts = attempts


class Attempts(Protocol):
    """Counts attempts at events."""

    def begin(self, event: Event, nonce: str | None = None) -> int:
        """Record an attempt and return its number from 1; raises `AttemptsExhaustedError` if there is none left.

        ``nonce`` names the attempt: a call that is repeated with it, since the answer was lost, counts once.
        """
        ...

    def failed(self, event: Event, number: int, error: str) -> None:
        """Record how an attempt ended."""
        ...

    def withdraw(self, event: Event, number: int) -> None:
        """Take an attempt back: a backend was away, or the service stops."""
        ...

    def clear(self, event: Event, attempts: int) -> None:
        """Remove an event's attempts when it is done or given up: a replay starts afresh."""
        ...


class StoredAttempts:
    """Attempts as one object each, created once.

    Parameters
    ----------
    store, bucket
        Where the runs are recorded.
    group : str
        The consumer group, which counts for itself.
    max_attempts : int
        Attempts that an event has.
    """

    def __init__(
        self,
        store: ObjectStore,
        bucket: str,
        group: str,
        max_attempts: int,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._bucket = bucket
        self._group = group
        self._max_attempts = max_attempts
        self._now = now

    def begin(self, event: Event, nonce: str | None = None) -> int:
        """Record an attempt and return its number from 1; raises `AttemptsExhaustedError` if there is none left."""
        # Without earlier failures this is one put. After failures it tries the next number until one is free.
        nonce = nonce or uuid.uuid4().hex
        for number in range(1, self._max_attempts + 1):
            try:
                self._put(event, number, None, nonce=nonce, create_only=True)
            except PreconditionFailedError:
                # A record with the same nonce is this attempt's own: the answer to its put was lost.
                if self._read(event, number).get("nonce") != nonce:
                    continue
            return number
        raise AttemptsExhaustedError(self._last_error(event), self._max_attempts)

    def failed(self, event: Event, number: int, error: str) -> None:
        """Record how an attempt ended."""
        self._put(event, number, error)

    def withdraw(self, event: Event, number: int) -> None:
        """Take an attempt back: a backend was away, or the service stops."""
        self._store.delete(self._bucket, self.key(event, number))

    def clear(self, event: Event, attempts: int) -> None:
        """Remove an event's attempts when it is done or given up: a replay starts afresh."""
        for number in range(1, attempts + 1):
            self._store.delete(self._bucket, self.key(event, number))

    def key(self, event: Event, number: int) -> str:
        """Return the key of an attempt."""
        return layout.ATTEMPT(event.identifier, event.pipeline_run_id, self._group, event.event_id, str(number))

    def _put(
        self, event: Event, number: int, error: str | None, *, nonce: str | None = None, create_only: bool = False
    ) -> None:
        record = {
            "event_id": event.event_id,
            "group": self._group,
            "attempt": number,
            "nonce": nonce,
            "at": self._now().isoformat(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "error": error,
        }
        self._store.put(self._bucket, self.key(event, number), json.dumps(record).encode(), create_only=create_only)

    def _read(self, event: Event, number: int) -> dict[str, Any]:
        try:
            data, _ = self._store.get(self._bucket, self.key(event, number))
            record: dict[str, Any] = json.loads(data)
        except (ObjectNotFoundError, ValueError):  # the attempt was removed meanwhile, or its record is damaged
            return {}
        return record

    def _last_error(self, event: Event) -> str:
        return str(self._read(event, self._max_attempts).get("error") or DIED)


class MemoryAttempts:
    """Attempts of a replica that reads every message for itself: no other replica continues the count."""

    def __init__(self, max_attempts: int) -> None:
        self._max_attempts = max_attempts
        self._errors: dict[str, list[str]] = {}

    def begin(self, event: Event, nonce: str | None = None) -> int:  # noqa: ARG002 - no answer is lost in memory
        """Record an attempt and return its number from 1; raises `AttemptsExhaustedError` if there is none left."""
        errors = self._errors.setdefault(event.event_id, [])
        if len(errors) >= self._max_attempts:
            raise AttemptsExhaustedError(errors[-1], len(errors))
        errors.append(DIED)
        return len(errors)

    def failed(self, event: Event, number: int, error: str) -> None:
        """Record how an attempt ended."""
        errors = self._errors.get(event.event_id, [])
        if number <= len(errors):  # else the attempt was removed meanwhile
            errors[number - 1] = error

    def withdraw(self, event: Event, number: int) -> None:
        """Take an attempt back: a backend was away, or the service stops."""
        del self._errors.get(event.event_id, [])[number - 1 :]

    def clear(self, event: Event, attempts: int) -> None:  # noqa: ARG002 - counted here
        """Remove an event's attempts when it is done or given up."""
        self._errors.pop(event.event_id, None)
