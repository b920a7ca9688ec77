"""Wait for what a test expects, instead of sleeping."""

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
    """Return the first truthy answer of ``check``; fail naming ``what`` if there is none in time.

    An AssertionError of ``check``, or that somebody does not answer it, counts as "not yet" and is shown at the end.
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
