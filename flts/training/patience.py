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
"""After this the work ends as if never tried, and is done again once the store answers."""

log = get_logger(__name__)


def patiently(action: Callable[[], T], *, alive: Callable[[], None]) -> T:
    """Do something, again and again while a backend is away.

    Parameters
    ----------
    action : callable
        May be repeated.
    alive : callable
        Called before each try, so that the wait is not taken for being stuck.

    Raises
    ------
    BackendAwayError
        If it stays away for `PATIENCE_SECONDS`.
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
