from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flts.errors import RejectedError
from flts.forecasting.baselines import STEPS, Constant, Repeat, WindowShape, fit_baseline
from flts.forecasting.grid import FixedGrid
from flts.forecasting.recipe import RecipeSpec, fit_recipe, measured_only, raw_rows, targets_only, transform
from flts.forecasting.ridge import RidgeModel
from flts.forecasting.seasons import seasons_within
from flts.forecasting.series import Series
from flts.forecasting.splits import as_train, tails
from tests.training_sets import made_series

DAY, WEEK, HOUR = 86_400, 7 * 86_400, 3_600
SHAPE = WindowShape(4, 2)


def fitted(kind: str, series: Series, shape: WindowShape = SHAPE, **spec: Any) -> Any:
    recipe = fit_recipe(as_train(series), RecipeSpec(**spec))
    features = transform(recipe, series)
    shares = tails(len(features), stop_tail=0.1, calibration_tail=0.1)
    return fit_baseline(kind, features, recipe, shares, shape)


@pytest.mark.parametrize(
    ("step_seconds", "train_rows", "season"),
    [
        (120, 15_927, 720),
        (HOUR, 48, 24),
        (HOUR, 47, None),
        (DAY, 14, 7),
        (DAY, 13, None),
        (7 * HOUR, 10_000, 24),  # a week has 24 steps of 7 hours; a day is not a whole number of such steps
        (WEEK, 1_000, 52),
        (WEEK, 103, None),
        (11 * HOUR, 10_000, None),
    ],
)
def test_the_season_is_the_shortest_of_which_training_holds_two(
    step_seconds: int, train_rows: int, season: int | None
) -> None:
    assert next(iter(seasons_within(FixedGrid(step_seconds), train_rows)), None) == season


def test_persistence_repeats_the_last_row_of_its_window() -> None:
    model = fitted("PERSISTENCE", made_series(300)).model

    forecast = model(np.array([[[1, 10, 100]], [[2, 20, 200]]], dtype=np.float32))

    assert isinstance(model, Repeat)
    assert forecast.shape == (2, STEPS, 3)
    assert (forecast == np.array([[[1, 10, 100]], [[2, 20, 200]]])).all()


def test_the_seasonal_forecast_begins_one_season_ago() -> None:
    baseline = fitted("SEASONAL_NAIVE", made_series(300))
    window = np.arange(144, dtype=np.float32)[None, :, None] * [1, 10, 100]

    assert baseline.window_rows == 144
    assert baseline.model(window)[0, :, 1].tolist() == [10 * row for row in range(STEPS)]


def test_a_season_shorter_than_a_pass_is_one_pass() -> None:
    series = made_series(300)
    hourly = Series(series.times[0] + HOUR * np.arange(300), series.columns, series.values, FixedGrid(HOUR))

    assert fitted("SEASONAL_NAIVE", hourly).model.rows == tuple(range(24))


def test_the_mean_is_of_what_was_observed_before_the_calibration_tail() -> None:
    series = made_series(100, columns=2)
    series.values[10:20, 1] = np.nan
    expected = np.nanmean(series.values[:90], axis=0)

    baseline = fitted("MEAN", series)

    assert isinstance(baseline.model, Constant)
    raw = baseline.model.values * baseline.recipe.scales + baseline.recipe.offsets
    np.testing.assert_allclose(raw, expected, rtol=1e-12)


def test_ridge_sees_every_feature_and_the_others_targets_only() -> None:
    series = made_series(300)
    given = {"targets": ("c1",), "lags_enable": True}
    ridge = fitted("RIDGE", series, **given)

    assert isinstance(ridge.model, RidgeModel)
    assert ridge.model.coefficients.shape == (4 * (3 + 6 + 3), 2 * 1)
    for kind in ("PERSISTENCE", "SEASONAL_NAIVE", "MEAN"):
        assert fitted(kind, series, **given).recipe.feature_names == ("c1",)
        assert fitted(kind, series, **given).recipe.forecasts_its_inputs


def test_constant_targets_stay_in_a_recipe_of_targets_and_constant_inputs_go() -> None:
    series = made_series(300, columns=4)
    series.values[:, 1], series.values[:, 2] = 7, 9
    recipe = fit_recipe(as_train(series), RecipeSpec(targets=("c0", "c1"), scaler="none"))

    own, seen = targets_only(recipe, transform(recipe, series))

    assert own.columns == ("c0", "c1")
    assert own.constants == {"c1": 7}
    assert set(own.dropped) == {"c2", "c3"}
    np.testing.assert_allclose(raw_rows(own, seen).values, series.values[:, :2], rtol=1e-12)
    assert type(own).from_dict(own.to_dict()) == own


def test_a_recipe_of_the_measured_columns_transforms_raw_rows_to_the_same_values() -> None:
    series = made_series(300, columns=4)
    series.values[:, 1], series.values[50:60, 2] = 7, np.nan
    spec = RecipeSpec(targets=("c2", "c0"), scaler="none", clip_enable=True, lags_enable=True, lags_n=3)
    recipe = fit_recipe(as_train(series), spec)

    own, seen = measured_only(recipe, transform(recipe, series))

    assert (own.columns, own.targets, own.constants) == (recipe.columns, recipe.targets, {"c1": 7})
    assert (own.clip_lower, own.clip_upper) == (recipe.clip_lower, recipe.clip_upper)
    assert seen.values.min() == 0
    assert seen.values.max() == 1
    again = transform(own, series)
    np.testing.assert_allclose(again.values[-len(seen) :], seen.values, atol=1e-9)
    np.testing.assert_array_equal(again.imputed[-len(seen) :], seen.imputed)
    assert type(own).from_dict(own.to_dict()) == own


def test_a_window_of_targets_keeps_the_digits_of_values_far_from_zero() -> None:
    series = made_series(300, columns=1)
    far = Series(series.times, series.columns, 1e9 + series.values, series.grid)
    recipe = fit_recipe(as_train(far), RecipeSpec(scaler="none"))

    own, seen = targets_only(recipe, transform(recipe, far))

    single = Series(seen.times, own.columns, seen.values.astype(np.float32) * own.scales + own.offsets, FixedGrid(600))
    assert np.abs(single.values - far.values).max() < 1e-5


def test_what_a_data_set_does_not_have_is_said() -> None:
    short, wide = made_series(200), made_series(300, columns=60)
    gone = made_series(100, columns=2)
    gone.values[:90, 1] = np.nan
    for kind, series, shape, why in (
        ("SEASONAL_NAIVE", short, SHAPE, "two seasons"),
        ("SEASONAL_NAIVE", _by_the(30, wide), SHAPE, "a season of 2,880 rows and 60 targets"),
        ("RIDGE", wide, WindowShape(100, 1), "6,600 numbers"),
        ("RIDGE", wide, WindowShape(20, 1_000), "for 60,000 are too wide"),
        ("MEAN", gone, SHAPE, "no value before the calibration tail"),
    ):
        with pytest.raises(RejectedError, match=why):
            fitted(kind, series, shape, nans_threshold=0.95)


def _by_the(step_seconds: int, series: Series) -> Series:
    rows = 2 * DAY // step_seconds
    values = np.resize(series.values, (rows, series.values.shape[1]))
    return Series(step_seconds * np.arange(rows), series.columns, values, FixedGrid(step_seconds))
