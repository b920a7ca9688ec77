"""The handler of the gateway: it keeps the latest state of a run from each event, and notifies its watchers."""

from __future__ import annotations

from collections.abc import Sequence

from flts.contracts.events import Event, RunProgress
from flts.service import Progress
from gateway_container.live import LiveRuns

SHOWN = ("service", "stage", "state", "epoch", "epochs", "loss", "elapsed", "detail")


class WatchRuns:
    """Keeps the live state of runs fresh; produces nothing."""

    def __init__(self, live: LiveRuns) -> None:
        self._live = live

    def __call__(self, event: Event, progress: Progress) -> Sequence[Event]:  # noqa: ARG002 - the handler's form
        """Take in one event of any topic."""
        if isinstance(event, RunProgress):
            record = event.model_dump(mode="json", include=set(SHOWN))
            self._live.progressed(event.pipeline_run_id, event.stage, {**record, "at": event.created_at.isoformat()})
        else:
            self._live.changed(event.pipeline_run_id)
        return ()
