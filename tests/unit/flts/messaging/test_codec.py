from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from flts.contracts import topics
from flts.contracts.events import EvaluateRequest, ModelTraining
from flts.errors import RejectedError
from flts.messaging.codec import dead_letter_headers, decode, encode, header
from flts.observability.tracing import Trace
from tests.brokers import raw_data
from tests.bus_service import selected


def test_an_event_comes_back_as_it_was_with_the_identifier_as_key() -> None:
    event, trace = raw_data("series-7"), Trace.start()

    key, value, headers = encode(event, trace)

    assert key == b"series-7"
    assert decode(topics.RAW_DATA, value, headers) == event
    assert header(headers, "event") == "raw-claim"
    assert header(headers, "content-type") == "application/json"
    assert (header(headers, "traceparent") or "").split("-")[1] == trace.trace_id


def test_the_header_tells_the_events_of_a_topic_apart() -> None:
    assert topics.MODEL_TRAINING.event_class("trained-GRU") is ModelTraining
    assert topics.MODEL_TRAINING.event_class("evaluate") is EvaluateRequest
    with pytest.raises(RejectedError) as error:
        decode(topics.MODEL_TRAINING, b"{}", [])
    assert error.value.code == "unknown_event"


def test_readers_ignore_fields_they_do_not_know() -> None:
    event = raw_data()
    _, value, headers = encode(event)
    later = json.dumps({**json.loads(value), "new_field": 1}).encode()

    assert decode(topics.RAW_DATA, later, headers) == event


def test_a_refusal_names_the_field_but_not_its_value() -> None:
    _, value, headers = encode(raw_data())
    wrong = json.dumps({**json.loads(value), "identifier": "../etc/passwd"}).encode()

    with pytest.raises(RejectedError) as error:
        decode(topics.RAW_DATA, wrong, headers)

    assert (error.value.code, error.value.field) == ("bad_message", "identifier")
    assert "passwd" not in error.value.message


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        (lambda value: value[: len(value) // 2], "not_json", "value"),
        (lambda _: b"time,down,up", "not_json", "value"),
        (lambda _: b"\xff\xfe", "not_json", "value"),
        (lambda _: b"", "empty_message", None),
        (lambda _: b"[1]", "bad_message", "value"),
        (lambda value: json.dumps({**json.loads(value), "v": 2, "train": None}).encode(), "unknown_version", "v"),
        (lambda value: json.dumps({**json.loads(value), "train": None}).encode(), "bad_message", "train"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_kind_of_reason(
    change: Callable[[bytes], bytes], code: str, field: str | None
) -> None:
    _, value, headers = encode(raw_data())

    with pytest.raises(RejectedError) as error:
        decode(topics.RAW_DATA, change(value), headers)

    assert (error.value.code, error.value.field) == (code, field)


def test_headers_have_at_most_16_kib() -> None:
    _, value, headers = encode(raw_data())

    with pytest.raises(RejectedError) as error:
        decode(topics.RAW_DATA, value, [*headers, ("baggage", b"x" * 2**20)])

    assert error.value.code == "headers_too_large"


def test_a_dead_letter_says_how_many_headers_did_not_fit() -> None:
    original = [("event", b"raw-claim"), ("big", b"z" * 400), ("bigger", b"z" * 500)]

    assert dict(dead_letter_headers(original, {"error": "e"}, limit_bytes=2**21)) == {**dict(original), "error": b"e"}
    cut = dict(dead_letter_headers(original, {"error": "e"}, limit_bytes=300))
    assert cut == {"error": b"e", "event": b"raw-claim", "headers-left-out": b"2"}


def test_an_event_has_at_most_16_kib() -> None:
    event = selected(raw_data()).model_copy(update={"reasons": ["x" * 16_384]})

    with pytest.raises(RejectedError) as error:
        encode(event)

    assert error.value.code == "event_too_large"


def test_dead_letter_headers_fit_keep_the_reasons_first_and_drop_an_older_deaths() -> None:
    original = [("event", b"raw-claim"), ("only-group", b"bus"), ("error", b"older"), ("big", b"z" * 400)]

    headers = dead_letter_headers(original, {"error": "newer", "traceback": "t" * 1_000}, limit_bytes=300)

    names = [name for name, _ in headers]
    assert names[:2] == ["error", "traceback"]
    assert dict(headers)["error"] == b"newer"
    assert "only-group" not in names
    assert "big" not in names
    assert sum(len(name) + len(value or b"") for name, value in headers) <= 300
