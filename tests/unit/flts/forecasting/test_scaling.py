from __future__ import annotations

import numpy as np
import pytest
from sklearn import preprocessing

from flts.errors import RejectedError
from flts.forecasting.recipe import RecipeSpec, fit_recipe, scaled_rows
from flts.forecasting.scaling import UNBOUNDED, ClipMethod, Scaler, clip_bounds, offset_and_scale
from flts.forecasting.splits import as_train
from tests.made_series import make_series

HUNDRED = np.arange(1.0, 101.0)


@pytest.mark.parametrize("scaler", ["MinMaxScaler", "StandardScaler", "RobustScaler", "MaxAbsScaler"])
def test_scalers_agree_with_the_scikit_learn_ones_of_their_names(scaler: Scaler) -> None:
    train, later = make_series(300, seed=1), make_series(50, seed=2)
    theirs = getattr(preprocessing, scaler)().fit(train.values)

    recipe = fit_recipe(as_train(train), RecipeSpec(scaler=scaler))

    np.testing.assert_allclose(scaled_rows(recipe, train)[0], theirs.transform(train.values), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(scaled_rows(recipe, later)[0], theirs.transform(later.values), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scaler", ["MinMaxScaler", "StandardScaler", "RobustScaler", "MaxAbsScaler"])
def test_scalers_are_fitted_on_observed_cells_like_scikit_learn_s(scaler: Scaler) -> None:
    train = make_series(300, seed=3, missing=0.2)
    theirs = getattr(preprocessing, scaler)().fit(train.values)

    recipe = fit_recipe(as_train(train), RecipeSpec(scaler=scaler))

    ours, missing = scaled_rows(recipe, train)
    np.testing.assert_allclose(ours[~missing], theirs.transform(train.values)[~missing], rtol=1e-12, atol=1e-12)


def test_none_leaves_values_in_raw_units() -> None:
    train = make_series(50)

    recipe = fit_recipe(as_train(train), RecipeSpec(scaler="none"))

    np.testing.assert_array_equal(scaled_rows(recipe, train)[0], train.values)


def test_a_robust_range_of_zero_in_a_column_that_varies_gives_way_to_the_deviation() -> None:
    mostly_zero = np.array([0.0] * 9 + [10.0])

    assert offset_and_scale(mostly_zero, "RobustScaler") == (0.0, 3.0)


@pytest.mark.parametrize("scaler", ["MinMaxScaler", "StandardScaler", "RobustScaler", "MaxAbsScaler"])
def test_a_constant_has_itself_as_offset_and_the_scale_1(scaler: Scaler) -> None:
    # The computed mean of seven values 0.1 is not exactly 0.1, so the standard deviation is about 1e-17 instead of 0.
    # A division by it would give huge values.
    assert offset_and_scale(np.full(7, 0.1), scaler) == (0.1, 1.0)


@pytest.mark.parametrize(
    ("method", "factor", "lower", "upper"),
    [
        # numpy's and scikit-learn's linear quartiles of 1..100 are 25.75 and 75.25.
        ("iqr", 1.5, 25.75 - 1.5 * 49.5, 75.25 + 1.5 * 49.5),
        ("iqr", 0.1, 25.75 - 0.1 * 49.5, 75.25 + 0.1 * 49.5),
        ("percentile", 5, 5.95, 95.05),
        # The variance of 1..n is (n^2 - 1) / 12. Here n is 100.
        ("sigma", 2, 50.5 - 2 * (9999 / 12) ** 0.5, 50.5 + 2 * (9999 / 12) ** 0.5),
    ],
)
def test_clip_bounds_are_as_computed_by_hand(method: ClipMethod, factor: float, lower: float, upper: float) -> None:
    assert clip_bounds(HUNDRED, method, factor) == pytest.approx((lower, upper), rel=1e-12)


def test_bounds_that_fall_together_clip_nothing() -> None:
    mostly_zero = np.array([0.0] * 90 + [5.0] * 10)

    assert clip_bounds(mostly_zero, "iqr", 1.5) == (-UNBOUNDED, UNBOUNDED)


def test_percentiles_that_cut_everything_off_are_refused_naming_the_setting() -> None:
    with pytest.raises(RejectedError) as refused:
        clip_bounds(HUNDRED, "percentile", 50)

    assert refused.value.field == "CLIP_FACTOR"
