"""Wait until a condition holds, instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import httpx
from confluent_kafka import KafkaException

from flts.errors import BackendAwayError

NOT_YET = (AssertionError, httpx.HTTPError, BackendAwayError, KafkaException)
T = TypeVar("T")


def eventually(check: Callable[[], T | None], what: str, *, timeout: float = 60, every: float = 0.05) -> T:
    """Return the first truthy result of ``check``; fail with ``what`` if there is none within ``timeout`` seconds.

    An error in `NOT_YET` counts as "not yet", and the last one is part of the failure's message.
    """
    deadline = time.monotonic() + timeout
    reason = ""
    while True:
        try:
            answer = check()
            if answer:
                return answer
        except NOT_YET as error:
            reason = f": {error}"
        if time.monotonic() >= deadline:
            msg = f"not within {timeout:g} s: {what}{reason}"
            raise AssertionError(msg)
        time.sleep(every)
