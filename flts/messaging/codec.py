"""Events to Kafka records and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import ValidationError

from flts.contracts.events import Event
from flts.contracts.topics import Topic
from flts.errors import RejectedError
from flts.observability.tracing import Trace

MAX_EVENT_BYTES = 16 * 1024
ONLY_GROUP = "only-group"
"""Header of a replayed dead letter: the one group that is to read it."""
REPLAY_OF = "replay-of"
"""Header of a replayed dead letter: the letter it was."""
REASONS = (
    "source-topic",
    "source-partition",
    "source-offset",
    "attempts",
    "error_code",
    "error",
    "traceback",
    "headers-left-out",
)
"""Headers that a dead letter has beside those of its record."""

Headers = list[tuple[str, bytes]]


def encode(event: Event, trace: Trace | None = None) -> tuple[bytes, bytes, Headers]:
    """Return a record's key, value and headers.

    Raises
    ------
    RejectedError
        If the event is larger than 16 KiB: details belong into a claimed object.
    """
    value = event.model_dump_json().encode()
    if len(value) > MAX_EVENT_BYTES:
        msg = f"{type(event).__name__} {event.event_id} has {len(value)} bytes; an event has at most {MAX_EVENT_BYTES}"
        raise RejectedError(msg, code="event_too_large")
    headers: Headers = [("event", event.header_event().encode()), ("content-type", b"application/json")]
    if trace is not None:
        headers.append(("traceparent", trace.next().header().encode()))
    return event.identifier.encode(), value, headers


def decode(topic: Topic, value: bytes | None, headers: Iterable[tuple[str, bytes | None]] | None) -> Event:
    """Return the event that a record carries; unknown fields are ignored.

    Raises
    ------
    RejectedError
        With the reason, if the header names no event of the topic or the value does not validate.
    """
    word = header(headers, "event")
    # Where a topic carries one kind of event, a record written by hand needs no header.
    event_class = topic.event_class(word) if word is not None else (topic.events[0] if len(topic.events) == 1 else None)
    if event_class is None:
        msg = f"the header event={word!r} names no event of the topic {topic.name}"
        raise RejectedError(msg, code="unknown_event", field="event")
    if not value:
        msg = f"a record without a value on {topic.name}"
        raise RejectedError(msg, code="empty_message")
    try:
        return event_class.model_validate_json(value)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, problem['loc'])) or 'value'}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        field = problems[0].partition(":")[0]
        msg = f"not a valid {event_class.__name__}: {'; '.join(problems[:10])}"
        raise RejectedError(msg, code="bad_message", field=field) from error


def header(headers: Iterable[tuple[str, bytes | None]] | None, name: str) -> str | None:
    """Return the text of the last header of this name, or None."""
    found = None
    for key, value in headers or ():
        if key == name and value is not None:
            found = value.decode("utf-8", "replace")
    return found


def dead_letter_headers(
    original: Sequence[tuple[str, bytes | None]] | None, added: dict[str, str], *, limit_bytes: int
) -> list[tuple[str, bytes | None]]:
    """Return a dead letter's headers: the reasons, then the original ones, cut so that together they fit.

    A replayed record's ``only-group`` and the reasons of an earlier death are left out: they no longer hold.
    """
    headers: list[tuple[str, bytes | None]] = []
    left = limit_bytes
    for name, text in added.items():
        value = text.encode()[: max(0, left - len(name) - 16)]
        headers.append((name, value))
        left -= len(name) + len(value) + 16
    for name, kept in original or ():
        size = len(name) + len(kept or b"") + 16
        if name not in added and name != ONLY_GROUP and size <= left:
            headers.append((name, kept))
            left -= size
    return headers
