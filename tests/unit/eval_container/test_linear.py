"""Eval waits for LINEAR, scores its bundle with its own recipe, promotes it and records it in MLflow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eval_container.housekeeping import Overdue, SignsOfLife
from flts.bundle.load import fetch_bundle
from flts.bundle.write import store_bundle
from flts.contracts.events import EvaluateRequest, ModelSelected
from flts.contracts.ids import derived_event_id, new_pipeline_run_id
from flts.forecasting.grid import FixedGrid
from flts.forecasting.series import Series
from flts.trainers import BASELINES
from tests.chance_folds import monthly, trend_and_season
from tests.direct_models import made_series
from tests.early_models import linear
from tests.evaluated_runs import CREATED, IDENTIFIER, Installation, Recorder, announced

HORIZON = 12


@pytest.fixture
def flts(tmp_path: Path) -> Installation:
    return Installation(tmp_path, expected_model_types=("GRU", "LINEAR"), output_seq_len=HORIZON)


def daily() -> Series:
    return made_series(FixedGrid(3_600), 800, 24, 475_000, 2)


def decided(flts: Installation, *events: Any) -> ModelSelected:
    [selected] = [told for told in flts.send(*events) if isinstance(told, ModelSelected)]
    return selected


def test_linear_is_scored_with_its_own_recipe_and_promoted(flts: Installation) -> None:
    run = flts.run(daily())
    event = linear(flts, run, HORIZON)

    selected = decided(flts, run.data, flts.trained(run, "GRU", 0.9), event)

    rows = {row["model_type"]: row for row in flts.scoreboard(selected)["candidates"]}
    assert {kind: row["status"] for kind, row in rows.items()} == {"GRU": "scored", "LINEAR": "scored"}
    assert rows["LINEAR"]["score"] < 0.5 * rows["GRU"]["score"]
    assert (selected.decision, selected.model_type, selected.bundle) == ("promoted", "LINEAR", event.bundle)
    pointer = flts.pointer()
    assert pointer is not None
    assert pointer["model_type"] == "LINEAR"


def test_linear_is_promoted_on_few_monthly_rows_because_folds_add_pieces(flts: Installation) -> None:
    run = flts.run(monthly(trend_and_season(0)), test_rows=27)

    selected = decided(flts, run.data, flts.trained(run, "GRU", 0.9), linear(flts, run, HORIZON))

    rows = {row["model_type"]: row for row in flts.scoreboard(selected)["candidates"]}
    assert (selected.decision, selected.model_type) == ("promoted", "LINEAR")
    assert rows["LINEAR"]["pieces"] == 4
    assert rows["GRU"]["pieces"] == 1
    assert "too_few_pieces" in str(rows["GRU"]["reasons"])


def test_the_champion_stays_when_the_next_run_has_the_same_bundle(flts: Installation) -> None:
    run = flts.run(daily())
    decided(flts, run.data, flts.trained(run, "GRU", 0.9), linear(flts, run, HORIZON))
    newer = flts.again(run)

    selected = decided(flts, newer.data, flts.trained(newer, "GRU", 0.9), linear(flts, newer, HORIZON))

    assert (selected.decision, selected.model_type) == ("kept", "LINEAR")


def test_a_bundle_of_other_training_rows_is_refused(flts: Installation) -> None:
    run, other = flts.run(daily()), flts.run(replace(daily(), values=daily().values + 1))
    claim = linear(flts, other, HORIZON).bundle
    assert claim is not None
    bundle, model_bytes = fetch_bundle(flts.store, claim)
    assert run.data.config_hash is not None
    renamed = replace(bundle, config_hash=run.data.config_hash)
    stored = store_bundle(flts.store, flts.settings.bucket_model_bundles, renamed, model_bytes)

    selected = decided(flts, run.data, flts.trained(run, "GRU", 0.9), announced(run, "LINEAR", bundle=stored))

    rows = {row["model_type"]: row for row in flts.scoreboard(selected)["candidates"]}
    assert rows["LINEAR"]["status"] != "scored"
    assert "other_recipe" in str(rows["LINEAR"]["reasons"])


def test_eval_does_not_wait_for_linear_after_a_baseline_came_without_it(flts: Installation) -> None:
    run = flts.run(daily())
    overdue = Overdue(flts.settings, flts.adapters(), SignsOfLife(flts.now), now=flts.now)
    assert flts.send(run.data, flts.trained(run, "GRU", 0.9)) == []

    selected = decided(flts, announced(run, "PERSISTENCE", error="out of memory"))

    rows = {row["model_type"]: row for row in flts.scoreboard(selected)["candidates"]}
    assert rows["LINEAR"]["status"] == "missing"
    assert "the trainer of LINEAR sent PERSISTENCE without it" in str(rows["LINEAR"]["reasons"])
    assert overdue() == []


def test_a_run_whose_last_results_were_passed_over_is_due_when_it_settled(flts: Installation) -> None:
    run = flts.run(daily())
    overdue = Overdue(flts.settings, flts.adapters(), SignsOfLife(flts.now), now=flts.now)
    evaluations = flts.run_store.evaluations
    flts.send(run.data)
    for event in (flts.trained(run, "GRU", 0.9), announced(run, "MEAN", error="killed")):
        evaluations.put_trained(event)  # eval was killed before it decided
    assert overdue() == []
    flts.clock += 31

    assert [request.pipeline_run_id for request in overdue()] == [run.id]


def test_linear_is_recorded_in_mlflow_before_its_scores_and_the_alias(flts: Installation) -> None:
    flts.tracker = Recorder()
    run = flts.run(daily())
    event = linear(flts, run, HORIZON)

    decided(flts, run.data, flts.trained(run, "GRU", 0.9), event)

    [recorded] = flts.tracker.runs
    assert event.bundle is not None
    bundle, _ = fetch_bundle(flts.store, event.bundle)
    assert (recorded.run_id, recorded.status) == (event.run_id, "FINISHED")
    assert recorded.params == {
        "model_type": "LINEAR",
        "config_hash": run.data.config_hash,
        "train_hash": bundle.train_hash,
        "horizon_steps": HORIZON,
        "input_seq_len": bundle.input_seq_len,
    }
    assert recorded.metrics["final_val_rmse"] == recorded.metrics["val_rmse"] == bundle.metrics["val_rmse"]
    assert recorded.claims["LINEAR/bundle.json"] == event.bundle
    assert recorded.claims["LINEAR/model.onnx"].sha256 == bundle.model_sha256
    assert recorded.registered == [
        (f"s3://{event.bundle.bucket}/{event.bundle.object_key.rpartition('/')[0]}", "LINEAR")
    ]
    of_linear = [call for call, run_id in flts.tracker.order if run_id == event.run_id]
    assert of_linear == ["run", "scores", "alias"]


def test_a_finished_run_and_a_run_that_is_evaluated_again_record_it_no_second_time(flts: Installation) -> None:
    flts.tracker = Recorder()
    run = flts.run(daily())
    events = [run.data, flts.trained(run, "GRU", 0.9), linear(flts, run, HORIZON)]
    decided(flts, *events)
    name = new_pipeline_run_id()
    request = EvaluateRequest(
        event_id=derived_event_id(name, "evaluate"),
        identifier=IDENTIFIER,
        pipeline_run_id=name,
        created_at=CREATED,
        of_run=run.id,
    )

    flts.send(*events)
    selected = decided(flts, request)

    assert selected.model_type == "LINEAR"
    assert len(flts.tracker.runs) == 1


@pytest.mark.parametrize("fault", ["failed", "gone", "recorded"])
def test_what_is_no_candidate_of_eval_is_not_recorded(flts: Installation, fault: str) -> None:
    flts.tracker = Recorder()
    run = flts.run(daily())
    event = linear(flts, run, HORIZON)
    assert event.bundle is not None
    if fault == "failed":
        event = announced(run, "LINEAR", error="no rows")
    elif fault == "gone":
        flts.store.delete(event.bundle.bucket, event.bundle.object_key)
    else:
        event = event.model_copy(update={"mlflow_run_id": "by-its-trainer"})

    selected = decided(flts, run.data, flts.trained(run, "GRU", 0.9), event)

    assert all(recorded.run_id != event.run_id for recorded in flts.tracker.runs)
    promoted_baselines = [selected.run_id] if selected.model_type in BASELINES else []
    assert [recorded.run_id for recorded in flts.tracker.runs] == promoted_baselines
