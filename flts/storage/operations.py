"""The log of operations that start no run (cancel, resume, delete, replay, round of the janitor), with their reasons.

The cause of a run is in its ``run.json``. The records of this log remain when the data of an identifier are deleted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flts.contracts.ids import new_pipeline_run_id
from flts.storage import layout
from flts.storage.records import Record, Records, iso

if TYPE_CHECKING:
    from flts.settings import StoreSettings
    from flts.storage.ports import ObjectStore

_ALL = "_all"
"""In place of the identifier if an operation concerns no single identifier; no identifier begins with ``_``."""


class Operations:
    """One record per operation, in the bucket of runs.

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

    def begin(
        self,
        cause: str,
        identifier: str | None = None,
        *,
        pipeline_run_id: str | None = None,
        reason: str | None = None,
        **details: Any,
    ) -> str:
        """Record that an operation begins; return its id, a UUIDv7.

        Parameters
        ----------
        cause : str
            ``cancel``, ``resume``, ``delete``, ``replay`` or ``janitor``.
        identifier : str, optional
            None if the operation concerns no single identifier.
        pipeline_run_id : str, optional
            The run to which the operation applies.
        reason : str, optional
            The reason given by the user.
        """
        operation_id = new_pipeline_run_id()
        record = {
            **details,
            "operation_id": operation_id,
            "cause": cause,
            "identifier": identifier,
            "pipeline_run_id": pipeline_run_id,
            "reason": reason,
            "begun": iso(self._clock()),
            "ended": None,
        }
        self._records.create(layout.OPERATION(identifier or _ALL, operation_id), record)
        return operation_id

    def end(self, operation_id: str, identifier: str | None = None, **details: Any) -> None:
        """Record how an operation ended."""

        def change(stored: Record | None) -> Record:
            return {**(stored or {}), **details, "ended": iso(self._clock())}

        self._records.change(layout.OPERATION(identifier or _ALL, operation_id), change)

    def done(
        self,
        cause: str,
        identifier: str | None = None,
        *,
        pipeline_run_id: str | None = None,
        reason: str | None = None,
        **details: Any,
    ) -> str:
        """Record an operation that has already ended; parameters and result as in `begin`."""
        ended = {**details, "ended": iso(self._clock())}
        operation_id = new_pipeline_run_id()
        record = {
            "operation_id": operation_id,
            "cause": cause,
            "identifier": identifier,
            "pipeline_run_id": pipeline_run_id,
            "reason": reason,
            "begun": iso(self._clock()),
            **ended,
        }
        self._records.create(layout.OPERATION(identifier or _ALL, operation_id), record)
        return operation_id

    def of(self, identifier: str | None, *, pipeline_run_id: str | None = None, limit: int = 20) -> list[Record]:
        """Return the operations on an identifier (None: those without an identifier) or on one run, newest first."""
        found: list[Record] = []
        for key in sorted(self._records.keys(layout.OPERATION.prefix(identifier or _ALL)), reverse=True):
            record = self._records.read(key)
            if record is None or (pipeline_run_id is not None and record.get("pipeline_run_id") != pipeline_run_id):
                continue
            found.append(record)
            if len(found) == limit:
                break
        return found
