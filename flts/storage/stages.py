"""The records of the stages of a run. The service of a stage writes its record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from flts.storage import layout
from flts.storage.layout import RunName
from flts.storage.records import Moment, Record, Records, iso

StageStatus = Literal["started", "done", "failed", "skipped"]

_ENDED = frozenset({"done", "skipped"})


class Stages:
    """The records of stages.

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

    def put(  # noqa: PLR0917 - all services pass a stage and its times in this order
        self,
        identifier: str,
        pipeline_run_id: str,
        stage: str,
        status: StageStatus,
        start: Moment | None = None,
        end: Moment | None = None,
        **details: Any,
    ) -> bool:
        """Record the status of a stage; return False if its record is ``done`` or ``skipped``, which stays.

        A start after a failure is a new attempt and replaces the record. ``start`` defaults to now, or at the end of a
        stage to the recorded start. ``end`` defaults to now, or to None at the start of a stage.
        """
        name = RunName(identifier, pipeline_run_id)

        def change(stored: Record | None) -> Record | None:
            if stored is not None and stored.get("status") in _ENDED:
                return None
            known = None if stored is None or status == "started" else stored.get("start")
            started = start if start is not None else known or iso(self._clock())
            ended = end if end is not None or status == "started" else iso(self._clock())
            return {**details, "stage": stage, "status": status, "start": iso(started), "end": ended and iso(ended)}

        return self._records.change(layout.STAGE(*name, stage), change)

    def read(self, identifier: str, pipeline_run_id: str, stage: str) -> Record | None:
        """Return the record of a stage, or None if the stage has not begun."""
        return self._records.read(layout.STAGE(identifier, pipeline_run_id, stage))

    def of(self, identifier: str, pipeline_run_id: str) -> dict[str, Record]:
        """Return the records of all stages of a run that have begun, by name."""
        return dict(self._records.folder(layout.STAGE.prefix(identifier, pipeline_run_id)))
