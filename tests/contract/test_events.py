"""The schemas of events change only on purpose: the review of a change is the diff of a golden file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flts.contracts import topics
from flts.contracts.events import Event
from tools.contracts import schema

GOLDEN = Path(__file__).parent / "golden"
EVENTS = [event for topic in topics.ALL for event in topic.events]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
def test_an_event_has_the_schema_that_was_agreed(event: type[Event]) -> None:
    assert (GOLDEN / f"{event.__name__}.json").read_text() == schema(event), "on purpose? make generate"


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
def test_every_event_carries_the_ids_that_bind_a_run(event: type[Event]) -> None:
    required = set(json.loads(schema(event))["required"])
    assert {"event_id", "identifier", "pipeline_run_id", "created_at"} <= required


def test_a_reader_ignores_fields_it_does_not_know() -> None:
    event = topics.RUN_PROGRESS.events[0].model_validate(
        {
            "event_id": "01890000-0000-7000-8000-000000000000",
            "identifier": "a",
            "pipeline_run_id": "01890000-0000-7000-8000-000000000000",
            "created_at": "2026-01-01T00:00:00Z",
            "service": "eval",
            "stage": "eval",
            "state": "started",
            "from_the_future": 1,
        }
    )
    assert not hasattr(event, "from_the_future")


def test_every_event_travels_on_exactly_one_topic() -> None:
    assert len(EVENTS) == len(set(EVENTS))
    assert all(topics.topic_of(event.model_construct()).events.count(event) == 1 for event in EVENTS)
