"""Counts the attempts at each event. The store records an attempt before the work begins, so a kill loses no count."""

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
    """An event has no attempt left; the message is the error of its last attempt."""

    def __init__(self, last_error: str, attempts: int) -> None:
        super().__init__(last_error)
        self.attempts = attempts


class Attempts(Protocol):
    """The count of attempts at each event."""

    def begin(self, event: Event, nonce: str | None = None) -> int:
        """Record an attempt and return its number from 1; raise `AttemptsExhaustedError` if the event has none left.

        ``nonce`` identifies the attempt. A caller that lost the answer calls again with the same nonce, and the attempt
        counts once.
        """
        ...

    def failed(self, event: Event, number: int, error: str) -> None:
        """Record the error of a failed attempt."""
        ...

    def withdraw(self, event: Event, number: int) -> None:
        """Remove an attempt that does not count, because a backend was away or the service stops."""
        ...

    def clear(self, event: Event, attempts: int) -> None:
        """Remove the attempts of an event that is done or dead-lettered, so that a replay begins at attempt 1."""
        ...


class StoredAttempts:
    """Attempts in the store: one object for each attempt, written create-only.

    Parameters
    ----------
    store, bucket
        The object store, and the bucket that holds the records of runs.
    group : str
        The consumer group. Each group has its own count.
    max_attempts : int
        Most attempts at one event.
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
        """Record an attempt and return its number from 1; raise `AttemptsExhaustedError` if the event has none left."""
        # The key of an attempt contains its number. The first attempt of an event needs one put. After failed attempts
        # the loop tries the numbers from 1 until a put finds a free key.
        nonce = nonce or uuid.uuid4().hex
        for number in range(1, self._max_attempts + 1):
            try:
                self._put(event, number, None, nonce=nonce, create_only=True)
            except PreconditionFailedError:
                # The key exists. If its record has this nonce, an earlier put of this attempt succeeded and its answer
                # was lost, so the number is valid. If it has another nonce, the number belongs to another attempt.
                if self._read(event, number).get("nonce") != nonce:
                    continue
            return number
        raise AttemptsExhaustedError(self._last_error(event), self._max_attempts)

    def failed(self, event: Event, number: int, error: str) -> None:
        """Record the error of a failed attempt."""
        self._put(event, number, error)

    def withdraw(self, event: Event, number: int) -> None:
        """Remove an attempt that does not count, because a backend was away or the service stops."""
        self._store.delete(self._bucket, self.key(event, number))

    def clear(self, event: Event, attempts: int) -> None:
        """Remove the attempts of an event that is done or dead-lettered, so that a replay begins at attempt 1."""
        for number in range(1, attempts + 1):
            self._store.delete(self._bucket, self.key(event, number))

    def key(self, event: Event, number: int) -> str:
        """Return the key of an attempt's object."""
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
    """Attempts in memory, for a consumer without a group or a service without a store; a restart begins at 1."""

    def __init__(self, max_attempts: int) -> None:
        self._max_attempts = max_attempts
        self._errors: dict[str, list[str]] = {}

    def begin(self, event: Event, nonce: str | None = None) -> int:  # noqa: ARG002 - only a store's answer can be lost
        """Record an attempt and return its number from 1; raise `AttemptsExhaustedError` if the event has none left."""
        errors = self._errors.setdefault(event.event_id, [])
        if len(errors) >= self._max_attempts:
            raise AttemptsExhaustedError(errors[-1], len(errors))
        errors.append(DIED)
        return len(errors)

    def failed(self, event: Event, number: int, error: str) -> None:
        """Record the error of a failed attempt."""
        errors = self._errors.get(event.event_id, [])
        if number <= len(errors):  # otherwise another thread has removed the attempt
            errors[number - 1] = error

    def withdraw(self, event: Event, number: int) -> None:
        """Remove an attempt that does not count, because a backend was away or the service stops."""
        del self._errors.get(event.event_id, [])[number - 1 :]

    def clear(self, event: Event, attempts: int) -> None:  # noqa: ARG002 - the list has the number of attempts
        """Remove the attempts of an event that is done or dead-lettered, so that a replay begins at attempt 1."""
        self._errors.pop(event.event_id, None)
