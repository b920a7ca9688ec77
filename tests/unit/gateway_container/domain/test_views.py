"""A run's view is a pure function of its records."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest

from flts.errors import RejectedError
from gateway_container.domain.uploads import clean_overrides, parse_flag, starting_event
from gateway_container.domain.views import (
    RunRecords,
    champion_view,
    changed_stages,
    elapsed_seconds,
    ordered_stages,
    plain,
    run_view,
    shown_state,
    stage_view,
)

NOW = datetime(2024, 1, 1, 0, 1, tzinfo=UTC)
RUN = {"pipeline_run_id": "r", "identifier": "x", "created_at": "2024-01-01T00:00:10Z"}


def test_stages_stand_in_the_order_of_the_pipeline() -> None:
    names = ["forecast", "eval", "train-lstm", "another", "nonml-prophet", "train-gru", "preprocess", "upload"]

    assert [name for name, _ in ordered_stages({name: {} for name in names})] == [
        *("upload", "preprocess", "train-gru", "train-lstm", "nonml-prophet", "eval", "forecast", "another"),
    ]


@pytest.mark.parametrize(
    ("record", "seconds"),
    [
        ({"start": "2024-01-01T00:00:00Z", "end": "2024-01-01T00:00:01.500Z"}, 1.5),
        ({"start": "2024-01-01T00:00:00Z", "end": None}, 60.0),
        ({"start": "2024-01-01T00:00:02Z", "end": "2024-01-01T00:00:01Z"}, 0.0),
        ({"start": None}, None),
        ({"start": "yesterday"}, None),
        ({"start": "2024-01-01T00:00:00"}, None),  # a time without an offset is ambiguous
    ],
)
def test_a_stage_says_how_long_it_took_or_has_taken(record: dict[str, Any], seconds: float | None) -> None:
    assert stage_view("eval", record, now=NOW)["seconds"] == seconds


def test_time_that_passes_is_no_change_of_a_stage() -> None:
    before = [stage_view("eval", {"status": "started", "start": "2024-01-01T00:00:00Z"}, now=NOW)]
    later = [
        stage_view("eval", {"status": "started", "start": "2024-01-01T00:00:00Z"}, now=NOW.replace(minute=2)),
        stage_view("upload", {"status": "done"}, now=NOW),
    ]
    failed = [stage_view("eval", {"status": "failed", "start": "2024-01-01T00:00:00Z"}, now=NOW)]

    assert [stage["stage"] for stage in changed_stages(before, later)] == ["upload"]
    assert changed_stages(before, failed) == failed


def test_a_run_counts_from_its_upload_to_its_outcome() -> None:
    stages = {"upload": {"start": "2024-01-01T00:00:05Z"}}

    assert elapsed_seconds(RunRecords(RUN, stages), now=NOW) == 55.0
    ended = RunRecords(RUN, stages, outcome={"outcome": "promoted", "at": "2024-01-01T00:00:35Z"})
    assert elapsed_seconds(ended, now=NOW) == 30.0
    assert elapsed_seconds(RunRecords({}), now=NOW) is None


def test_the_state_follows_the_records() -> None:
    assert shown_state(RunRecords(RUN, {"upload": {}}), {}) == "waiting"
    assert shown_state(RunRecords(RUN, {"upload": {}}), {"preprocess": {}}) == "running"
    assert shown_state(RunRecords(RUN, {"preprocess": {}}), {}) == "running"
    assert shown_state(RunRecords(RUN, outcome={"outcome": "kept"}), {}) == "finished"


def test_a_view_is_json_whatever_a_record_holds() -> None:
    records = RunRecords(
        {**RUN, "settings": None, "train": {"size": math.inf}},
        {"eval": {"status": "done", "score": math.nan}},
        expected={"model_types": ["GRU"]},
        decision={"decision": "kept", "score": -math.inf, "scores": [math.nan, 1]},
    )

    view = run_view(records, {"eval": {"loss": math.nan}}, now=NOW)

    assert json.loads(json.dumps(view, allow_nan=False)) == view
    assert view["expected"] == ["GRU"]
    assert view["decision"]["scores"] == [None, 1]
    assert plain((1, (math.nan,))) == [1, [None]]


@pytest.mark.parametrize("text", ["true", "TRUE", "1", " yes "])
def test_yes(text: str) -> None:
    assert parse_flag(text, field="force")


@pytest.mark.parametrize("text", [None, "", "False", "0", "off"])
def test_no(text: str | None) -> None:
    assert not parse_flag(text, field="force")


def test_settings_that_would_not_fit_into_an_event_are_refused() -> None:
    with pytest.raises(RejectedError, match="at most 2000 characters"):
        clean_overrides({"TARGETS": "x" * 2001})
    with pytest.raises(RejectedError, match="at most 100 settings"):
        clean_overrides({f"S{at}": 1 for at in range(101)})
    with pytest.raises(RejectedError, match="8192 bytes"):
        clean_overrides({f"S{at}": "x" * 1000 for at in range(9)})


@pytest.mark.parametrize("record", [{}, {"cause": "upload"}, {"cause": "rollback"}, {"train": {}, "cause": "evaluate"}])
def test_a_record_that_starts_nothing_is_refused(record: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        starting_event(record)


def test_a_champion_shows_its_stage_only_if_it_is_not_decided() -> None:
    pointer = {"pipeline_run_id": "r", "model_type": "GRU", "score": 0.5, "bundle": {}, "previous": None}

    shown = champion_view(pointer)

    assert set(shown) == {
        *("run_id", "model_type", "config_hash", "score", "timestamp"),
        "pipeline_run_id",
        "model_uri",
    }
    assert champion_view({**pointer, "stage": "decided"}) == shown
    assert champion_view({**pointer, "stage": "refitted"}) == {**shown, "stage": "refitted"}


def test_a_champion_shows_the_horizon_and_the_reason_of_a_baseline_only_if_it_has_them() -> None:
    pointer = {"pipeline_run_id": "r", "model_type": "MEAN", "horizon_steps": None, "baseline": None}

    bare = champion_view(pointer)
    shown = champion_view({**pointer, "horizon_steps": 24, "baseline": "no model passes"})

    assert "baseline" not in bare
    assert shown == {**bare, "horizon_steps": 24, "baseline": "no model passes"}


def test_a_run_shows_the_records_of_its_provisional_and_refitted_champion() -> None:
    bare = run_view(RunRecords(RUN), {}, now=NOW)
    records = RunRecords(RUN, provisional={"model_type": "LINEAR"}, refit={"model_type": "GRU", "score": math.nan})

    view = run_view(records, {}, now=NOW)

    assert "champion_stages" not in bare
    assert view["champion_stages"] == {
        "provisional": {"model_type": "LINEAR"},
        "refitted": {"model_type": "GRU", "score": None},
    }
