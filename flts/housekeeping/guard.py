"""Guards handlers against deleted runs: their events are not published, and their objects are removed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from flts.errors import BackendAwayError, RunDeletedError
from flts.observability.logs import get_logger

if TYPE_CHECKING:
    from flts.contracts.events import Event
    from flts.housekeeping.deletion import Deletion
    from flts.service import Progress

log = get_logger(__name__)

Work = Callable[["Event", "Progress"], Sequence["Event"]]


def unless_deleted(work: Work, deletion: Deletion) -> Work:
    """Return a handler that raises `RunDeletedError` for an event of a deleted run.

    The guard reads the tombstone before and after the work, because a deletion does not wait for a training of an hour.
    """

    def guarded(event: Event, progress: Progress) -> Sequence[Event]:
        refuse_deleted(deletion, event.identifier, event.pipeline_run_id)
        try:
            produced = work(event, progress)
        except BackendAwayError:
            raise
        except Exception:  # work on a deleted data set may fail with any error, so the next line reads the tombstone
            refuse_deleted(deletion, event.identifier, event.pipeline_run_id, worked=True)
            raise
        refuse_deleted(deletion, event.identifier, event.pipeline_run_id, worked=True)
        return produced

    return guarded


def refuse_deleted(deletion: Deletion, identifier: str, pipeline_run_id: str, *, worked: bool = False) -> None:
    """Raise `RunDeletedError` if the run was deleted, and remove the objects that its identifier's deleted runs wrote.

    Parameters
    ----------
    worked : bool
        Whether the handler has run, so that MLflow may have a record of the run.

    Raises
    ------
    RunDeletedError
        If the run was deleted.
    """
    if not deletion.tombstones.covers(identifier, pipeline_run_id):
        return
    removed = deletion.sweep(identifier, record=worked)
    log.info("run_deleted", identifier=identifier, pipeline_run_id=pipeline_run_id, worked=worked, removed=removed)
    msg = f"the run {pipeline_run_id} of {identifier} was deleted"
    raise RunDeletedError(msg)
