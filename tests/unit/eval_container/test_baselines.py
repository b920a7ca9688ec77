"""A run is compared with the baselines of their trainer, or with the same baselines made by eval."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flts.bundle.load import fetch_bundle
from flts.bundle.write import store_bundle
from flts.contracts.claim_check import ClaimCheck
from flts.contracts.events import EvaluateRequest, Event, ModelSelected, ModelTraining
from flts.contracts.ids import derived_event_id, new_pipeline_run_id
from flts.forecasting.grid import FixedGrid
from flts.forecasting.series import Series
from tests.early_models import baselines
from tests.evaluated_runs import (
    CREATED,
    IDENTIFIER,
    STEP_SECONDS,
    WINDOW,
    Installation,
    Run,
    announced,
    autoregression,
    timestamps_bundle,
)


@pytest.fixture
def flts(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


def decided(flts: Installation, run: Run, *trained: ModelTraining) -> dict[str, Any]:
    """Return the scoreboard of a run with two candidates and ``trained``."""
    told = flts.send(run.data, *trained, flts.trained(run, "GRU", 0.8), flts.trained(run, "LSTM", 0.5))
    return flts.scoreboard(decision_of(told))


def decision_of(told: list[Event]) -> ModelSelected:
    """Return the event of the decision; the run may have a provisional champion before it."""
    [selected] = [event for event in told if isinstance(event, ModelSelected) and event.stage is None]
    return selected


def scores(board: dict[str, Any]) -> dict[str, float]:
    return {row["name"]: row["score"] for row in board["references"]}


def bundles(board: dict[str, Any]) -> list[str | None]:
    return [row["bundle"] and row["bundle"]["sha256"] for row in board["references"]]


def test_a_run_is_measured_against_the_bundles_that_the_trainer_baselines(flts: Installation) -> None:
    run = flts.run()
    events = baselines(flts, run)

    board = decided(flts, run, *events)

    assert bundles(board) == [event.bundle.sha256 for event in events if event.bundle]
    assert [row["run_id"] for row in board["references"]] == [event.run_id for event in events]
    assert [row["model_type"] for row in board["candidates"]] == ["GRU", "LSTM"]


def test_without_their_trainer_eval_makes_the_same_baselines_and_decides_the_same(flts: Installation) -> None:
    run = flts.run()
    by_trainer = decided(flts, run, *baselines(flts, run))

    alone = decided(flts, flts.again(run))

    assert bundles(alone) == bundles(by_trainer)
    assert scores(alone) == pytest.approx(scores(by_trainer), rel=1e-12)
    for row, other in zip(alone["candidates"], by_trainer["candidates"], strict=True):
        kept = ("score", "skill", "p_value", "passed", "table")
        assert {name: row[name] for name in kept} == {name: other[name] for name in kept}


@pytest.mark.parametrize("fault", ["damaged", "gone", "failed", "of other rows", "another model"])
def test_what_a_trainer_delivered_wrongly_eval_makes_itself(flts: Installation, fault: str) -> None:
    run = flts.run()
    expected = scores(decided(flts, flts.again(run)))
    events = [_faulty(flts, run, event, fault) for event in baselines(flts, run)]

    board = decided(flts, run, *events)

    assert scores(board) == pytest.approx(expected, rel=1e-12)
    assert len(set(bundles(board))) == 4
    for row in board["references"]:
        fetch_bundle(flts.store, ClaimCheck.model_validate(row["bundle"]))


def _faulty(flts: Installation, run: Run, event: ModelTraining, fault: str) -> ModelTraining:
    claim = event.bundle
    assert claim is not None
    model = claim.object_key.replace("bundle.json", "model.onnx")
    if fault == "damaged":
        flts.store.put(claim.bucket, model, b"x")
    elif fault == "gone":
        flts.store.delete(claim.bucket, claim.object_key)
    elif fault == "failed":
        return announced(run, event.model_type, error="out of memory")
    elif fault == "of other rows":
        return event.model_copy(update={"train": run.data.test})
    else:
        other = store_bundle(flts.store, flts.settings.bucket_model_bundles, *timestamps_bundle(run))
        return event.model_copy(update={"bundle": other})
    return event


def test_the_best_baseline_is_promoted_where_no_model_passes(flts: Installation) -> None:
    noise = np.random.default_rng(0).normal(size=(800, 1))
    run = flts.run(Series(STEP_SECONDS * np.arange(800), ("down",), 100 + noise, FixedGrid(STEP_SECONDS)))
    events = baselines(flts, run)
    told = flts.send(run.data, *events, flts.trained(run, "GRU", 1.0), flts.trained(run, "LSTM", 1.05))
    selected = decision_of(told)

    board = flts.scoreboard(selected)

    assert min(scores(board), key=lambda name: scores(board)[name]) == "mean"
    assert (selected.decision, selected.model_type) == ("promoted", "MEAN")
    assert board["best_baseline"] == "MEAN"
    [mean] = [event for event in events if event.model_type == "MEAN"]
    pointer = flts.pointer()
    assert pointer is not None
    assert (pointer["run_id"], pointer["bundle"]) == (mean.run_id, mean.bundle and mean.bundle.model_dump())


def test_nobody_waits_for_a_baseline_and_nothing_is_decided_on_baselines(flts: Installation) -> None:
    run = flts.run()

    told = flts.send(run.data, *baselines(flts, run))

    assert {event.stage for event in told if isinstance(event, ModelSelected)} == {"provisional"}
    assert flts.run_store.evaluations.decision(IDENTIFIER, run.id) is None
    assert flts.run_store.evaluations.expected(IDENTIFIER, run.id)["model_types"] == ["GRU", "LSTM"]  # type: ignore[index]


def test_a_run_that_is_evaluated_again_is_measured_against_the_same_bundles(flts: Installation) -> None:
    run = flts.run()
    board = decided(flts, run, *baselines(flts, run))
    name = new_pipeline_run_id()
    request = EvaluateRequest(
        event_id=derived_event_id(name, "evaluate"),
        identifier=IDENTIFIER,
        pipeline_run_id=name,
        created_at=CREATED,
        cause="evaluate",
        of_run=run.id,
    )

    [selected] = flts.send(request)

    assert isinstance(selected, ModelSelected)
    assert bundles(flts.scoreboard(selected)) == bundles(board)


def test_the_season_before_the_first_test_rows_is_that_of_the_training_rows(flts: Installation) -> None:
    day = 100 + 10 * np.sin(2 * np.pi * np.arange(24) / 24)
    values = np.resize(day, 800) + np.where(np.arange(800) % 97 == 0, 1e-3, 0)
    run = flts.run(
        Series(STEP_SECONDS * np.arange(800), ("down",), values[:, None], FixedGrid(STEP_SECONDS)), context_rows=WINDOW
    )

    board = decided(flts, run)

    assert board["origins"] == 200
    assert board["references"][1]["table"][0]["rmse_raw"] < 1e-3
    assert board["references"][0]["table"][0]["rmse_raw"] > 1


@pytest.mark.parametrize(("rows", "repeats_the_last_value"), [(720, True), (800, False)])
def test_where_a_cut_leaves_no_whole_season_the_last_value_is_repeated(
    flts: Installation, rows: int, repeats_the_last_value: bool
) -> None:
    series = autoregression(rows, 0.5)
    series.values[:, 0] += 3 * np.sin(2 * np.pi * np.arange(rows) / 24)
    series.times[696:] += 10 * 86_400
    run = flts.run(series, test_rows=rows - 700, context_rows=WINDOW)

    board = decided(flts, run)

    assert (scores(board)["seasonal-naive"] == scores(board)["persistence"]) is repeats_the_last_value


def test_without_a_season_a_note_stands_in_place_of_the_row(flts: Installation) -> None:
    run = flts.run(autoregression(65, 0.5), test_rows=20)

    board = decided(flts, run)

    assert list(scores(board)) == ["persistence", "ridge", "mean"]
    assert board["notes"] == ["no seasonal-naive row: the training rows do not hold two seasons"]


def test_a_bundle_that_forecasts_less_than_is_scored_is_no_yardstick(tmp_path: Path) -> None:
    flts = Installation(tmp_path, score_horizons=("1", "3"))
    run = flts.run()
    [persistence, *others] = baselines(flts, run)
    assert persistence.bundle is not None
    bundle, model = fetch_bundle(flts.store, persistence.bundle)
    short = replace(bundle, max_horizon_steps=1, train_hash="e" * 64)
    claim = store_bundle(flts.store, flts.settings.bucket_model_bundles, short, model)

    board = decided(flts, run, persistence.model_copy(update={"bundle": claim}), *others)

    assert bundles(board)[0] == persistence.bundle.sha256, "eval made it again"
    assert board["references"][0]["skill"] == 0
