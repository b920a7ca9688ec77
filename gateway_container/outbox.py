"""What was started is announced until the broker took it, and announced again when it was forgotten."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from flts.contracts.events import Event
from flts.contracts.topics import topic_of
from flts.errors import RetryableError
from flts.observability.logs import get_logger
from flts.storage.runs import RunName, RunStore
from gateway_container.domain.uploads import StartingEvent, starting_event
from gateway_container.domain.views import moment
from gateway_container.live import LiveRuns

log = get_logger(__name__)

Publish = Callable[[Sequence[Event]], None]
"""Publishes and waits for the acknowledgement."""


class Outbox:
    """Announces runs: ``run.json`` is written before anything is published, so nothing started is ever lost.

    Parameters
    ----------
    runs : RunStore
        Holds the runs and what was announced.
    publish : callable
        Publishes events and returns when they are acknowledged.
    live : LiveRuns
        Knows which runs moved.
    scan_seconds : float
        Time between two looks through all runs; the ones this process failed to announce are tried at each tick.
    """

    def __init__(
        self,
        runs: RunStore,
        publish: Publish,
        live: LiveRuns,
        *,
        scan_seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._runs = runs
        self._publish = publish
        self._live = live
        self._scan_seconds = scan_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._pending: dict[str, StartingEvent] = {}
        self._next_scan = 0.0

    def add(self, event: StartingEvent) -> None:
        """Have a run announced at the next tick, whatever becomes of the attempt made now."""
        with self._lock:
            self._pending[event.pipeline_run_id] = event

    def announce(self, event: StartingEvent) -> bool:
        """Publish a run's event and note that it was acknowledged; False if the broker or the store is away."""
        self.add(event)
        try:
            self._publish([event])
            self._runs.mark_announced(event.identifier, event.pipeline_run_id)
        except RetryableError as error:
            log.warning(
                "run_waits",
                identifier=event.identifier,
                pipeline_run_id=event.pipeline_run_id,
                error=error.message,
            )
            return False
        log.info(
            "run_announced",
            topic=topic_of(event).name,
            identifier=event.identifier,
            pipeline_run_id=event.pipeline_run_id,
            event_id=event.event_id,
            cause=event.cause,
        )
        with self._lock:
            self._pending.pop(event.pipeline_run_id, None)
        return True

    def tick(self) -> Sequence[Event]:
        """Announce what waits; now and then look in the store for what another process left behind."""
        if self._clock() >= self._next_scan:
            for name in self._runs.unannounced_runs():
                event = self._event(name)
                if event is not None:
                    self.add(event)
            self._next_scan = self._clock() + self._scan_seconds
        with self._lock:
            waiting = list(self._pending.values())
        for event in waiting:
            if not self.announce(event):
                break  # the broker is away: the others would wait for it too
        return ()

    def resume(self, older_than_seconds: float, *, only: str | None = None) -> list[str]:
        """Announce again, with the same event_id, runs without an outcome that have not moved for a while.

        Parameters
        ----------
        older_than_seconds : float
            Time without progress; 0 takes every unfinished run.
        only : str, optional
            Look at this run alone.

        Returns
        -------
        list of str
            The runs announced again.

        Raises
        ------
        RetryableError
            If the broker is away; what was announced before stays so, and the rest is tried at the next ticks.
        """
        resumed = []
        for event in self._unfinished(only):
            if self._clock() - self._moved(event) < older_than_seconds:
                continue
            if not self.announce(event):
                msg = "the broker does not answer; the runs are announced as soon as it does"
                raise RetryableError(msg, code="broker_away", retry_after_seconds=5)
            resumed.append(event.pipeline_run_id)
        return resumed

    def _unfinished(self, only: str | None) -> list[StartingEvent]:
        names = [name for name in self._runs.open_runs() if only is None or name.pipeline_run_id == only]
        return [event for name in names if (event := self._event(name)) is not None]

    def _event(self, name: RunName) -> StartingEvent | None:
        record = self._runs.read_run(*name)
        if record is None:
            return None
        try:
            return starting_event(record)
        except ValueError:
            log.exception("run_record_unreadable", **name._asdict())
            return None

    def _moved(self, event: StartingEvent) -> float:
        times = [event.created_at.timestamp(), self._live.moved(event.pipeline_run_id) or 0.0]
        for stage in self._runs.stages(event.identifier, event.pipeline_run_id).values():
            moments = (moment(stage.get(name)) for name in ("start", "end"))
            times.extend(at.timestamp() for at in moments if at is not None)
        return max(times)
