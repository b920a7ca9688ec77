"""Marks a message as a replay that a person requested. Some handlers do work only for such a message."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_replayed: ContextVar[bool] = ContextVar("replayed", default=False)


def is_replayed() -> bool:
    """Return whether the message is a replay that a person requested, and not a redelivery by the broker."""
    return _replayed.get()


@contextmanager
def replaying(*, replayed: bool) -> Iterator[None]:
    """Set the value that `is_replayed` returns in this thread inside the ``with`` block."""
    token = _replayed.set(replayed)
    try:
        yield
    finally:
        _replayed.reset(token)
