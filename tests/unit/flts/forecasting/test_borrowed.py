"""LINEAR's folds in the size of another model's errors."""

from __future__ import annotations

import numpy as np
import pytest

from flts.forecasting.borrowed import borrowed_folds, borrowed_intervals
from flts.forecasting.expanding import FoldResiduals
from flts.forecasting.intervals import calibrate
from flts.forecasting.series import FloatArray

RNG = np.random.default_rng(0)
LINEAR: FloatArray = RNG.normal(size=(50, 4, 2))


def fold(residuals: FloatArray) -> FoldResiduals:
    return FoldResiduals(3, np.arange(len(residuals)), residuals)


def test_each_block_and_target_has_the_size_of_the_model_s_errors() -> None:
    sizes = np.array([[2.0, 1.0], [3.0, 1.0], [3.0, 1.0], [1.5, 0.5]])  # steps 2 and 3 are one block

    [borrowed] = borrowed_folds(LINEAR * sizes, LINEAR, [fold(LINEAR[:5])]) or []

    assert borrowed.residuals == pytest.approx(LINEAR[:5] * sizes)


def test_missing_actuals_are_left_out_of_both() -> None:
    own, linear = 2 * LINEAR, LINEAR.copy()
    own[:10], linear[40:] = np.nan, np.nan

    [borrowed] = borrowed_folds(own, linear, [fold(LINEAR)]) or []

    assert borrowed.residuals == pytest.approx(2 * LINEAR)


def test_a_model_whose_errors_are_not_alike_borrows_nothing() -> None:
    noise = RNG.normal(size=LINEAR.shape)

    assert borrowed_folds(LINEAR + 0.3 * noise, LINEAR, [fold(LINEAR)]) is not None
    assert borrowed_folds(LINEAR + 0.7 * noise, LINEAR, [fold(LINEAR)]) is None
    assert borrowed_folds(-LINEAR, LINEAR, [fold(LINEAR)]) is None
    assert borrowed_folds(0 * LINEAR, LINEAR, [fold(LINEAR)]) is None
    assert borrowed_folds(LINEAR, 0 * LINEAR, [fold(LINEAR)]) is None
    assert borrowed_folds(np.nan * LINEAR, LINEAR, [fold(LINEAR)]) is None


def test_intervals_are_borrowed_in_the_same_size() -> None:
    sizes = np.array([[2.0, 1.0], [3.0, 1.0], [3.0, 1.0], [1.5, 0.5]])
    intervals = calibrate({1: LINEAR[:, 0], 4: LINEAR[:, 3]}, levels=[0.5])

    borrowed = borrowed_intervals(LINEAR * sizes, LINEAR, intervals)

    assert borrowed is not None
    assert borrowed.steps == (1, 4)
    assert borrowed.values == pytest.approx(intervals.values * sizes[[0, 3]])
    assert borrowed_intervals(-LINEAR, LINEAR, intervals) is None
    assert borrowed_intervals(LINEAR, LINEAR, calibrate({})) is None
