"""Records of batch forecasts of test rows: the forecasts that wait for a decision, and the results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from flts.contracts.events import InferenceData
from flts.storage import layout
from flts.storage.layout import RunName
from flts.storage.marks import Marks
from flts.storage.records import Record, Records, iso, parse_event


class Forecasts:
    """The records of batch forecasts.

    Parameters
    ----------
    records : Records
        The records of the bucket of runs.
    clock : callable
        Returns epoch seconds.
    """

    def __init__(self, records: Records, clock: Callable[[], float]) -> None:
        self._records = records
        self._clock = clock
        self._marks = Marks(records, layout.FORECAST_MARK)

    def put_inference(self, event: InferenceData) -> bool:
        """Record the event with the test rows until the run is decided; return whether this call was the first."""
        name = RunName(event.identifier, event.pipeline_run_id)
        self._marks.put(name)
        return self._records.create(layout.INFERENCE(*name), event.model_dump(mode="json"))

    def inference(self, identifier: str, pipeline_run_id: str) -> InferenceData | None:
        """Return the recorded event with the test rows, or None."""
        key = layout.INFERENCE(identifier, pipeline_run_id)
        record = self._records.read(key)
        return None if record is None else parse_event(InferenceData, record, key)

    def waiting(self) -> list[RunName]:
        """Return the runs whose test rows are recorded and neither forecast nor skipped, oldest first."""
        waiting = []
        for name in self._marks.runs():
            if self._records.exists(layout.FORECAST(*name)):
                self._marks.remove(name)
            elif self._records.exists(layout.INFERENCE(*name)):
                waiting.append(name)
        return waiting

    def put(self, identifier: str, pipeline_run_id: str, status: Literal["done", "skipped"], **details: Any) -> bool:
        """Record the result of the batch forecast; return whether this call was the first."""
        name = RunName(identifier, pipeline_run_id)
        first = self._records.create(layout.FORECAST(*name), {**details, "status": status, "at": iso(self._clock())})
        self._marks.remove(name)
        return first

    def read(self, identifier: str, pipeline_run_id: str) -> Record | None:
        """Return the result of the batch forecast, or None."""
        return self._records.read(layout.FORECAST(identifier, pipeline_run_id))
