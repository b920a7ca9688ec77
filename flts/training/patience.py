"""Retry a write while the store is unavailable, so that an expensive result is not lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from flts.errors import BackendAwayError
from flts.observability.logs import get_logger

T = TypeVar("T")

FIRST_WAIT_SECONDS = 1.0
LAST_WAIT_SECONDS = 10.0
PATIENCE_SECONDS = 900.0
"""Seconds; after this the attempt is withdrawn, and the work is repeated once the store is available."""

log = get_logger(__name__)


def patiently(action: Callable[[], T], *, alive: Callable[[], None]) -> T:
    """Call ``action``, and repeat the call while a backend is unavailable.

    Parameters
    ----------
    action : callable
        Must be safe to repeat.
    alive : callable
        Called before each call of ``action``, so that the waiting work does not count as stuck.

    Raises
    ------
    BackendAwayError
        If the backend stays unavailable for `PATIENCE_SECONDS`.
    """
    deadline, wait = time.monotonic() + PATIENCE_SECONDS, FIRST_WAIT_SECONDS
    while True:
        alive()
        try:
            return action()
        except BackendAwayError as error:
            if time.monotonic() + wait > deadline:
                raise
            log.warning("backend_away", error=str(error), wait_seconds=wait)
        time.sleep(wait)
        wait = min(LAST_WAIT_SECONDS, wait * 2)
