"""The handler of the gateway: it keeps the latest state of a run from each event, and notifies its watchers."""

from __future__ import annotations

from collections.abc import Sequence

from flts.contracts.events import Event, RunProgress
from flts.service import Progress
from gateway_container.live import LiveRuns

SHOWN = ("service", "stage", "state", "epoch", "epochs", "loss", "elapsed", "detail")


class WatchRuns:
    """Updates the live state of runs from events; publishes no event."""

    def __init__(self, live: LiveRuns) -> None:
        self._live = live

    def __call__(self, event: Event, progress: Progress) -> Sequence[Event]:  # noqa: ARG002 - the signature of every handler
        """Update the live state of the event's run."""
        if isinstance(event, RunProgress):
            record = event.model_dump(mode="json", include=set(SHOWN))
            self._live.progressed(event.pipeline_run_id, event.stage, {**record, "at": event.created_at.isoformat()})
        else:
            self._live.changed(event.pipeline_run_id)
        return ()
