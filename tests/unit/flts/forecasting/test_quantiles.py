from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flts.forecasting.intervals import LEVELS, Intervals, bounds, calibrate
from flts.forecasting.quantiles import median_offsets, quantiles

STEPS = (1, 3)
VALUES = np.array([[[-4.0], [-8.0]], [[-2.0], [-2.0]], [[1.0], [2.0]], [[3.0], [9.0]], [[5.0], [11.0]]])
INTERVALS = Intervals(0.8, STEPS, (0.1, 0.25, 0.5, 0.75, 0.9), VALUES)


def at(levels: list[float], horizon_steps: int = 1) -> list[list[float]]:
    found = quantiles(INTERVALS, horizon_steps, levels)
    assert found is not None
    rows: list[list[float]] = found[:, 0].tolist()
    return rows


def test_stored_quantiles_are_returned_and_others_interpolated_in_the_probability() -> None:
    # Between 0.25 (-2) and 0.5 (1), 0.35 is 0.4 of the way: -2 + 0.4 * 3.
    assert at([0.1, 0.25, 0.35, 0.5, 0.9]) == [pytest.approx([-4, -2, -0.8, 1, 5])]


def test_the_order_of_the_levels_is_that_of_the_request() -> None:
    assert at([0.9, 0.1]) == [[5, -4]]


def test_a_level_that_differs_in_the_last_digit_is_the_stored_one() -> None:
    edges = Intervals.between(0.9, (1,), np.array([[-1.0]]), np.array([[1.0]]))

    assert quantiles(edges, 1, [0.05, 0.5, 0.95]) == pytest.approx(np.array([[[-1, 0, 1]]]))


def test_quantiles_are_interpolated_between_steps_and_continue_outwards_only() -> None:
    # The slopes between steps 1 and 3 are -2, 0, 0.5, 3 and 3; the median stays as it is after step 3.
    assert at([0.1, 0.25, 0.5, 0.75, 0.9], 5) == [
        [-4, -2, 1, 3, 5],
        [-6, -2, 1.5, 6, 8],
        [-8, -2, 2, 9, 11],
        [-10, -2, 2, 12, 14],
        [-12, -2, 2, 15, 17],
    ]


def test_a_quantile_does_not_cross_the_end_of_the_interval_beyond_the_calibrated_steps() -> None:
    # 0.25 falls by 3 per step, the interval's lower end does not.
    values = np.array([[[-9.0], [-9.0]], [[-1.0], [-4.0]], [[4.0], [4.0]], [[6.0], [8.0]]])
    outer = Intervals(0.5, (1, 2), (0.05, 0.25, 0.75, 0.95), values)
    inner = Intervals(0.9, (1, 2), (0.05, 0.25, 0.75, 0.95), values)

    assert quantiles(outer, 5, [0.05, 0.25])[-1, 0].tolist() == [-13, -13]  # type: ignore[index]
    assert quantiles(inner, 5, [0.05, 0.25])[-1, 0].tolist() == [-9, -9]  # type: ignore[index]


def test_nothing_calibrated_gives_no_quantiles() -> None:
    assert quantiles(calibrate({}, levels=LEVELS), 3, [0.5]) is None
    assert median_offsets(calibrate({}, levels=LEVELS), np.array([1])) is None


def test_the_median_is_interpolated_and_stays_after_the_last_calibrated_step() -> None:
    offsets = median_offsets(INTERVALS, np.array([1, 2, 3, 9]))

    assert offsets is not None
    assert offsets[:, 0].tolist() == [1, 1.5, 2, 2]


@given(
    arrays(float, (4, 40, 2), elements=st.floats(-1e6, 1e6)),
    st.lists(st.integers(1, 50), min_size=4, max_size=4, unique=True),
    st.lists(st.floats(0.025, 0.975), min_size=1, max_size=20),
)
def test_quantiles_increase_and_those_of_the_ends_are_the_bounds(
    residuals: np.ndarray, steps: list[int], levels: list[float]
) -> None:
    intervals = calibrate(dict(zip(steps, residuals, strict=True)), levels=LEVELS)

    found = quantiles(intervals, 60, sorted([*levels, 0.05, 0.95]))
    ends = quantiles(intervals, 60, [0.05, 0.95])

    assert found is not None
    assert ends is not None
    assert (np.diff(found, axis=-1) >= 0).all()
    lower, upper = bounds(intervals, np.zeros((60, 2))) or (None, None)
    np.testing.assert_array_equal(ends[..., 0], lower)
    np.testing.assert_array_equal(ends[..., 1], upper)
