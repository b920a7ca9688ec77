"""Encodes events as Kafka records and decodes records to events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import ValidationError

from flts.contracts.events import Event
from flts.contracts.topics import Topic
from flts.errors import RejectedError
from flts.observability.tracing import Trace

MAX_EVENT_BYTES = 16 * 1024
MAX_HEADERS_BYTES = 16 * 1024
"""Bytes of all headers of a record together; FLTS writes 150. A broker accepts a record with a megabyte of headers."""
ONLY_GROUP = "only-group"
"""Header of a replayed dead letter: the only group that processes the record. Other groups skip it."""
REPLAY_OF = "replay-of"
"""Header of a replayed dead letter: the id of the letter."""
LEFT_OUT = "headers-left-out"
"""Header of a dead letter: the number of headers of the original record that did not fit."""
REASONS = (
    "source-topic",
    "source-partition",
    "source-offset",
    "attempts",
    "error_code",
    "error",
    "traceback",
    LEFT_OUT,
)
"""Headers that the consume loop adds to a dead letter, beside the headers of the original record."""

Headers = list[tuple[str, bytes]]


def encode(event: Event, trace: Trace | None = None) -> tuple[bytes, bytes, Headers]:
    """Return a record's key, value and headers.

    Raises
    ------
    RejectedError
        If the event is larger than 16 KiB; larger data belong in an object that the event names (a claim check).
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
    """Return the event in a record; unknown fields are ignored.

    Raises
    ------
    RejectedError
        If the headers are too large or name no event of the topic, or if the value is invalid. Codes:
        headers_too_large, unknown_event, empty_message, not_json, unknown_version, bad_message.
    """
    headers = list(headers or ())
    size = sum(len(name) + len(text or b"") for name, text in headers)
    if size > MAX_HEADERS_BYTES:
        msg = f"a record on {topic.name} with {size} bytes of headers; there are at most {MAX_HEADERS_BYTES}"
        raise RejectedError(msg, code="headers_too_large", field="headers")
    word = header(headers, "event")
    # A topic with one kind of event needs no event header, so a person can publish such a record by hand.
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
        raise _refusal(event_class, error) from error


def _refusal(event_class: type[Event], error: ValidationError) -> RejectedError:
    found = error.errors(include_url=False, include_input=False, include_context=False)
    problems = [f"{'.'.join(map(str, problem['loc'])) or 'value'}: {problem['msg']}" for problem in found]
    code, field = "bad_message", problems[0].partition(":")[0]
    if found[0]["type"] == "json_invalid":
        code = "not_json"
    elif any(problem["loc"] == ("v",) for problem in found):
        # A wrong version can cause all other mismatches, so the code and the field name the version.
        code, field = "unknown_version", "v"
    msg = f"not a valid {event_class.__name__}: {'; '.join(problems[:10])}"
    return RejectedError(msg, code=code, field=field)


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
    """Return a dead letter's headers: the reasons, then the original headers that fit into the limit.

    ``only-group`` and the reasons of an earlier dead letter are left out, because they no longer apply. The header
    ``headers-left-out`` contains the number of other headers that did not fit.
    """
    headers: list[tuple[str, bytes | None]] = []
    left = limit_bytes
    for name, text in added.items():
        value = text.encode()[: max(0, left - len(name) - 16)]
        headers.append((name, value))
        left -= len(name) + len(value) + 16
    left_out = 0
    for name, kept in original or ():
        size = len(name) + len(kept or b"") + 16
        if name in REASONS or name == ONLY_GROUP:
            continue
        if size > left:
            left_out += 1
            continue
        headers.append((name, kept))
        left -= size
    if left_out:
        headers.append((LEFT_OUT, str(left_out).encode()))
    return headers
