"""The factor by which matured errors widen intervals."""

from __future__ import annotations

import numpy as np
import pytest

from flts.forecasting.intervals import LEVELS, Intervals, calibrate
from flts.forecasting.matured import LEAST_FACTOR, MOST_FACTOR, OWN_WINDOWS, mean_squares, widened
from flts.forecasting.series import FloatArray

NONE = np.zeros(1)
"""Shares of the least value of a series whose values differ."""


def intervals(steps: tuple[int, ...] = (1, 2, 4), scale: float = 1.0) -> Intervals:
    noise = scale * np.random.default_rng(0).normal(size=(4_000, 1))
    return calibrate(dict.fromkeys(steps, noise), levels=LEVELS)


def factors(errors: FloatArray, *, spanned: int = 400, minima: FloatArray = NONE) -> FloatArray:
    own = intervals()
    found = widened(own, errors, spanned=spanned, minima=minima)
    assert found is not None
    assert found.values is not None
    assert own.values is not None
    ratios = found.values / own.values
    assert ratios == pytest.approx(np.broadcast_to(ratios[:1], ratios.shape))  # all quantiles of a step alike
    return ratios[0, :, 0]


def test_the_mean_square_is_that_of_the_distribution_with_these_quantiles() -> None:
    assert mean_squares(intervals()) == pytest.approx(np.ones((3, 1)), rel=0.05)
    assert mean_squares(intervals(scale=3.0)) == pytest.approx(9 * np.ones((3, 1)), rel=0.05)
    two = Intervals.between(0.9, (1,), np.array([[-1.0]]), np.array([[1.0]]))
    assert mean_squares(two) == pytest.approx(np.array([[0.9 / 3 + 0.1]]))


def test_errors_of_twice_the_size_widen_the_nearer_by_the_more_forecasts_there_are() -> None:
    own = mean_squares(intervals())[:, 0]
    errors = np.full((400, 4, 1), 2.0)

    found = factors(errors, spanned=400)

    # Step 1 has 400 forecasts without a common row; steps 2 and 3 are 2.5 rows long in the middle, and step 4 four.
    windows = np.array([400, 398.5 / 2.5, 397 / 4])
    windows[1] = (400 - 2.5 + 1) / 2.5
    expected = np.sqrt((windows * 4 / own + OWN_WINDOWS) / (windows + OWN_WINDOWS))
    assert found == pytest.approx(expected)
    assert (factors(errors, spanned=20) < found).all()


def test_the_factor_is_bounded() -> None:
    assert factors(np.full((400, 4, 1), 1e6)) == pytest.approx(np.full(3, MOST_FACTOR))
    assert factors(np.zeros((400, 4, 1))) == pytest.approx(np.full(3, LEAST_FACTOR))


def test_a_series_of_many_equal_least_values_is_never_narrowed() -> None:
    calm, wild = np.zeros((400, 4, 1)), np.full((400, 4, 1), 2.0)

    assert factors(calm, minima=np.array([0.5])) == pytest.approx(np.ones(3))
    assert factors(wild, minima=np.array([0.5])) == pytest.approx(factors(wild))


def test_one_outlier_counts_as_much_as_four_times_the_usual_error() -> None:
    errors = np.random.default_rng(1).normal(size=(400, 4, 1))
    outlier, four = errors.copy(), errors.copy()
    outlier[7], four[7] = 1e9, 4 * np.sqrt(mean_squares(intervals())[0, 0])

    assert factors(outlier) == pytest.approx(factors(four))


def test_steps_without_a_matured_forecast_stay_as_they_are() -> None:
    errors = np.full((400, 4, 1), 2.0)
    errors[:, 3:] = np.nan

    assert factors(errors)[2] == 1
    assert factors(errors)[0] > 1.5


def test_without_any_matured_forecast_there_is_nothing_to_widen() -> None:
    nothing = np.full((3, 4, 1), np.nan)

    assert widened(intervals(), nothing, spanned=3, minima=NONE) is None
    assert widened(calibrate({}), np.zeros((3, 0, 1)), spanned=3, minima=NONE) is None
