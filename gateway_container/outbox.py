"""Publish the event of each started run until the broker acknowledges it, and again if the broker lost it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from flts.contracts.events import Event
from flts.contracts.topics import topic_of
from flts.errors import RejectedError, RetryableError
from flts.observability.logs import get_logger
from flts.storage.layout import RunName
from flts.storage.run_store import RunStore
from gateway_container.domain.uploads import StartingEvent, starting_event
from gateway_container.domain.views import moment
from gateway_container.live import LiveRuns

log = get_logger(__name__)

Publish = Callable[[Sequence[Event]], None]
"""Publishes and waits for the acknowledgement."""


class Outbox:
    """Announces runs: ``run.json`` is written before the event is published, so no started run is lost.

    Parameters
    ----------
    run_store : RunStore
        Contains the runs, and the mark of each announced run.
    publish : callable
        Publishes events and returns when they are acknowledged.
    live : LiveRuns
        Has the time of each run's last event.
    scan_seconds : float
        Seconds between two searches of the store; runs that this process could not announce are tried at each tick.
    grace_seconds : float
        Age in seconds from which a run without announcement is announced by any gateway, not only its own.
    """

    def __init__(
        self,
        run_store: RunStore,
        publish: Publish,
        live: LiveRuns,
        *,
        scan_seconds: float,
        grace_seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._runs = run_store.runs
        self._stages = run_store.stages
        self._publish = publish
        self._live = live
        self._scan_seconds = scan_seconds
        self._grace_seconds = grace_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._pending: dict[str, StartingEvent] = {}
        self._announcing: set[str] = set()
        self._next_scan = 0.0

    def announce(self, event: StartingEvent) -> bool:
        """Publish a run's event and record the acknowledgement; return False if the broker or the store is away.

        If another thread is announcing the run at this moment, this call returns True at once. The event of a deleted
        run is not published.
        """
        run_id = event.pipeline_run_id
        with self._lock:
            if run_id in self._announcing:
                return True
            self._announcing.add(run_id)
            self._pending[run_id] = event
        try:
            return self._announce(event)
        finally:
            with self._lock:
                self._announcing.discard(run_id)

    def tick(self) -> Sequence[Event]:
        """Announce the waiting runs; every ``scan_seconds`` search the store for runs that no process announced."""
        if self._clock() >= self._next_scan:
            for name in self._runs.unannounced():
                event = self._event(name)
                # Runs younger than the grace period are left out: this or another gateway is probably announcing them
                # already.
                if event is not None and self._clock() - event.created_at.timestamp() >= self._grace_seconds:
                    self._add(event)
            self._next_scan = self._clock() + self._scan_seconds
        with self._lock:
            waiting = list(self._pending.values())
        for event in waiting:
            if not self.announce(event):
                break  # the broker or the store is away; the other runs wait for the next tick
        return ()

    def resume(self, older_than_seconds: float, *, only: str | None = None) -> list[str]:
        """Announce again, with the same event_id, runs without an outcome that had no progress for a while.

        Parameters
        ----------
        older_than_seconds : float
            Seconds without progress; 0 chooses every unfinished run.
        only : str, optional
            Announce only this run.

        Returns
        -------
        list of str
            The runs announced again.

        Raises
        ------
        RetryableError
            If the broker or the store is away; runs that are not announced yet are tried at the next ticks.
        """
        due = [event for event in self._unfinished(only) if self._clock() - self._moved(event) >= older_than_seconds]
        # All due runs are added to the pending runs before the first is announced. If the broker then fails at one of
        # them, the next ticks announce the rest.
        for event in due:
            self._add(event)
        resumed = []
        for event in due:
            if not self.announce(event):
                msg = "the broker does not answer; the runs are announced as soon as it does"
                raise RetryableError(msg, code="broker_away", retry_after_seconds=5)
            resumed.append(event.pipeline_run_id)
        return resumed

    def _announce(self, event: StartingEvent) -> bool:
        try:
            if self._runs.deleted(event.identifier, event.pipeline_run_id):
                log.info("run_deleted", identifier=event.identifier, pipeline_run_id=event.pipeline_run_id)
                with self._lock:
                    self._pending.pop(event.pipeline_run_id, None)
                return True
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

    def _unfinished(self, only: str | None) -> list[StartingEvent]:
        names = [name for name in self._runs.unfinished() if only is None or name.pipeline_run_id == only]
        return [event for name in names if (event := self._event(name)) is not None]

    def _add(self, event: StartingEvent) -> None:
        with self._lock:
            self._pending[event.pipeline_run_id] = event

    def _event(self, name: RunName) -> StartingEvent | None:
        try:
            record = self._runs.read(*name)
            return None if record is None else starting_event(record)
        except (ValueError, RejectedError):
            log.exception("run_record_unreadable", **name._asdict())
            return None

    def _moved(self, event: StartingEvent) -> float:
        times = [event.created_at.timestamp(), self._live.moved(event.pipeline_run_id) or 0.0]
        for stage in self._stages.of(event.identifier, event.pipeline_run_id).values():
            moments = (moment(stage.get(name)) for name in ("start", "end"))
            times.extend(at.timestamp() for at in moments if at is not None)
        return max(times)
