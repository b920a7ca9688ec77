"""Mark the message in work as a replay that a person requested: some work is done only for such a message."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_replayed: ContextVar[bool] = ContextVar("replayed", default=False)


def is_replayed() -> bool:
    """Return whether a person requested a replay of this message, as opposed to a redelivery by the broker."""
    return _replayed.get()


@contextmanager
def replaying(*, replayed: bool) -> Iterator[None]:
    """Say so of the message that is worked on inside, in this thread."""
    token = _replayed.set(replayed)
    try:
        yield
    finally:
        _replayed.reset(token)
