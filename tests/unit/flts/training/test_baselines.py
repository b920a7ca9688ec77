"""A baseline's bundle is proved and calibrated like any other; its forecasts equal those of plain arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flts.bundle import proof
from flts.bundle.forecaster import Forecaster
from flts.bundle.format import Bundle
from flts.bundle.model import BundleModel
from flts.errors import RejectedError
from flts.forecasting.baseline_folds import baseline_residuals
from flts.forecasting.expanding import fold_intervals, independent_windows
from flts.forecasting.grid import FixedGrid
from flts.forecasting.recipe import Features, FittedRecipe, RecipeSpec, fit_recipe, targets_only, transform
from flts.forecasting.series import Series
from flts.forecasting.splits import as_train
from flts.settings import WindowSettings
from flts.training.baselines import make_baseline
from flts.training.bundling import Identity
from flts.training.dataset import training_set
from tests.training_sets import made_series, touching_zero

KINDS = ("PERSISTENCE", "SEASONAL_NAIVE", "RIDGE", "MEAN")
SEASON = 144
SETTINGS = WindowSettings(input_seq_len=4, output_seq_len=2)


def made(kind: str, series: Series, settings: WindowSettings = SETTINGS, **spec: Any) -> tuple[Bundle, bytes]:
    recipe = fit_recipe(as_train(series), RecipeSpec(**spec))
    features = transform(recipe, series)
    data = training_set(features, recipe, settings)
    identity = Identity("made", "c" * 64, kind, "d" * 64)
    return make_baseline(data, identity, settings, horizon=1, threads=1, alive=lambda: None)


def _prepared(series: Series) -> tuple[FittedRecipe, Features]:
    recipe = fit_recipe(as_train(series), RecipeSpec())
    return recipe, transform(recipe, series)


def forecaster(kind: str, series: Series, **spec: Any) -> Forecaster:
    return Forecaster(BundleModel(*made(kind, series, **spec)))


def test_persistence_answers_the_last_value_at_any_horizon() -> None:
    series = made_series(400)

    forecast = forecaster("PERSISTENCE", series).forecast(series, 130)

    np.testing.assert_allclose(forecast.mean, np.repeat(series.values[-1:], 130, axis=0), rtol=1e-6)


def test_the_last_season_is_repeated_at_any_horizon() -> None:
    series = made_series(400)

    forecast = forecaster("SEASONAL_NAIVE", series).forecast(series, 2 * SEASON + 30)

    expected = np.concatenate([series.values[-SEASON:], series.values[-SEASON:], series.values[-SEASON:][:30]])
    np.testing.assert_allclose(forecast.mean, expected, rtol=1e-5)


def test_the_mean_of_what_was_fitted_is_the_answer_at_any_time() -> None:
    series = made_series(400)

    forecast = forecaster("MEAN", series).forecast(series.rows(0, 1), 70)

    expected = np.repeat(series.values[:360].mean(axis=0, keepdims=True), 70, axis=0)
    np.testing.assert_allclose(forecast.mean, expected, rtol=1e-12)


def test_a_clean_line_is_ridge_s_forecast() -> None:
    times = 600 * np.arange(400)
    line = Series(times, ("up", "down"), np.stack([np.arange(400.0), -2.0 * np.arange(400)], axis=1), FixedGrid(600))

    forecast = forecaster("RIDGE", line, time_features_enable=False).forecast(line, 5)

    np.testing.assert_allclose(forecast.mean[:, 0], 400 + np.arange(5), rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_of_a_baseline_is_proved_calibrated_and_the_same_each_time(kind: str) -> None:
    series = made_series(1_000)
    series.values[500:503, 1] = np.nan

    bundle, model = made(kind, series, lags_enable=True)

    proof.prove(bundle, model)
    assert Bundle.from_json(bundle.to_json()).to_json() == bundle.to_json()
    assert bundle.intervals is not None
    assert bundle.intervals.steps == ((1, 2, 5, 10, 30) if kind == "RIDGE" else (1, 2, 4, 8, 16, 30))
    assert made(kind, series, lags_enable=True)[1] == model
    # Release 0.1.0 can read the bundle only if it requires exactly this number of rows.
    window = bundle.input_seq_len + bundle.recipe.warmup_rows if bundle.input_kind == "window" else 1
    assert bundle.rows_required == window


def test_a_bundle_of_format_2_has_more_quantiles_than_those_of_its_bounds() -> None:
    plain = BundleModel(*made("RIDGE", touching_zero(1_000), SETTINGS.with_overrides({"LOWER_BOUND": "none"}))).bundle
    limited = BundleModel(*made("RIDGE", touching_zero(1_000))).bundle

    assert (plain.format_version, limited.format_version) == (1, 2)
    assert plain.intervals is not None
    assert limited.intervals is not None
    assert plain.intervals.has_only_edges
    assert set(np.round(limited.intervals.probabilities, 3)) >= {0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975}
    np.testing.assert_array_equal(plain.intervals.lower, limited.intervals.lower)


@pytest.mark.parametrize("kind", ["PERSISTENCE", "SEASONAL_NAIVE", "MEAN"])
def test_the_intervals_of_a_baseline_are_those_of_its_folds(kind: str) -> None:
    series = made_series(1_000)

    bundle = BundleModel(*made(kind, series)).bundle

    recipe, features = targets_only(*_prepared(series))
    season = bundle.input_seq_len if kind == "SEASONAL_NAIVE" else None
    folds = baseline_residuals(kind, recipe, features, horizon=30, shares=(0.1, 0.1), season=season)
    assert (bundle.format_version, bundle.intervals_source) == (2, "from_refit")
    assert bundle.intervals is not None
    np.testing.assert_array_equal(bundle.intervals.values, fold_intervals(folds).values)
    assert bundle.metrics["interval_windows"] == independent_windows(folds, 1)  # made for one step


@pytest.mark.parametrize("kind", ["PERSISTENCE", "SEASONAL_NAIVE", "MEAN"])
def test_inputs_that_nobody_forecasts_do_not_bound_the_horizon_of_a_baseline(kind: str) -> None:
    series = made_series(400)

    bundle, _ = made(kind, series, targets=("c1",), clip_enable=True)

    assert bundle.max_horizon_steps is None
    assert forecaster(kind, series, targets=("c1",)).forecast(series, 100).mean.shape == (100, 1)


def test_ridge_reaches_one_pass_where_an_input_is_not_forecast() -> None:
    bundle, _ = made("RIDGE", made_series(400), targets=("c1",))

    assert bundle.max_horizon_steps == SETTINGS.output_seq_len


def test_persistence_is_of_the_value_that_was_measured_and_not_of_the_clipped_one() -> None:
    series = made_series(400, columns=1)
    later = Series(series.times, series.columns, series.values.copy(), series.grid)
    later.values[-1] = 1_000

    forecast = forecaster("PERSISTENCE", series, clip_enable=True).forecast(later, 1)

    assert forecast.mean[0, 0] == pytest.approx(1_000, rel=1e-6)


def test_a_season_that_no_piece_of_the_rows_holds_is_no_baseline() -> None:
    with pytest.raises(RejectedError, match="no 144 training rows follow each other"):
        made("SEASONAL_NAIVE", _cut(made_series(400), every=100))


def _cut(series: Series, *, every: int) -> Series:
    """Return the rows in pieces, with a gap of one hour between two pieces."""
    pieces = np.arange(len(series)) // every
    return Series(series.times + 3_600 * pieces, series.columns, series.values, series.grid)
