"""Publishes the progress of a handler's work at a limited rate."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from flts.contracts.events import Event, RunProgress

PERIOD_SECONDS = 1.0
LASTING = ("epoch", "epochs", "loss")


class ProgressReporter:
    """The `progress` that a handler calls. It publishes at most one report a second per stage; a new state at once.

    Parameters
    ----------
    publish : function
        Called with each report; must not block or raise.
    service : str
        Name of the service that reports.
    event : Event
        The event that the handler processes.
    """

    def __init__(
        self,
        publish: Callable[[RunProgress], None],
        service: str,
        event: Event,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publish = publish
        self._service = service
        self._event = event
        self._clock = clock
        self._lock = threading.Lock()
        self._begun: dict[str, float] = {}
        self._last: dict[str, tuple[str, float]] = {}
        self._held_back: dict[str, RunProgress] = {}
        self._known: dict[str, dict[str, Any]] = {}

    def __call__(self, stage: str, state: str, **details: Any) -> None:
        """Report the state of a stage; details are epoch, epochs, loss and detail."""
        now = self._clock()
        with self._lock:
            begun = self._begun.setdefault(stage, now)
            # The rate limit drops reports, so each report repeats the latest epoch and loss of the dropped reports.
            known = self._known.setdefault(stage, {})
            known |= {name: details[name] for name in LASTING if details.get(name) is not None}
            report = RunProgress(
                event_id=str(uuid.uuid4()),  # a random id, because consumers do not deduplicate progress
                identifier=self._event.identifier,
                pipeline_run_id=self._event.pipeline_run_id,
                config_hash=self._event.config_hash,
                created_at=datetime.now(UTC),
                service=self._service,
                stage=stage,
                state=state,
                elapsed=round(now - begun, 3),
                **{**details, **known},
            )
            last_state, last_time = self._last.get(stage, ("", 0.0))
            if state == last_state and now - last_time < PERIOD_SECONDS:
                self._held_back[stage] = report
                return
            self._held_back.pop(stage, None)
            self._last[stage] = (state, now)
            self._publish(report)

    def flush(self) -> None:
        """Publish the report of each stage that the rate limit held back, so that users see the last epoch."""
        with self._lock:
            for report in self._held_back.values():
                self._publish(report)
            self._held_back.clear()
