"""Tombstones of deleted identifiers. No service may write objects of a run that is older than the tombstone."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

from flts.contracts.ids import IDENTIFIER_PATTERN
from flts.storage import layout
from flts.storage.records import Record, Records

if TYPE_CHECKING:
    from flts.settings import StoreSettings
    from flts.storage.ports import ObjectStore


class Tombstones:
    """One record per identifier that was ever deleted.

    Parameters
    ----------
    store : ObjectStore
    settings : StoreSettings
        Contains the names of the buckets.
    clock : callable
        Returns epoch seconds.
    """

    def __init__(self, store: ObjectStore, settings: StoreSettings, *, clock: Callable[[], float] = time.time) -> None:
        self._records = Records(store, settings.bucket_pipeline_runs)
        self._clock = clock

    def bury(self, identifier: str, before: str) -> None:
        """Record that a deletion of all runs with ids before ``before`` (a UUIDv7) has begun."""

        def change(stored: Record | None) -> Record:
            latest = max(before, str((stored or {}).get("before", "")))
            return {"before": latest, "begun": self._clock(), "done": False, "nonce": uuid.uuid4().hex}

        self._records.change(layout.DELETED(identifier), change)

    def finish(self, identifier: str) -> None:
        """Record that the deletion has finished, so that the identifier can be used again."""

        def change(stored: Record | None) -> Record | None:
            return None if stored is None else {**stored, "done": True, "nonce": uuid.uuid4().hex}

        self._records.change(layout.DELETED(identifier), change)

    def before(self, identifier: str) -> str | None:
        """Return the run id before which all runs of an identifier are deleted, or None if it was never deleted."""
        record = self._records.read(layout.DELETED(identifier))
        return None if record is None else str(record["before"])

    def covers(self, identifier: str, pipeline_run_id: str) -> bool:
        """Return whether a run was deleted; run ids are ordered by time."""
        before = self.before(identifier)
        return before is not None and pipeline_run_id < before

    def unfinished(self, identifier: str) -> bool:
        """Return whether a deletion of the identifier has begun and not finished."""
        record = self._records.read(layout.DELETED(identifier))
        return record is not None and not record.get("done")

    def identifiers(self) -> list[str]:
        """Return the identifiers that were ever deleted, ordered."""
        found = (layout.DELETED.parse(key) for key in self._records.keys(layout.DELETED.prefix()))
        names = (parts["identifier"] for parts in found if parts is not None)
        return [name for name in names if IDENTIFIER_PATTERN.fullmatch(name)]
