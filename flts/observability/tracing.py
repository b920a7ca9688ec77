"""The W3C header ``traceparent``. Results of a message carry its trace id, and each log line contains the trace id."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

_HEADER = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


@dataclass(frozen=True, slots=True)
class Trace:
    """One step of a trace."""

    trace_id: str
    """32 hex digits, the same in all steps from upload to forecast."""
    span_id: str
    """16 hex digits, different for each message."""
    flags: str = "01"

    @classmethod
    def start(cls) -> Trace:
        """Return the first step of a new trace."""
        return cls(secrets.token_hex(16), secrets.token_hex(8))

    @classmethod
    def parse(cls, header: str | bytes | None) -> Trace | None:
        """Return the step in a header, or None for a header that the W3C standard requires to be ignored."""
        text = header.decode("ascii", "replace") if isinstance(header, bytes) else header or ""
        match = _HEADER.fullmatch(text.strip())
        if match is None or match[1] == "ff" or (match[1] == "00" and match[5]):
            return None
        if not int(match[2], 16) or not int(match[3], 16):
            return None
        return cls(match[2], match[3], match[4])

    def next(self) -> Trace:
        """Return a new step of this trace: the same trace id and a new span id."""
        return Trace(self.trace_id, secrets.token_hex(8), self.flags)

    def header(self) -> str:
        """Return the header's text."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


_current: ContextVar[Trace | None] = ContextVar("flts_trace", default=None)


def current_trace() -> Trace | None:
    """Return the current step of this thread or task, or None."""
    return _current.get()


@contextmanager
def use_trace(trace: Trace | None) -> Iterator[None]:
    """Set the current step inside the ``with`` block; events published there carry its trace id."""
    token = _current.set(trace)
    try:
        yield
    finally:
        _current.reset(token)
