"""Records: small JSON objects in the store, which are created once or changed by compare-and-set."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError
from pydantic_core import to_json

from flts.contracts.ids import canonical_json
from flts.errors import BackendAwayError, ObjectNotFoundError, PreconditionFailedError, RejectedError
from flts.storage.claims import put_claimed

if TYPE_CHECKING:
    from flts.contracts.claim_check import ClaimCheck
    from flts.contracts.events import Event
    from flts.storage.ports import ObjectStore

E = TypeVar("E", bound="Event")
Record = dict[str, Any]
Moment = datetime | float | str
"""A time as datetime, epoch seconds or ISO 8601."""
TRIES = 50
"""Attempts; if another writer changed the record first, the next attempt reads the record again."""


class Records:
    """The records of one bucket."""

    def __init__(self, store: ObjectStore, bucket: str) -> None:
        self._store = store
        self._bucket = bucket

    def create(self, key: str, record: Mapping[str, Any]) -> bool:
        """Write a record unless one exists; return whether this call wrote it."""
        try:
            self._store.put(self._bucket, key, dump(record), create_only=True)
        except PreconditionFailedError:
            return False
        return True

    def adopt(self, key: str, record: Mapping[str, Any]) -> tuple[Record, bool]:
        """Create a record unless one exists; return the stored record, and whether this call wrote it."""
        for _ in range(TRIES):
            if self.create(key, record):
                return json.loads(dump(record)), True
            stored = self.read(key)
            if stored is not None:
                return stored, False
        raise contended(key)

    def change(self, key: str, new: Callable[[Record | None], Record | None], *, tries: int = TRIES) -> bool:
        """Change a record by compare-and-set; return whether this call wrote it.

        ``new`` is called with the stored record or None, and returns the new record, or None to change nothing. With
        ``tries=1`` the method returns False if another writer changed the record meanwhile.
        """
        for _ in range(tries):
            found = self.read_with_etag(key)
            record = new(found and found[0])
            if record is None:
                return False
            if self.replace(key, record, found and found[1]):
                return True
        if tries == 1:
            return False
        raise contended(key)

    def replace(self, key: str, record: Mapping[str, Any], etag: str | None) -> bool:
        """Write a record if the stored record has this etag (None: if no record exists); return whether it did."""
        try:
            self._store.put(self._bucket, key, dump(record), create_only=etag is None, if_match=etag)
        except PreconditionFailedError:
            return False
        return True

    def read(self, key: str) -> Record | None:
        """Return a record, or None."""
        found = self.read_with_etag(key)
        return found and found[0]

    def read_with_etag(self, key: str) -> tuple[Record, str] | None:
        """Return a record and its etag, or None.

        Raises
        ------
        RejectedError
            With code ``corrupt_record`` and the key, if the object is not a JSON object.
        """
        try:
            data, info = self._store.get(self._bucket, key)
        except ObjectNotFoundError:
            return None
        return _load(f"{self._bucket}/{key}", data), info.etag

    def put_claimed(self, key: str, data: bytes) -> ClaimCheck:
        """Store bytes under a key that contains their hash, and return the claim check."""
        return put_claimed(self._store, self._bucket, key, data)

    def exists(self, key: str) -> bool:
        """Return whether a record exists."""
        try:
            self._store.head(self._bucket, key)
        except ObjectNotFoundError:
            return False
        return True

    def folder(self, prefix: str) -> Iterator[tuple[str, Record]]:
        """Yield name and record of the records below a prefix; the name is the key without prefix and ``.json``."""
        for key in self.keys(prefix):
            record = self.read(key)
            if record is not None:
                yield key.removeprefix(prefix).removesuffix(".json"), record

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys below a prefix, ordered."""
        return (info.key for info in self._store.list(self._bucket, prefix))

    def folders(self, prefix: str = "") -> Iterator[str]:
        """Yield the names of the folders below a prefix, ordered."""
        return self._store.list_folders(self._bucket, prefix)

    def mark(self, key: str) -> None:
        """Write an empty object."""
        self._store.put(self._bucket, key, b"")

    def remove(self, key: str) -> None:
        """Remove a record or mark, if it exists."""
        self._store.delete(self._bucket, key)


def dump(record: Mapping[str, Any]) -> bytes:
    """Return the canonical JSON of a record; pydantic converts claim checks, events and times, NaN becomes null."""
    return canonical_json(json.loads(to_json(dict(record), inf_nan_mode="null")))


def parse_event(event: type[E], record: Record, key: str) -> E:
    """Return the event that a record contains.

    Raises
    ------
    RejectedError
        With code ``corrupt_record`` and the key, if the record is not such an event.
    """
    try:
        return event.model_validate(record)
    except ValidationError as error:
        msg = f"{key} is no {event.__name__}: {error.error_count()} fields do not validate"
        raise RejectedError(msg, code="corrupt_record", field=key) from error


def iso(moment: Moment) -> str:
    """Return a time as ISO 8601 in UTC with milliseconds, as records contain it; a text is returned unchanged."""
    if isinstance(moment, str):
        return moment
    when = datetime.fromtimestamp(moment, UTC) if isinstance(moment, int | float) else moment.astimezone(UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def contended(key: str) -> BackendAwayError:
    """Return the error for a record that other writers changed during each attempt."""
    msg = f"{key} changed under every one of {TRIES} tries to write it"
    return BackendAwayError(msg, code="contended")


def _load(name: str, data: bytes) -> Record:
    try:
        record = json.loads(data)
    except ValueError as error:
        msg = f"{name} is not JSON"
        raise RejectedError(msg, code="corrupt_record", field=name) from error
    if not isinstance(record, dict):
        msg = f"{name} holds no JSON object"
        raise RejectedError(msg, code="corrupt_record", field=name)
    return record
