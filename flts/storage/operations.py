"""The log of operations that start no run (cancel, resume, delete, replay, a round of the janitor), with their reasons.

A run keeps its own cause in ``run.json``. The records of this log outlive the data that they are about.
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
"""In the identifier's place for what concerns no single one; no identifier begins with an underscore."""


class Operations:
    """One record per operation, in the bucket of runs.

    Parameters
    ----------
    store : ObjectStore
    settings : StoreSettings
        Names of the buckets.
    clock : callable
        Epoch seconds.
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
            Whose; None for what concerns no single one.
        pipeline_run_id : str, optional
            The run that it is done to.
        reason : str, optional
            The reason that the person gave.
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
        """Record an operation that is over already; as `begin`."""
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
        """Return the operations on an identifier, or those on none, newest first; of one run alone if it is named."""
        found: list[Record] = []
        for key in sorted(self._records.keys(layout.OPERATION.prefix(identifier or _ALL)), reverse=True):
            record = self._records.read(key)
            if record is None or (pipeline_run_id is not None and record.get("pipeline_run_id") != pipeline_run_id):
                continue
            found.append(record)
            if len(found) == limit:
                break
        return found
