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

FIRST_WAIT_SECONDS = 1.0  # seconds after a failure; doubles up to the ordinary poll period
LAST_SHIPMENT_SECONDS = 10.0  # seconds for the logs of a stopping server; Kubernetes kills a pod after 30


@dataclass(slots=True)
class _Backoff:
    wait_seconds: float
    until: float


class Refresher:
    """The thread that keeps champions fresh and sends forecast logs away.

    Parameters
    ----------
    champions : Champions
    metrics : Metrics
    period_seconds : float
        Between two looks at all pointers.
    phase_seconds : float
        When in each period this replica looks. One of its own for each: what replicas use that all look in the same
        seconds, an autoscaler takes for load, and lets none of them go.
    silence_seconds : float
        A child that says nothing for this long is stopped.
    flush_logs : callable
        Writes waiting forecasts to the cache folder, before a child takes them to the store; returns whether there is
        anything to take.
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
            # Before the first request: after a restart the cached champions are served, also without the store.
            self._champions.read_disk()
            self._thread = threading.Thread(target=self._run, name="refresher", daemon=True)
            self._thread.start()

    def look(self) -> None:
        """Look at all pointers now: once more after the offsets were noted, so that no message falls between."""
        with self._wake:
            self._due = True
            self._wake.notify()

    def hint(self, identifier: str) -> None:
        """Look at one identifier's pointer now: a message says that it moved."""
        with self._wake:
            self._hints.add(identifier)
            self._backoffs.pop(identifier, None)
            self._wake.notify()

    def stop(self) -> None:
        """Stop the thread and its child, then send the last forecast logs within a few seconds."""
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
        except Exception:  # the cache is unreadable; the store may have the champions
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
            except Exception:  # after any error the thread must go on, or no later promotion would be served
                log.exception("refresh_error")
                trouble = min(max(2 * trouble, FIRST_WAIT_SECONDS), self._period_seconds)
            # Many hints must not delay the poll of all other pointers.
            soonest = time.monotonic() + (max(trouble, self._store_wait) if trouble else self._wait_seconds())
            next_look = soonest if whole else min(next_look, soonest)

    def _look_at(self, hints: list[str], *, whole: bool) -> None:
        if not whole:
            self._round(Order(only=hints))
            return
        try:
            self._flush_logs()
        finally:  # a failure to write logs must not delay a promotion
            default = self._champions.default()
            first = list(dict.fromkeys([*hints, *([default] if default else [])]))
            self._round(Order(first=first, skip=self._held_back(), ship_logs=True))

    def _round(self, order: Order, *, silence_seconds: float | None = None) -> None:
        """Have the child carry an order out, and take each fact in as it comes."""
        try:
            with self._child.round(order, silence_seconds or self._silence_seconds) as facts:
                for fact in facts:
                    self._take_in(fact)
        except ChildFailedError as error:
            if not self._stopping:
                log.error("fetch_error", error=f"the fetching child {error}")  # noqa: TRY400 - it says all
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
                    self._flush_logs()  # log lines in memory are dropped with the data set
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
        """Return the time to the next look: sooner where something failed, but for a store that is away."""
        if self._store_wait > 0:  # the store does not answer, so back-offs that ran out still have to wait
            return self._store_wait
        waits = [self._period_seconds - (time.monotonic() - self._phase_seconds) % self._period_seconds]
        waits += [max(0.0, backoff.until - time.monotonic()) for backoff in list(self._backoffs.values())]
        return min(waits)
