"""The records of pipeline runs: their start, their announcement to the broker, their outcome.

An unfinished run also has a mark, so that one listing finds all unfinished runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from flts.contracts.events import EvaluateRequest, RawData, RollbackRequest
from flts.contracts.ids import IDENTIFIER_PATTERN
from flts.contracts.lifecycle import RunState
from flts.errors import ConflictError
from flts.storage import layout
from flts.storage.layout import RunName
from flts.storage.marks import Marks
from flts.storage.records import Record, Records, iso

if TYPE_CHECKING:
    from flts.storage.tombstones import Tombstones

_RUN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Runs:
    """Starts, finds, ends and removes runs.

    Parameters
    ----------
    records : Records
        The records of the bucket of runs.
    tombstones : Tombstones
    clock : callable
        Returns epoch seconds.
    """

    def __init__(self, records: Records, tombstones: Tombstones, clock: Callable[[], float]) -> None:
        self._records = records
        self._tombstones = tombstones
        self._clock = clock
        self._index = Marks(records, layout.INDEX_MARK)
        self._open = Marks(records, layout.OPEN_MARK)

    def create(self, event: RawData | EvaluateRequest | RollbackRequest) -> bool:
        """Record a run before its event is published; return whether this call was the first.

        Raises
        ------
        ConflictError
            With code ``being_deleted`` if a deletion of the identifier has not finished, or ``deleted`` if the
            identifier was deleted after this run began.
        """
        name = RunName(event.identifier, event.pipeline_run_id)
        # The marks are written before the run, so that a listing of the marks finds every recorded run, also after a
        # crash. The janitor removes a mark without a run.
        self._index.put(name)
        self._open.put(name)
        first = self._records.create(layout.RUN(*name), event.model_dump(mode="json"))
        try:
            # The check follows the write. A deletion writes its tombstone first and then lists the runs. So either the
            # deletion finds this run, or this check finds the tombstone.
            self.refuse_deleted(*name)
        except ConflictError:
            self.delete(*name)
            raise
        return first

    def refuse_deleted(self, identifier: str, pipeline_run_id: str) -> None:
        """Raise `ConflictError` if a run cannot start, because its identifier is being deleted or was deleted."""
        if self._tombstones.unfinished(identifier):
            msg = f"{identifier} is being deleted; if that was cut off, `flts delete {identifier} --yes` ends it"
            raise ConflictError(msg, code="being_deleted", field="identifier")
        if self._tombstones.covers(identifier, pipeline_run_id):
            msg = f"{identifier} was deleted meanwhile; send the request again to start anew"
            raise ConflictError(msg, code="deleted", field="identifier")

    def deleted(self, identifier: str, pipeline_run_id: str) -> bool:
        """Return whether a run's identifier was deleted after the run began."""
        return self._tombstones.covers(identifier, pipeline_run_id)

    def read(self, identifier: str, pipeline_run_id: str) -> Record | None:
        """Return the event that started the run (`RawData` or a request to eval) as a record, or None."""
        return self._records.read(layout.RUN(identifier, pipeline_run_id))

    def identifier_of(self, pipeline_run_id: str) -> str | None:
        """Return the identifier of a run, or None if there is no such run."""
        if _RUN_ID.fullmatch(pipeline_run_id) is None:
            return None
        marks = self._records.keys(layout.INDEX_MARK.prefix(pipeline_run_id))
        return next((key.rpartition("/")[2] for key in marks), None)

    def identifiers(self) -> list[str]:
        """Return the identifiers that have a run or a Job's record, ordered."""
        names = self._records.folders()
        return [name for name in names if IDENTIFIER_PATTERN.fullmatch(name)]

    def of(self, identifier: str) -> list[str]:
        """Return the pipeline_run_ids of an identifier, newest first."""
        names = self._records.folders(layout.below(identifier))
        return sorted((name for name in names if _RUN_ID.fullmatch(name)), reverse=True)

    def recent(self, limit: int | None = None) -> list[RunName]:
        """Return the runs of all identifiers, newest first."""
        return self._index.runs()[::-1][:limit]

    def unfinished(self) -> list[RunName]:
        """Return the runs without an outcome, oldest first."""
        return [name for name in self._open.runs() if self._is_unfinished(name)]

    def unannounced(self) -> list[RunName]:
        """Return the outbox: the unfinished runs whose event the broker has not acknowledged, oldest first."""
        return [name for name in self.unfinished() if not self._records.exists(layout.ANNOUNCED(*name))]

    def mark_announced(self, identifier: str, pipeline_run_id: str) -> bool:
        """Record that the broker acknowledged the run's event; return whether this call was the first."""
        return self._records.create(layout.ANNOUNCED(identifier, pipeline_run_id), {"at": iso(self._clock())})

    def announced(self, identifier: str, pipeline_run_id: str) -> bool:
        """Return whether the broker acknowledged the run's event."""
        return self._records.exists(layout.ANNOUNCED(identifier, pipeline_run_id))

    def put_outcome(self, identifier: str, pipeline_run_id: str, outcome: RunState, **details: Any) -> bool:
        """Record the outcome of a run; return whether this call was the first."""
        name = RunName(identifier, pipeline_run_id)
        first = self._records.create(layout.OUTCOME(*name), {**details, "outcome": outcome, "at": iso(self._clock())})
        self._open.remove(name)
        return first

    def outcome(self, identifier: str, pipeline_run_id: str) -> Record | None:
        """Return the record of the run's outcome with its reason, or None while the run is unfinished."""
        return self._records.read(layout.OUTCOME(identifier, pipeline_run_id))

    def end(self, identifier: str, pipeline_run_id: str) -> RunState | None:
        """Return the final state of the run, or None while the run is unfinished."""
        return RunState.of_outcome(self.outcome(identifier, pipeline_run_id))

    def delete(self, identifier: str, pipeline_run_id: str) -> int:
        """Remove the records and marks of a run; return the number of records; may be repeated.

        ``run.json`` is removed first and the index mark last. So a partly removed run does not count as unfinished,
        and a repeat finds it.
        """
        keys = self.keys_of(identifier, pipeline_run_id)
        for key in (*keys, *self.marks_of(identifier, pipeline_run_id)):
            self._records.remove(key)
        return len(keys)

    def keys_of(self, identifier: str, pipeline_run_id: str) -> list[str]:
        """Return the keys of a run's records in the order of their removal."""
        first = layout.RUN(identifier, pipeline_run_id)
        return sorted(self._records.keys(layout.below(identifier, pipeline_run_id)), key=lambda key: key != first)

    def marks_of(self, identifier: str, pipeline_run_id: str) -> list[str]:
        """Return the keys of all marks that a run can have."""
        marks = (layout.OPEN_MARK, layout.FORECAST_MARK, layout.INDEX_MARK)
        return [mark(pipeline_run_id, identifier) for mark in marks]

    def create_job(self, identifier: str, job_hash: str, details: Mapping[str, Any]) -> tuple[Record, bool]:
        """Record the run that a Job starts unless a record exists; return the record, and whether this call did."""
        return self._records.adopt(layout.JOB(identifier, job_hash), details)

    def _is_unfinished(self, name: RunName) -> bool:
        if self._records.exists(layout.OUTCOME(*name)):
            self._open.remove(name)  # a process may have been killed after the outcome and before this removal
            return False
        return self._records.exists(layout.RUN(*name))
