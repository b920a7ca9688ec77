"""LINEAR's bundle, made of training rows and read as a service reads it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flts.bundle.arrays import PROBE
from flts.bundle.forecaster import Forecaster
from flts.bundle.format import MAX_WINDOW_ROWS, Bundle
from flts.bundle.graph import check_graph
from flts.bundle.model import BundleModel
from flts.errors import RejectedError
from flts.forecasting.direct import DirectInputs
from flts.forecasting.expanding import FoldResiduals, fold_intervals, independent_windows
from flts.forecasting.grid import FixedGrid
from flts.forecasting.intervals import LEVELS
from flts.forecasting.linear.calendar import find_calendar
from flts.forecasting.linear.fit import WINDOW_ROWS, choose_linear, solve_linear
from flts.forecasting.linear.kinds import LONGEST_LAG
from flts.forecasting.linear.model import LinearModel, path_residuals
from flts.forecasting.linear.table import LinearTable, NoLinearError
from flts.forecasting.places import clock_turns, season_places
from flts.forecasting.recipe import RecipeSpec, fit_recipe, measured_only, targets_only, transform
from flts.forecasting.series import Series
from flts.forecasting.splits import as_train
from flts.settings import WindowSettings
from flts.training import dataset
from flts.training.bundling import Identity
from flts.training.fitting import TrainingSet
from flts.training.folds import linear_folds_of
from flts.training.linear import make_linear
from tests.direct_models import BERLIN, hourly_series

HORIZON = 24
IDENTITY = Identity("made", "c" * 64, "LINEAR", "e" * 64)


def training_set(series: Series, **spec: Any) -> TrainingSet:
    recipe = fit_recipe(as_train(series), RecipeSpec(**spec))
    features = transform(recipe, series)
    return dataset.training_set(features, recipe, WindowSettings())


def made(data: TrainingSet, horizon: int = HORIZON) -> tuple[Bundle, bytes]:
    return make_linear(data, IDENTITY, horizon=horizon, threads=1, alive=lambda: None)


def read_back(bundle: Bundle, model_bytes: bytes) -> Forecaster:
    """Return the forecaster of what `flts.bundle.write` stores."""
    return Forecaster(BundleModel(Bundle.from_json(bundle.to_json()), model_bytes))


def by_hand(data: TrainingSet, stop: int) -> tuple[LinearModel, LinearTable]:
    """Return LINEAR solved on the rows before ``stop``, and the table, for hours in Berlin."""
    recipe, features = measured_only(data.recipe, data.features)
    fit_stop, grid, times = data.tails.fit_stop, features.grid, features.times
    seasons = (24, 168)
    calendar = find_calendar(grid.clock(times[:fit_stop]), 3_600)
    table = LinearTable(
        features.values,
        ~features.imputed,
        features.segments(),
        seasons,
        season_places(grid, times, seasons),
        calendar(clock_turns(grid, times)),
    )
    choice = choose_linear(
        table,
        horizon=HORIZON,
        fit_stop=fit_stop,
        stop_stop=data.tails.stop_stop,
        targets=tuple(recipe.varying_columns.tolist()),
    )
    return solve_linear(table, choice, stop=stop), table


def test_the_bundle_read_back_forecasts_what_the_model_of_all_rows_does() -> None:
    series = hourly_series()
    data = training_set(series, time_features_enable=True, lags_enable=True, lags_n=2, targets=("c1", "c0"))
    model, _ = by_hand(data, len(data.features))
    recipe, features = measured_only(data.recipe, data.features)
    calendar = find_calendar(BERLIN.clock(features.times[: data.tails.fit_stop]), 3_600)

    bundle, model_bytes = made(data)

    forecaster = read_back(bundle, model_bytes)
    assert bundle.recipe == recipe
    assert (recipe.feature_names, recipe.lags, recipe.add) == (("c0", "c1"), (), 0)
    assert bundle.targets == ("c1", "c0")
    assert bundle.input_seq_len == bundle.rows_required == model.rows_required
    assert (bundle.output_seq_len, bundle.horizon_steps, bundle.max_horizon_steps) == (HORIZON, HORIZON, None)
    assert (bundle.fitted_until, bundle.fit, bundle.format_version) == (int(series.times[-1]), "judged", 2)
    source = DirectInputs(recipe, bundle.inputs, bundle.seasons, model.rows_required, HORIZON)
    given = source.start(features.values[None, -model.rows_required :], series.times[-1:]).inputs()
    first = calendar(given["clock"][:, model.rows_required].astype(float))
    scaled = model(given["past"], given["places"], first)[0]
    expected = scaled * recipe.scales_of_targets + recipe.offsets_of_targets
    np.testing.assert_allclose(forecaster.forecast(series, HORIZON).mean, expected, rtol=1e-5)


def test_a_fit_reports_that_it_is_alive_for_each_target() -> None:
    calls: list[None] = []

    make_linear(training_set(hourly_series(200)), IDENTITY, horizon=3, threads=1, alive=lambda: calls.append(None))

    assert len(calls) > 3 * 2  # choice and both models, two targets


def test_the_same_rows_give_the_same_bytes() -> None:
    bundle, model_bytes = made(training_set(hourly_series(400)))

    again = made(training_set(hourly_series(400)))

    assert (again[0].to_json(), again[1]) == (bundle.to_json(), model_bytes)


def test_the_intervals_are_those_of_the_folds_and_the_metrics_those_of_the_calibration_tail() -> None:
    data = training_set(hourly_series())
    stop = data.tails.stop_stop
    model, table = by_hand(data, stop)

    forecaster = read_back(*made(data))

    bundle = forecaster.bundle
    assert bundle.intervals is not None
    assert bundle.intervals_source == "from_refit"
    folds = linear_folds_of(data, HORIZON, lambda: None)
    assert bundle.intervals.probabilities == pytest.approx(LEVELS)
    np.testing.assert_array_equal(bundle.intervals.values, fold_intervals(folds).values)
    assert bundle.metrics["interval_windows"] == independent_windows(folds, HORIZON) >= 10
    scales = forecaster.recipe.scales_of_targets / data.recipe.scales_of_targets
    _, residuals = path_residuals(model, table, first=stop, stop=len(table), most=1_000)
    val = np.concatenate([residuals[:, step - 1] for step in (1, 2, 5, 10, 24)]) * scales
    assert bundle.metrics["val_mae"] == pytest.approx(np.nanmean(np.abs(val)))


def test_without_folds_the_intervals_are_those_of_the_model_without_the_calibration_tail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flts.training.linear.linear_folds_of", lambda *_: [])
    data = training_set(hourly_series())
    stop = data.tails.stop_stop
    model, table = by_hand(data, stop)

    bundle, model_bytes = make_linear(data, IDENTITY, horizon=HORIZON, threads=1, alive=lambda: None)

    intervals = read_back(bundle, model_bytes).bundle.intervals
    assert intervals is not None
    assert bundle.intervals_source == "calibration_tail"
    rows, residuals = path_residuals(model, table, first=stop, stop=len(table), most=1_000)
    tail = FoldResiduals(0, rows, residuals * data.recipe.scales_of_targets)
    assert intervals.values == pytest.approx(fold_intervals([tail]).values)
    assert bundle.metrics["interval_windows"] == independent_windows([tail], HORIZON) < 10


def test_a_target_that_is_never_negative_has_forecasts_and_bounds_from_0_on() -> None:
    series = hourly_series(400)
    values = series.values - np.median(series.values, axis=0)
    values[:, 0] = np.maximum(values[:, 0], 0)  # half of the rows are 0
    series = replace(series, values=values)

    forecaster = read_back(*made(training_set(series)))

    assert forecaster.bundle.limits == {"c0": (0.0, None)}
    found = forecaster.forecast(series, HORIZON)
    assert found.lower is not None
    assert found.mean[:, 0].min() == found.lower[:, 0].min() == 0
    assert found.mean[:, 1].min() < -1
    assert (found.lower[:, 1] < found.mean[:, 1]).all()


def test_constant_columns_are_inputs_without_a_weight() -> None:
    series = hourly_series(400, columns=4)
    series.values[:, 1], series.values[:, 2] = 7.0, 9.0
    forecaster = read_back(*made(training_set(series, targets=("c0", "c1", "c3"))))
    moved = Series(series.times, series.columns, series.values.copy(), series.grid)
    moved.values[-50:, 2] = 1e6

    forecast = forecaster.forecast(series, HORIZON)

    assert forecaster.max_horizon is None
    assert np.isfinite(forecast.mean).all()
    assert (forecast.mean[:, 1] == 7).all()
    np.testing.assert_array_equal(forecaster.forecast(moved, HORIZON).mean, forecast.mean)


def test_other_columns_that_vary_limit_the_forecast_to_the_horizon() -> None:
    series = hourly_series(400)

    bundle, _ = made(training_set(series, targets=("c0",)))

    assert bundle.recipe.columns == ("c0", "c1")
    assert bundle.max_horizon_steps == HORIZON


def test_gaps_and_missing_cells_are_no_obstacle() -> None:
    series = hourly_series()
    kept = np.r_[0:200, 230:500, 510 : len(series)]
    values = series.values[kept]
    values[::17, 0] = np.nan
    series = Series(series.times[kept], series.columns, values, series.grid)

    forecaster = read_back(*made(training_set(series)))

    found = forecaster.forecast(series, HORIZON)
    assert np.abs(found.mean[:, 0] - 20).max() < 7
    assert found.imputed_cells > 0


def test_values_far_from_zero_keep_their_digits() -> None:
    series = hourly_series(400, columns=1)
    far = replace(series, values=series.values + 1e9)

    near, moved = (read_back(*made(training_set(one, scaler="none"))) for one in (series, far))

    difference = moved.forecast(far, HORIZON).mean - near.forecast(series, HORIZON).mean
    np.testing.assert_allclose(difference, 1e9, atol=1e-3, rtol=0)


def test_clip_bounds_apply_to_the_inputs() -> None:
    series = hourly_series(400, columns=1)
    data = training_set(series, clip_enable=True, clip_method="iqr")

    bundle, _ = made(data)

    assert bundle.recipe.clip_lower == data.recipe.clip_lower is not None
    assert targets_only(data.recipe, data.features)[0].clip_lower is None


def test_few_rows_have_no_linear() -> None:
    series = hourly_series(8)

    with pytest.raises(NoLinearError, match="hold fewer than 8 windows"):
        made(training_set(series))


@pytest.mark.parametrize("horizon", [0, 1_001])
def test_a_horizon_that_no_bundle_has_is_refused(horizon: int) -> None:
    with pytest.raises(RejectedError, match=f"1 to 1,000 steps, not {horizon:,}"):
        made(training_set(hourly_series(100)), horizon)


def test_targets_that_never_vary_have_the_constant_bundle() -> None:
    series = Series(3_600 * np.arange(100), ("flat",), np.full((100, 1), 3.0), FixedGrid(3_600))

    bundle, model_bytes = made(training_set(series))

    assert (bundle.reason, bundle.input_kind, bundle.format_version) == ("all_constant", "timestamps", 1)
    assert (read_back(bundle, model_bytes).forecast(series, 5).mean == 3).all()


def test_the_longest_window_is_one_that_a_bundle_may_have() -> None:
    assert LONGEST_LAG + WINDOW_ROWS == MAX_WINDOW_ROWS


def test_the_probe_holds_windows_of_the_training_rows() -> None:
    data = training_set(hourly_series(400))

    bundle, model_bytes = made(data)

    arrays = check_graph(model_bytes)
    past = arrays[f"{PROBE}past"]
    _, features = measured_only(data.recipe, data.features)
    assert len(past) == 2
    np.testing.assert_array_equal(past[0], features.values[: bundle.input_seq_len].astype(np.float32))
