"""A circuit breaker: after a failed call, its users make no calls for some time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Breaker:
    """Opens at the first failure; calls are possible again after ``open_seconds``.

    Parameters
    ----------
    open_seconds : float
        Time without calls after a failure.
    clock : callable
        Returns monotonic seconds.
    """

    def __init__(self, open_seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._open_seconds = open_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._failing = False
        self._until = 0.0

    @property
    def is_open(self) -> bool:
        """Whether no call may be made now."""
        with self._lock:
            return self._failing and self._clock() < self._until

    def failed(self) -> bool:
        """Open for ``open_seconds`` from now; return whether the previous call had succeeded or there was none."""
        return self._report(failing=True)

    def succeeded(self) -> bool:
        """Close; return whether the previous call had failed."""
        return self._report(failing=False)

    def _report(self, *, failing: bool) -> bool:
        with self._lock:
            differs = failing != self._failing
            self._failing = failing
            self._until = self._clock() + self._open_seconds
        return differs
