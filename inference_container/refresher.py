"""Refresh the champions outside of the request path: at start, after hints and periodically, by a child process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from flts.observability.logs import get_logger
from flts.observability.metrics import Metrics
from inference_container.champions import Champions
from inference_container.fetching_child import ChildFailedError, FetchingChild
from inference_container.protocol import (
    Away,
    Fact,
    Failed,
    Fetched,
    Listed,
    Order,
    Removed,
)

log = get_logger(__name__)

FIRST_WAIT_SECONDS = 1.0  # seconds of the first wait after a failure; each further failure doubles the wait
# Seconds to store the last forecast logs at a stop; 40 s (chart) or 35 s (Compose) after the signal the process is
# killed.
LAST_SHIPMENT_SECONDS = 10.0


@dataclass(slots=True)
class _Backoff:
    wait_seconds: float
    until: float


class Refresher:
    """The thread that refreshes the champions and uploads forecast logs, by orders to the fetching child.

    Parameters
    ----------
    champions : Champions
    metrics : Metrics
    period_seconds : float
        Seconds between two polls of all pointers.
    phase_seconds : float
        Time of this replica's poll within each period, a random one per replica. If all replicas polled in the same
        second, an autoscaler would count the CPU time as load and keep all of them.
    silence_seconds : float
        A child that reports no fact for this long is stopped.
    flush_logs : callable
        Writes waiting forecasts to the cache folder, from which the child uploads them; returns whether any file waits.
    """

    def __init__(
        self,
        champions: Champions,
        metrics: Metrics,
        *,
        period_seconds: float,
        phase_seconds: float,
        silence_seconds: float,
        flush_logs: Callable[[], bool],
    ) -> None:
        self._champions = champions
        self._metrics = metrics
        self._period_seconds = period_seconds
        self._phase_seconds = phase_seconds
        self._silence_seconds = silence_seconds
        self._flush_logs = flush_logs
        self._wake = threading.Condition()
        self._hints: set[str] = set()
        self._due = True
        self._stopping = False
        self._backoffs: dict[str, _Backoff] = {}
        self._store_wait = 0.0
        self._child = FetchingChild()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Load the champions from the cache, then start the thread."""
        with self._wake:
            if self._thread is not None or self._stopping:
                return
            # The local cache is read before the first request, so that a restarted replica serves its cached champions
            # even if the store is unavailable.
            self._champions.read_disk()
            self._thread = threading.Thread(target=self._run, name="refresher", daemon=True)
            self._thread.start()

    def look(self) -> None:
        """Poll all pointers now. Called after the start offsets were read, so that no promotion is missed between."""
        with self._wake:
            self._due = True
            self._wake.notify()

    def hint(self, identifier: str) -> None:
        """Read one identifier's pointer now, because a message reports that it moved."""
        with self._wake:
            self._hints.add(identifier)
            self._backoffs.pop(identifier, None)
            self._wake.notify()

    def stop(self) -> None:
        """Stop the thread and its child, then upload the last forecast logs within LAST_SHIPMENT_SECONDS."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
            thread = self._thread
        self._child.interrupt()
        if thread is not None:
            thread.join(LAST_SHIPMENT_SECONDS)
        if self._flush_logs():
            self._round(Order(only=[], ship_logs=True), silence_seconds=LAST_SHIPMENT_SECONDS)
        self._child.close()

    def _run(self) -> None:
        try:
            self._champions.load_from_disk()
        except Exception:
            # The local cache is unreadable. The thread goes on, because it can fetch the champions from the store.
            log.exception("refresh_error")
        next_look = 0.0
        trouble = 0.0
        while True:
            with self._wake:
                while not (self._stopping or self._hints or self._due or time.monotonic() >= next_look):
                    self._wake.wait(max(0.0, next_look - time.monotonic()))
                if self._stopping:
                    return
                whole = self._due or time.monotonic() >= next_look
                hints, self._hints, self._due = sorted(self._hints), set(), False
            try:
                self._look_at(hints, whole=whole)
                trouble = 0.0
            except Exception:
                # The thread must go on after any error. Without it no later promotion would be served.
                log.exception("refresh_error")
                trouble = min(max(2 * trouble, FIRST_WAIT_SECONDS), self._period_seconds)
            # A round for hinted identifiers only (`whole` is False) must not delay the next poll of all pointers, so
            # the earlier time counts.
            soonest = time.monotonic() + (max(trouble, self._store_wait) if trouble else self._wait_seconds())
            next_look = soonest if whole else min(next_look, soonest)

    def _look_at(self, hints: list[str], *, whole: bool) -> None:
        if not whole:
            self._round(Order(only=hints))
            return
        try:
            self._flush_logs()
        finally:
            # The round runs even if writing the logs failed: that must not delay a promotion.
            default = self._champions.default()
            first = list(dict.fromkeys([*hints, *([default] if default else [])]))
            self._round(Order(first=first, skip=self._held_back(), ship_logs=True))

    def _round(self, order: Order, *, silence_seconds: float | None = None) -> None:
        """Send an order to the child, and apply each fact as it arrives."""
        try:
            with self._child.round(order, silence_seconds or self._silence_seconds) as facts:
                for fact in facts:
                    self._take_in(fact)
        except ChildFailedError as error:
            if not self._stopping:
                log.error("fetch_error", error=f"the fetching child {error}")  # noqa: TRY400 - the message states the cause
                self._hold_store()
        except (OSError, msgspec.MsgspecError):
            log.exception("fetch_error")
            self._hold_store()

    def _take_in(self, fact: Fact) -> None:
        match fact:
            case Listed(champions, waiting):
                self._store_wait = 0.0
                for identifier in set(self._backoffs).difference(champions):
                    self._backoffs.pop(identifier, None)
                self._metrics.backend_up.labels("store").set(1)
                self._champions.list_changed(champions, waiting)
            case Fetched(identifier, folder):
                if self._champions.fetched(identifier, folder):
                    self._backoffs.pop(identifier, None)
                else:
                    self._hold_back(identifier)
            case Failed(identifier, _, reason):
                self._champions.failed(identifier, reason)
                self._hold_back(identifier)
            case Removed(identifier, waiting):
                self._backoffs.pop(identifier, None)
                if not waiting:
                    self._flush_logs()  # writes the log lines from memory to disk, where `removed` deletes them
                self._champions.removed(identifier, waiting=waiting)
            case Away("pointers", reason):
                self._metrics.backend_up.labels("store").set(0)
                log.warning("store_away", error=reason)
                self._hold_store()
            case Away(_, reason):
                log.warning("forecast_logs_wait", error=reason)

    def _hold_back(self, identifier: str) -> None:
        before = self._backoffs.get(identifier)
        wait = FIRST_WAIT_SECONDS if before is None else min(2 * before.wait_seconds, 10 * self._period_seconds)
        self._backoffs[identifier] = _Backoff(wait, time.monotonic() + wait)

    def _held_back(self) -> list[str]:
        now = time.monotonic()
        return [identifier for identifier, backoff in list(self._backoffs.items()) if backoff.until > now]

    def _hold_store(self) -> None:
        self._store_wait = min(max(2 * self._store_wait, FIRST_WAIT_SECONDS), self._period_seconds)

    def _wait_seconds(self) -> float:
        """Return the seconds until the next poll, at the end of the period or of a back-off."""
        if self._store_wait > 0:
            # The store does not answer, so no poll is made before this wait ends, even if an identifier's own back-off
            # has ended.
            return self._store_wait
        waits = [self._period_seconds - (time.monotonic() - self._phase_seconds) % self._period_seconds]
        waits += [max(0.0, backoff.until - time.monotonic()) for backoff in list(self._backoffs.values())]
        return min(waits)
