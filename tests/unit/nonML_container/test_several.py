"""The baselines' trainer without Kafka: one event in, an ordinary bundle of LINEAR and of each baseline out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flts.bundle.forecaster import Forecaster
from flts.bundle.load import fetch_bundle
from flts.bundle.model import BundleModel
from flts.contracts.events import ModelTraining
from flts.contracts.ids import derived_event_id
from flts.contracts.lifecycle import RunState
from flts.errors import RejectedError
from flts.forecasting.grid import FixedGrid
from flts.forecasting.series import Series
from flts.trainers import BASELINES, SHORT_ROWS
from nonML_container.handler import train_in_child
from nonML_container.settings import NonmlSettings
from tests.training_sets import (
    STEP,
    Progress,
    Stored,
    adapters_of,
    assert_load_is_limited,
    made_series,
    store_dataset,
    touching_zero,
)

ROWS = 400
"""More than two days, so the data set has a season."""


def trained(stored: Stored, settings: NonmlSettings, event: Any = None) -> dict[str, ModelTraining]:
    handler = train_in_child(settings, adapters_of(stored, settings))
    return {one.model_type: one for one in handler(event or stored.event, Progress()) if isinstance(one, ModelTraining)}


def stage(stored: Stored) -> Any:
    return stored.run_store.stages.read("made", stored.event.pipeline_run_id, "nonml-baseline")


def test_one_message_makes_the_candidates_and_then_every_baseline(load: Any, tmp_path: Path) -> None:
    stored = store_dataset(tmp_path, made_series(ROWS))

    events = trained(stored, load(MODEL_TYPE="BASELINE"))

    assert tuple(events) == ("LINEAR", "THETA", *BASELINES)
    for kind, event in events.items():
        assert (event.status, event.mlflow_run_id, event.reused) == ("SUCCESS", None, False)
        assert event.event_id == derived_event_id(stored.event.event_id, f"trained-{kind}")
        assert event.bundle is not None
        forecaster = Forecaster(BundleModel(*fetch_bundle(stored.store, event.bundle)))
        assert np.isfinite(forecaster.forecast(stored.series, 70).mean).all()
    assert stage(stored)["status"] == "done"
    assert set(stage(stored)["bundles"]) == set(BASELINES)
    assert stage(stored)["failed"] == {}


def test_a_message_that_comes_again_is_answered_the_same_and_nothing_is_fitted(load: Any, tmp_path: Path) -> None:
    stored = store_dataset(tmp_path, made_series(200))
    settings = load(MODEL_TYPE="BASELINE")
    first = trained(stored, settings)
    stored.store.delete(stored.event.bucket, stored.event.object_key)

    again = trained(stored, settings)

    assert {kind: (event.event_id, event.bundle) for kind, event in again.items()} == {
        kind: (event.event_id, event.bundle) for kind, event in first.items()
    }
    assert all(event.reused for event in again.values())


def test_a_further_run_on_the_same_rows_finds_the_bundles_unless_it_is_forced(load: Any, tmp_path: Path) -> None:
    stored = store_dataset(tmp_path, made_series(ROWS))
    settings = load(MODEL_TYPE="BASELINE")
    first = trained(stored, settings)

    again = trained(stored, settings, stored.again())

    assert [event.bundle for event in again.values()] == [event.bundle for event in first.values()]
    assert all(event.reused for event in again.values())


def test_a_damaged_bundle_is_made_again(load: Any, tmp_path: Path) -> None:
    stored = store_dataset(tmp_path, made_series(ROWS))
    settings = load(MODEL_TYPE="BASELINE")
    first = trained(stored, settings)
    claim = first["RIDGE"].bundle
    assert claim is not None
    stored.store.put(claim.bucket, claim.object_key.replace("bundle.json", "model.onnx"), b"x")

    again = trained(stored, settings)

    assert {kind: event.reused for kind, event in again.items()} == {
        "LINEAR": True,
        "THETA": True,
        "PERSISTENCE": True,
        "SEASONAL_NAIVE": True,
        "RIDGE": False,
        "MEAN": True,
    }
    assert again["RIDGE"].bundle == claim
    fetch_bundle(stored.store, claim)


def test_a_baseline_that_the_rows_do_not_have_is_left_out(load: Any, tmp_path: Path) -> None:
    stored = store_dataset(tmp_path, made_series(200))

    assert set(trained(stored, load(MODEL_TYPE="BASELINE"))) == {"LINEAR", "THETA", "PERSISTENCE", "RIDGE", "MEAN"}


def test_rows_in_which_nothing_varies_have_candidates_alone(load: Any, tmp_path: Path) -> None:
    series = Series(STEP * np.arange(ROWS), ("flat",), np.full((ROWS, 1), 3.0), FixedGrid(STEP))
    stored = store_dataset(tmp_path, series)

    events = trained(stored, load(MODEL_TYPE="BASELINE"))

    assert tuple(events) == ("LINEAR", "THETA")
    for event in events.values():
        assert event.bundle is not None
        assert fetch_bundle(stored.store, event.bundle)[0].reason == "all_constant"
    assert stage(stored)["status"] == "done"


def test_linear_forecasts_the_steps_of_one_pass(load: Any, tmp_path: Path) -> None:
    stored = store_dataset(tmp_path, made_series(ROWS), settings={"output_seq_len": 7})

    event = trained(stored, load(MODEL_TYPE="BASELINE"))["LINEAR"]

    assert event.bundle is not None
    bundle, _ = fetch_bundle(stored.store, event.bundle)
    assert (bundle.model_type, bundle.output_seq_len, bundle.identifier) == ("LINEAR", 7, "made")
    assert event.metrics == bundle.metrics
    assert event.metrics["val_rmse"] is not None


def test_rows_that_a_candidate_cannot_be_fitted_on_have_a_failure_that_a_repeat_announces_again(
    load: Any, tmp_path: Path
) -> None:
    stored = store_dataset(tmp_path, made_series(8))
    settings = load(MODEL_TYPE="BASELINE")

    first = trained(stored, settings)
    stored.store.delete(stored.event.bucket, stored.event.object_key)
    again = trained(stored, settings)

    failed = first["LINEAR"]
    assert tuple(first) == tuple(again) == ("LINEAR", "THETA", "PERSISTENCE", "MEAN")
    assert (failed.status, failed.bundle) == ("FAILED", None)
    assert failed.error is not None
    assert "fewer than 8 windows" in failed.error
    assert (again["LINEAR"].event_id, again["LINEAR"].error) == (failed.event_id, failed.error)
    assert first["THETA"].error == "THETA is fitted on at least 16 rows, there are 7"
    assert stage(stored)["failed"] == {kind: first[kind].error for kind in ("LINEAR", "THETA")}


def test_a_message_that_the_last_release_handled_has_the_candidates_now(load: Any, tmp_path: Path) -> None:
    stored = store_dataset(tmp_path, made_series(ROWS))
    bundles = dict.fromkeys(("PERSISTENCE", "MEAN"))
    stored.run_store.stages.put("made", stored.event.pipeline_run_id, "nonml-baseline", "done", bundles=bundles)

    assert tuple(trained(stored, load(MODEL_TYPE="BASELINE"))) == ("LINEAR", "THETA", "PERSISTENCE", "MEAN")


def test_theta_is_made_of_short_series_only(load: Any, tmp_path: Path) -> None:
    short = store_dataset(tmp_path / "short", made_series(SHORT_ROWS - 1))
    long = store_dataset(tmp_path / "long", made_series(SHORT_ROWS))
    settings = load(MODEL_TYPE="BASELINE")

    assert trained(short, settings)["THETA"].status == "SUCCESS"
    assert tuple(trained(long, settings)) == ("LINEAR", *BASELINES)


def test_a_run_that_has_ended_gets_no_baseline(load: Any, tmp_path: Path) -> None:
    stored = store_dataset(tmp_path, made_series(ROWS))
    stored.run_store.runs.put_outcome("made", stored.event.pipeline_run_id, RunState.CANCELLED)

    assert trained(stored, load(MODEL_TYPE="BASELINE")) == {}
    assert stage(stored) is None


def test_the_child_imports_neither_torch_nor_prophet_nor_mlflow(load: Any) -> None:
    load(MODEL_TYPE="BASELINE")
    heavy = ("torch", "prophet", "pandas", "mlflow", "matplotlib")
    code = (
        "import sys\n"
        "from types import SimpleNamespace\n"
        "from nonML_container.handler import train_in_child\n"
        "from nonML_container.settings import NonmlSettings\n"
        "train_in_child(NonmlSettings.load(), SimpleNamespace())\n"
        f"print([name for name in {heavy} if name in sys.modules])\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_a_target_that_is_never_negative_has_no_forecast_and_no_bound_below_0(load: Any, tmp_path: Path) -> None:
    stored = store_dataset(tmp_path, touching_zero(ROWS))
    fitted = {"LINEAR": ROWS, "THETA": ROWS, "PERSISTENCE": 0, "SEASONAL_NAIVE": ROWS, "RIDGE": 360, "MEAN": 360}

    events = trained(stored, load(MODEL_TYPE="BASELINE"))

    assert set(events) == set(fitted)
    for kind, event in events.items():
        assert event.bundle is not None
        forecaster = Forecaster(BundleModel(*fetch_bundle(stored.store, event.bundle)))
        assert_load_is_limited(forecaster, stored.series, fitted[kind])


def test_bounds_of_the_run_make_other_bundles(load: Any, tmp_path: Path) -> None:
    stored = store_dataset(tmp_path, touching_zero(ROWS))
    settings = load(MODEL_TYPE="BASELINE")
    bounded = stored.again(settings={"LOWER_BOUND": "none", "UPPER_BOUND": 1e6})

    first, events = trained(stored, settings), trained(stored, settings, bounded)

    for kind, event in events.items():
        assert event.bundle is not None
        assert event.bundle != first[kind].bundle
        bundle, _ = fetch_bundle(stored.store, event.bundle)
        assert bundle.limits == {"load": (None, 1e6), "balance": (None, 1e6)}


def test_a_bound_that_a_row_violates_is_refused(load: Any, tmp_path: Path) -> None:
    stored = store_dataset(tmp_path, touching_zero(ROWS))

    with pytest.raises(RejectedError, match="UPPER_BOUND is 0, and load has the value") as refused:
        trained(stored, load(MODEL_TYPE="BASELINE", LOWER_BOUND="none", UPPER_BOUND="0"))

    assert (refused.value.code, refused.value.field) == ("bad_setting", "UPPER_BOUND")
