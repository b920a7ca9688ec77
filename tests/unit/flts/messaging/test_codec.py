from __future__ import annotations

import json

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
