"""Report the progress of a fit as progress of the run, in the log and in MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from flts.observability.logs import get_logger
from flts.service import Progress
from flts.training.threads import resident_bytes

if TYPE_CHECKING:
    from flts.training.record import Record

log = get_logger(__name__)


class ProgressReport:
    """Receives a fit's progress reports.

    Parameters
    ----------
    stage : str
    progress : Progress
        Callback of the message that is being handled.
    """

    def __init__(self, stage: str, progress: Progress) -> None:
        self._stage = stage
        self._progress = progress
        self.record: Record | None = None
        """The MLflow record of the epochs; None before the training begins."""

    def state(self, state: str) -> None:
        """Report that the work entered another state."""
        self._progress(self._stage, state)

    def alive(self, detail: str) -> None:
        """Report that work goes on within an epoch."""
        self._progress(self._stage, "training", detail=detail)

    def epoch_done(self, epoch: int, epochs: int, metrics: Mapping[str, float | None], *, loss: float | None) -> None:
        """Report that an epoch, counted from 1, is done."""
        log.info("epoch_done", epoch=epoch, epochs=epochs, rss_bytes=resident_bytes(), **metrics)
        self._progress(self._stage, "training", epoch=epoch, epochs=epochs, loss=loss)
        if self.record is not None:
            self.record.epoch(epoch, metrics)
