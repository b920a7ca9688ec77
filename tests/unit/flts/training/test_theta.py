"""THETA's bundle, made of training rows and read as a service reads it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flts.bundle.forecaster import Forecaster
from flts.bundle.format import Bundle
from flts.bundle.model import BundleModel
from flts.errors import RejectedError
from flts.forecasting.recipe import RecipeSpec, fit_recipe, targets_only, transform
from flts.forecasting.series import FloatArray, Series
from flts.forecasting.splits import as_train
from flts.forecasting.theta.fit import NoThetaError, choose_theta, solve_theta
from flts.forecasting.theta.rows import theta_rows
from flts.settings import WindowSettings
from flts.training import dataset
from flts.training.bundling import Identity
from flts.training.fitting import TrainingSet
from flts.training.theta import make_theta
from tests.chance_folds import monthly, random_walk, trend_and_season

HORIZON = 12
IDENTITY = Identity("made", "c" * 64, "THETA", "e" * 64)


def training_set(series: Series, **spec: Any) -> TrainingSet:
    recipe = fit_recipe(as_train(series), RecipeSpec(**spec))
    return dataset.training_set(transform(recipe, series), recipe, WindowSettings())


def made(data: TrainingSet, horizon: int = HORIZON) -> tuple[Bundle, bytes]:
    return make_theta(data, IDENTITY, horizon=horizon, threads=1, alive=lambda: None)


def read_back(bundle: Bundle, model_bytes: bytes) -> Forecaster:
    """Return the forecaster of what `flts.bundle.write` stores."""
    return Forecaster(BundleModel(Bundle.from_json(bundle.to_json()), model_bytes))


def with_columns(*columns: FloatArray) -> Series:
    table = np.stack(columns, axis=1)
    return replace(monthly(columns[0]), columns=tuple("abcd"[: len(columns)]), values=table)


def test_the_bundle_read_back_forecasts_what_the_model_of_all_rows_does() -> None:
    series = with_columns(trend_and_season(1), 1e3 + random_walk(2))
    data = training_set(series, time_features_enable=True, lags_enable=True, lags_n=2)
    recipe, features = targets_only(data.recipe, data.features)
    rows = theta_rows(recipe, features, stop=data.tails.stop_stop)
    choice = choose_theta(rows, horizon=HORIZON, stop=data.tails.stop_stop, alive=lambda: None)
    model = solve_theta(rows, choice, stop=len(features))

    bundle, model_bytes = made(data)

    length = model.rows_required
    assert (bundle.recipe, bundle.targets, bundle.inputs, bundle.seasons) == (
        recipe,
        ("a", "b"),
        ("past", "places"),
        (12,),
    )
    assert bundle.input_seq_len == bundle.rows_required == length
    assert (bundle.output_seq_len, bundle.max_horizon_steps, bundle.format_version) == (HORIZON, None, 2)
    assert bundle.fitted_until == series.times[-1]
    places = np.arange(len(series) - length, len(series) + HORIZON)[None, :, None] % 12
    expected = model(series.values[None, -length:], places)[0]
    found = read_back(bundle, model_bytes).forecast(series, HORIZON)
    np.testing.assert_allclose(found.mean, expected, rtol=1e-5)
    assert {"multiplicative", "none"} <= {part.adjustment.kind for part in model.parts}


def test_a_forecast_beyond_the_horizon_feeds_forecasts_back() -> None:
    values = trend_and_season(3)
    series = monthly(values[:108])

    mean = read_back(*made(training_set(series), horizon=6)).forecast(series, 24).mean[:, 0]

    assert np.abs(mean - values[108:]).mean() < 0.06 * values[108:].mean()


def test_intervals_are_residuals_of_the_rows_that_the_judged_model_was_not_fitted_on() -> None:
    data = training_set(monthly(trend_and_season(1)))
    bundle, _ = made(data)

    recipe, features = targets_only(data.recipe, data.features)
    stop = data.tails.stop_stop
    rows = theta_rows(recipe, features, stop=stop)
    judged = solve_theta(rows, choose_theta(rows, horizon=HORIZON, stop=stop, alive=lambda: None), stop=stop)
    length, values = judged.rows_required, rows.table.values
    errors = []
    for first in range(stop, len(values)):
        at = np.arange(first - length, first + HORIZON)
        errors.append(values[first, 0] - judged(values[None, at[:length]], at[None, :, None] % 12)[0, 0, 0])
    assert bundle.intervals is not None
    assert bundle.intervals_source == "from_refit"
    assert bundle.intervals.steps[0] == 1
    median = bundle.intervals.at_level(0.5)
    assert median is not None
    assert median[0, 0] == pytest.approx(np.quantile(errors, 0.5), rel=1e-6)
    assert bundle.metrics["val_rmse"] is not None


def test_missing_cells_and_a_gap_do_not_stop_it() -> None:
    values = trend_and_season(1)
    values[[20, 21, 90]] = np.nan
    whole = monthly(values)
    kept = np.r_[0:50, 60:132]
    series = replace(whole, times=whole.times[kept], values=whole.values[kept])

    mean = read_back(*made(training_set(series))).forecast(series, HORIZON).mean

    assert np.isfinite(mean).all()
    assert np.abs(mean[:, 0] / values[-12:] - 1).max() < 0.3


def test_only_targets_are_inputs_and_constant_targets_are_answered() -> None:
    series = with_columns(trend_and_season(1), np.full(132, 7.0), random_walk(1))
    forecaster = read_back(*made(training_set(series, targets=("a", "b"))))

    assert forecaster.recipe.columns == ("a", "b")
    assert forecaster.forecast(series, HORIZON).mean[:, 1].tolist() == [7.0] * HORIZON
    constant, _ = made(training_set(with_columns(np.full(132, 7.0))))
    assert constant.reason == "all_constant"


def test_the_same_rows_give_the_same_bytes() -> None:
    data = training_set(monthly(trend_and_season(1)))

    assert made(data)[1] == made(data)[1]


def test_a_horizon_of_no_bundle_and_too_few_rows_are_refused() -> None:
    with pytest.raises(RejectedError, match="THETA forecasts 1 to"):
        made(training_set(monthly(trend_and_season(1))), horizon=10**6)
    with pytest.raises(NoThetaError, match="at least 16 rows, there are 13"):
        made(training_set(monthly(random_walk(1)[:15])))
