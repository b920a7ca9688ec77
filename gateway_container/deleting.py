"""Delete a data set: refuse while it has unfinished runs, remove its objects, notify replicas, record the operation.

The methods block, so routes call them in a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from flts.contracts.events import DatasetDeleted, Event
from flts.contracts.ids import derived_event_id
from flts.errors import ConflictError, NotFoundError, RetryableError
from flts.housekeeping.deletion import Deletion, Held
from flts.observability.logs import get_logger
from flts.storage.operations import Operations
from flts.storage.runs import Runs
from gateway_container.intake import Intake
from gateway_container.live import LiveRuns

log = get_logger(__name__)

CAUSE = "delete"
SHOWN_RUNS = 10

Publish = Callable[[Sequence[Event]], None]


class Deleting:
    """Deletes data sets everywhere.

    Parameters
    ----------
    deletion : Deletion
    runs : Runs
    intake : Intake
        Cancels unfinished runs.
    operations : Operations
    publish : callable
        Publishes events; a replica that misses an event reads the champion pointers within a minute.
    live : LiveRuns
    """

    def __init__(
        self,
        deletion: Deletion,
        runs: Runs,
        intake: Intake,
        operations: Operations,
        *,
        publish: Publish,
        live: LiveRuns,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._deletion = deletion
        self._runs = runs
        self._intake = intake
        self._operations = operations
        self._publish = publish
        self._live = live
        self._now = now

    def plan(self, identifier: str) -> dict[str, Any]:
        """Return the number of objects that a deletion would remove, by bucket; change nothing.

        Raises
        ------
        NotFoundError
            If the identifier has no objects and was never deleted.
        """
        found = self._known(identifier)
        return {"identifier": identifier, "dry_run": True, "open_runs": self._open_runs(identifier), **_view(found)}

    def delete(self, identifier: str, *, cancel: bool, reason: str | None) -> dict[str, Any]:
        """Remove all objects of an identifier; return their number by bucket.

        Raises
        ------
        NotFoundError
            If the identifier has no objects and was never deleted.
        ConflictError
            With code ``runs_under_way`` and the runs' ids, if there are unfinished runs and ``cancel`` is False.
        """
        self._known(identifier)
        cancelled = self._cancel(identifier, allowed=cancel, reason=reason)
        operation = self._operations.begin(CAUSE, identifier, reason=reason, cancelled=cancelled)
        removed = self._deletion.carry_out(
            identifier, report=lambda: self._tell(identifier, operation), before=operation
        )
        view = _view(removed)
        self._operations.end(operation, identifier, **view)
        log.info("dataset_deleted", identifier=identifier, objects=view["objects"], size_bytes=view["bytes"])
        return {"identifier": identifier, "dry_run": False, "operation_id": operation, "cancelled": cancelled, **view}

    def state(self, identifier: str) -> dict[str, Any] | None:
        """Return whether the deletion is unfinished and whether MLflow has recorded it; None if there was none."""
        if self._deletion.tombstones.before(identifier) is None:
            return None
        return {
            "unfinished": self._deletion.tombstones.unfinished(identifier),
            "recorded": self._deletion.recorded(identifier),
        }

    def _known(self, identifier: str) -> list[Held]:
        found = self._deletion.plan(identifier)
        if not any(held.keys for held in found) and self._deletion.tombstones.before(identifier) is None:
            msg = f"there is nothing called {identifier}; `flts datasets` lists what there is"
            raise NotFoundError(msg, code="unknown_identifier", field="identifier")
        return found

    def _open_runs(self, identifier: str) -> list[str]:
        # Runs that an earlier, unfinished deletion marked as deleted are left out.
        names = (name for name in self._runs.unfinished() if name.identifier == identifier)
        return [name.pipeline_run_id for name in names if not self._runs.deleted(*name)]

    def _cancel(self, identifier: str, *, allowed: bool, reason: str | None) -> list[str]:
        open_runs = self._open_runs(identifier)
        if open_runs and not allowed:
            named = ", ".join(open_runs[:SHOWN_RUNS]) + (" ..." if len(open_runs) > SHOWN_RUNS else "")
            msg = (
                f"{len(open_runs)} run(s) on {identifier} are under way: {named}; wait for them, cancel them "
                f"(`flts cancel RUN`), or have them cancelled: `flts delete {identifier} --cancel --yes`"
            )
            raise ConflictError(msg, code="runs_under_way", field="identifier")
        cancelled = []
        for run in open_runs:
            try:
                if self._intake.cancel(identifier, run, reason or f"{identifier} is deleted"):
                    cancelled.append(run)
            except ConflictError:  # eval has decided the run meanwhile, so it needs no cancellation
                log.info("run_decided_meanwhile", identifier=identifier, pipeline_run_id=run)
            self._live.changed(run)
        return cancelled

    def _tell(self, identifier: str, operation: str) -> None:
        event = DatasetDeleted(
            event_id=derived_event_id(operation, DatasetDeleted.HEADER_EVENT),
            identifier=identifier,
            pipeline_run_id=operation,
            created_at=self._now(),
        )
        try:
            self._publish([event])
        except RetryableError as error:
            log.warning("deletion_not_told", identifier=identifier, error=error.message)


def _view(found: Sequence[Held]) -> dict[str, Any]:
    return {
        "buckets": [held.view() for held in found if held.keys],
        "objects": sum(len(held.keys) for held in found),
        "bytes": sum(held.size_bytes for held in found),
    }
