"""Folds of training rows, the intervals of their residuals, and the number of forecasts behind them."""

from __future__ import annotations

import numpy as np
import pytest

from flts.forecasting.expanding import (
    FoldResiduals,
    calibrated_steps,
    few_windows,
    fold_intervals,
    fold_rows,
    independent_windows,
    most_origins,
    windows_metric,
)
from flts.forecasting.intervals import calibrate, nearest_steps
from flts.forecasting.series import FloatArray


def fold(residuals: FloatArray, first: int = 100, *, every: int = 1) -> FoldResiduals:
    return FoldResiduals(0, first + every * np.arange(len(residuals)), residuals)


def noise(rows: int, steps: int, targets: int = 1, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).normal(size=(rows, steps, targets))


def test_folds_are_fitted_on_their_first_rows_and_have_tails_of_their_own() -> None:
    folds = list(fold_rows(200, shares=(0.1, 0.2)))

    assert [(each.number, each.own.n_rows, each.end) for each in folds] == [
        (0, 80, 110),
        (1, 110, 140),
        (2, 140, 170),
        (3, 170, 200),
    ]
    assert (folds[0].own.fit_stop, folds[0].own.stop_stop) == (56, 64)


def test_rows_without_tails_or_rows_to_fit_on_have_no_folds() -> None:
    assert list(fold_rows(200, shares=(0.0, 0.1))) == []
    assert list(fold_rows(1, shares=(0.1, 0.1))) == []
    assert [each.number for each in fold_rows(4, shares=(0.1, 0.1))] == [2, 3]  # others: one row or none


@pytest.mark.parametrize(
    ("horizon", "steps"),
    [
        (1, [1]),
        (2, [1, 2]),
        (5, [1, 2, 5]),
        (12, [1, 2, 4, 8, 12]),
        (28, [1, 2, 4, 8, 16, 28]),
        (64, [1, 2, 4, 8, 16, 32, 64]),
    ],
)
def test_steps_double_up_to_the_horizon(horizon: int, steps: list[int]) -> None:
    assert calibrated_steps(horizon) == steps
    blocks = nearest_steps(steps)
    assert [position for block in blocks for position in range(block.start, block.stop)] == list(range(horizon))
    assert all(
        block.start < step <= block.stop or step - 1 in range(*block.indices(horizon))
        for step, block in zip(steps, blocks, strict=True)
    )


def test_quantiles_are_those_of_the_residuals_of_all_folds_in_the_steps_of_a_block() -> None:
    first, second = noise(30, 5, 2, seed=1), noise(20, 5, 2, seed=2)

    intervals = fold_intervals([fold(first), fold(second, 200)])

    assert intervals.steps == (1, 2, 5)
    both = np.concatenate([first, second])
    far = both[:, 3:].reshape(-1, 2)  # steps 4 and 5 are nearer to 5 than to 2
    expected = calibrate({1: both[:, 0], 2: both[:, 1:3].reshape(-1, 2), 5: far})
    np.testing.assert_array_equal(intervals.lower, expected.lower)
    np.testing.assert_array_equal(intervals.upper, expected.upper)
    assert intervals.at_level(0.5) == pytest.approx(
        np.array([np.median(each, axis=0) for each in (both[:, 0], both[:, 1:3].reshape(-1, 2), far)])
    )


def test_steps_that_the_folds_do_not_contain_three_times_are_not_calibrated() -> None:
    assert fold_intervals([fold(noise(40, 16))]).steps == (1, 2, 4, 8, 16)  # rows 100, 116 and 132
    assert fold_intervals([fold(noise(30, 16))]).steps == (1, 2, 4, 8)
    assert fold_intervals([fold(noise(30, 16)), fold(noise(1, 16), 300)]).steps == (1, 2, 4, 8, 16)
    assert fold_intervals([fold(noise(8, 4))]).steps == ()  # eight forecasts, although step 4 has 16 residuals
    assert fold_intervals([fold(noise(9, 4))]).steps == (1, 2, 4)
    assert fold_intervals([]).values is None


def test_forecasts_without_a_common_row_are_counted_for_the_target_that_has_the_fewest() -> None:
    residuals = noise(20, 4, 2)
    assert independent_windows([fold(residuals)], 4) == 5  # rows 100, 104, 108, 112, 116
    assert independent_windows([fold(residuals, every=3)], 4) == 10  # every second of 100, 103, 106 and so on
    residuals[4:12, 3, 1] = np.nan
    assert independent_windows([fold(residuals)], 4) == 3  # rows 100, 112, 116
    assert independent_windows([fold(residuals), fold(residuals, 300)], 1) == 40
    assert independent_windows([], 4) == 0


def test_a_bundle_with_fewer_than_20_forecasts_behind_its_intervals_has_a_warning() -> None:
    warning = few_windows(windows_metric(5))

    assert warning is not None
    assert warning.startswith("5 forecasts of the horizon without a common row are behind the intervals")
    assert few_windows(windows_metric(20)) is None
    assert few_windows({"val_loss": 1.0}) is None  # a bundle of an earlier release


def test_many_targets_have_fewer_origins() -> None:
    assert [most_origins(targets) for targets in (0, 1, 11, 100, 1_000)] == [256, 256, 256, 30, 16]
