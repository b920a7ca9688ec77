"""The whole service without Kafka: an event in, a bundle with the same forecasts as Prophet out."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flts.contracts.events import ModelTraining
from flts.forecasting.grid import FixedGrid
from flts.forecasting.recipe import RecipeSpec
from flts.forecasting.series import Series
from flts.model_settings import ProphetSettings
from nonML_container.bootstrap import build_service
from nonML_container.domain.fit import fit_prophet, predict
from nonML_container.handler import train_in_child
from tests.nonml_service import trained
from tests.training_sets import (
    STEP,
    Progress,
    adapters_of,
    assert_load_is_limited,
    assert_moved_by_the_median,
    made_series,
    store_dataset,
    touching_zero,
)


def test_the_shipped_model_is_prophet_fitted_on_all_rows(load: Any, tmp_path: Path) -> None:
    stored = store_dataset(tmp_path, made_series(1000))
    progress = Progress()

    event, forecaster = trained(stored, load(), progress)
    forecast = forecaster.forecast(stored.series.rows(999, 1000), 200)

    assert event.model_type == "PROPHET"
    for column, values in enumerate(stored.series.values.T):
        model = fit_prophet(stored.series.times, values, ProphetSettings(), "exact")
        assert forecast.mean[:, column] == pytest.approx(predict(model, forecast.times), rel=1e-6)
    assert forecaster.rows_required == 1
    assert forecaster.max_horizon is None
    assert [said.epoch for said in progress.said if getattr(said, "epoch", None)] == [1, 2, 3]
    assert {said.stage for said in progress.said} == {"nonml-prophet"}


def test_intervals_come_from_a_fit_that_did_not_see_the_tail(load: Any, tmp_path: Path) -> None:
    stored = store_dataset(tmp_path, made_series(1000))

    event, forecaster = trained(stored, load())

    intervals = forecaster.bundle.intervals
    assert forecaster.bundle.intervals_source == "from_refit"
    assert intervals is not None
    assert intervals.lower is not None
    times, values = stored.series.times, stored.series.values[:, 0]
    early = fit_prophet(times[:900], values[:900], ProphetSettings(), "exact")
    residuals = np.sort(values[900:] - predict(early, times[900:]))
    assert intervals.lower[0, 0] == pytest.approx(residuals[4], rel=1e-6)  # rank 5 of 100 residuals: floor(0.05 * 101)
    assert intervals.calibrated_steps == 30
    assert event.metrics["val_rmse"] is not None
    assert event.metrics["val_rmse"] > 0


def test_imputed_cells_have_no_part_in_the_fit(load: Any, tmp_path: Path) -> None:
    series = made_series(600)
    values = series.values.copy()
    values[100:150, 0] = np.nan
    stored = store_dataset(tmp_path, replace(series, values=values))

    _, forecaster = trained(stored, load())

    model = fit_prophet(series.times, values[:, 0], ProphetSettings(), "exact")
    forecast = forecaster.forecast(series, 50)
    assert forecast.mean[:, 0] == pytest.approx(predict(model, forecast.times), rel=1e-6)


def test_constant_targets_are_answered_and_a_late_change_is_no_constant(load: Any, tmp_path: Path) -> None:
    series = made_series(400)
    values = np.column_stack([series.values[:, 0], np.full(400, 3.0), np.where(np.arange(400) < 390, 1.0, 2.0)])
    stored = store_dataset(tmp_path, Series(series.times, ("c0", "fixed", "late"), values, FixedGrid(STEP)))

    _, forecaster = trained(stored, load())

    forecast = forecaster.forecast(stored.series, 5)
    assert (forecast.mean[:, 1] == 3).all()
    assert np.isfinite(forecast.mean).all()


def test_fifty_rows_are_enough(load: Any, tmp_path: Path) -> None:
    stored = store_dataset(tmp_path, made_series(50, columns=11))

    _, forecaster = trained(stored, load())

    assert np.isfinite(forecaster.forecast(stored.series, 30).mean).all()


def test_a_target_without_values_before_the_tail_is_named_as_the_reason_of_the_failure(
    load: Any, tmp_path: Path
) -> None:
    series = made_series(200)
    values = series.values.copy()
    values[:199, 1] = np.nan
    values[199, 1] = 5.0
    values[198, 1] = 4.0
    stored = store_dataset(tmp_path, replace(series, values=values), RecipeSpec(nans_threshold=1.0))

    handler = train_in_child(load(), adapters_of(stored, load()))
    [event] = handler(stored.event, Progress())

    assert isinstance(event, ModelTraining)
    assert event.status == "FAILED"
    assert event.error is not None
    assert event.error.startswith("c1 has fewer than 2 values before the calibration tail")


def test_other_parameters_make_another_bundle(load: Any, tmp_path: Path) -> None:
    # Each change needs a run of its own: if a run has a bundle already, the trainer announces that bundle again, even
    # if the settings have changed.
    changes = ({}, {"PROPHET_CHANGEPOINT_PRIOR_SCALE": "0.5"}, {"PROPHET_OPTIMISER": "stan"})
    keys = set()
    for number, changed in enumerate(changes):
        stored = store_dataset(tmp_path / str(number), made_series(200))
        event, _ = trained(stored, load(**{"PROPHET_CHANGEPOINT_PRIOR_SCALE": "", **changed}))
        assert event.bundle is not None
        keys.add(event.bundle.object_key)

    assert len(keys) == 3


def test_the_fit_is_silent(load: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    stored = store_dataset(tmp_path, made_series(200))
    capfd.readouterr()

    trained(stored, load(PROPHET_OPTIMISER="stan"))

    captured = capfd.readouterr()
    assert "cmdstan" not in captured.out + captured.err
    assert "Disabling" not in captured.out + captured.err


def test_the_service_is_a_group_of_its_own(load: Any, tmp_path: Path) -> None:
    settings = load()
    stored = store_dataset(tmp_path, made_series(50))

    service = build_service(settings, adapters_of(stored, settings))

    assert service.name == "nonml-prophet"
    assert service.subscriptions[0].child == "nonML_container.handler:train_in_child"
    assert settings.service_port == 8022


def test_the_process_that_waits_for_its_child_imports_no_prophet() -> None:
    heavy = ("prophet", "pandas", "onnx", "onnxruntime", "mlflow")
    code = f"import sys, nonML_container.bootstrap; print([name for name in {heavy} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("kind", "fitted_rows"), [("PROPHET", 400), ("HOLT", 320)])
def test_a_target_that_is_never_negative_has_no_forecast_and_no_bound_below_0(
    load: Any, tmp_path: Path, kind: str, fitted_rows: int
) -> None:
    stored = store_dataset(tmp_path, touching_zero(400))

    _, forecaster = trained(stored, load(MODEL_TYPE=kind))

    assert_load_is_limited(forecaster, stored.series, fitted_rows)


@pytest.mark.parametrize("kind", ["PROPHET", "HOLT"])
def test_the_median_moves_the_forecasts(load: Any, tmp_path: Path, kind: str) -> None:
    stored = store_dataset(tmp_path, touching_zero(400))

    _, free = trained(stored, load(MODEL_TYPE=kind, LOWER_BOUND="none"))
    _, moved = trained(replace(stored, event=stored.again()), load(MODEL_TYPE=kind, LOWER_BOUND="none", POINT="median"))

    assert_moved_by_the_median(moved, free, stored.series)
