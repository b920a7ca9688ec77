"""Runs on the real LTE measurements: array shapes, 50 sampled rows, a decision after two trainers, one target."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flts.trainers import DEFAULT_MODEL_TYPES
from tests.stack import RunningStack, now, running_stack
from tests.trainers import of_models

pytestmark = pytest.mark.timeout(300)
SEEDS_SCENARIO = {
    "SAMPLE_TRAIN_ROWS": 50,
    "SAMPLE_TEST_ROWS": 30,
    "SAMPLE_STRATEGY": "head",
    "SAMPLE_SEED": 45,
    "EPOCHS": 5,
}


@pytest.fixture(scope="module")
def two_trainers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    with running_stack(tmp_path_factory.mktemp("two") / "home", EXPECTED_MODEL_TYPES="GRU,LSTM") as running:
        yield running


def test_the_sampled_scenario_ends_in_a_decision_within_a_minute(
    stack: RunningStack, poblesec: tuple[Path, Path]
) -> None:
    began = now()
    run = stack.wait_decided(stack.upload("seeds", *poblesec, settings=SEEDS_SCENARIO), timeout=60)

    assert now() - began < 60
    assert run["decision"]["decision"] in {"promoted", "refused"}
    assert {trained["status"] for trained in run["trained"].values()} == {"SUCCESS"}
    assert set(of_models(run["trained"])) == set(DEFAULT_MODEL_TYPES)
    for service in ("train-gru", "train-lstm"):
        summary = next(
            record
            for record in stack.log_events(service, "feature_summary")
            if record.get("pipeline_run_id") == run["pipeline_run_id"]
        )
        assert summary["X_shape"] == [40, 10, 17]
        assert summary["y_shape"][0] == 40
        assert summary["num_features"] == 17
    sampled = stack.log_events("preprocess", "sampling_applied")[0]
    assert (sampled["strategy"], sampled["original_rows"], sampled["sampled_rows"]) == ("head", 15927, 50)


@pytest.mark.long
def test_two_expected_trainers_are_decided_after_two_and_full_data_keeps_its_shape(
    two_trainers: RunningStack, poblesec: tuple[Path, Path]
) -> None:
    settings = {"EPOCHS": 1, "HIDDEN_SIZE": 8, "NUM_LAYERS": 1}
    run = two_trainers.wait_decided(two_trainers.upload("full", *poblesec, settings=settings), timeout=120)

    # The trainer of the baselines runs always, and makes LINEAR too.
    assert set(of_models(run["trained"])) == {"GRU", "LSTM", "LINEAR"}
    assert {row["model_type"] for row in run["scoreboard"]["candidates"]} == {"GRU", "LSTM"}
    done = two_trainers.log_events("preprocess", "pipeline_done")[0]
    assert done["train_shape"] == [15927, 17]
    assert done["test_shape"] == [3982, 17]


@pytest.mark.long
def test_targets_narrow_the_forecast_to_one_column(two_trainers: RunningStack, poblesec: tuple[Path, Path]) -> None:
    settings = SEEDS_SCENARIO | {"TARGETS": "down", "SAMPLE_TRAIN_ROWS": 3000, "SAMPLE_TEST_ROWS": 500}
    run = two_trainers.wait_decided(two_trainers.upload("down-only", *poblesec, settings=settings), timeout=120)

    rows = run["scoreboard"]["candidates"]
    assert all({entry["target"] for entry in row["table"]} == {"down"} for row in rows)
