"""Work on a run that was deleted meanwhile leaves nothing: its messages are not published, its objects are removed."""

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
    """Return the work, but for events of deleted runs, which raise `RunDeletedError`.

    Looked at before the work and after it: who deletes does not wait for a training of an hour.
    """

    def guarded(event: Event, progress: Progress) -> Sequence[Event]:
        refuse_deleted(deletion, event.identifier, event.pipeline_run_id)
        try:
            produced = work(event, progress)
        except BackendAwayError:
            raise
        except Exception:  # a run of a deleted data set may fail in any way
            refuse_deleted(deletion, event.identifier, event.pipeline_run_id, worked=True)
            raise
        refuse_deleted(deletion, event.identifier, event.pipeline_run_id, worked=True)
        return produced

    return guarded


def refuse_deleted(deletion: Deletion, identifier: str, pipeline_run_id: str, *, worked: bool = False) -> None:
    """Remove the objects that a deleted run has left.

    Parameters
    ----------
    worked : bool
        Whether something was done for it, which may have reached MLflow too.

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
