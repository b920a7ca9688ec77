from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flts.errors import RejectedError
from flts.forecasting.intervals import LEVELS as STORED
from flts.forecasting.intervals import Intervals, bounds, calibrate, calibration_steps

NAN = float("nan")


def column(values: list[float]) -> np.ndarray:
    return np.array(values, dtype=float)[:, None]


@pytest.mark.parametrize(
    ("tail_rows", "steps"),
    [
        (0, ()),
        (1, (1,)),
        (6, (1, 2)),
        (100, (1, 2, 5, 10, 30)),
        (180, (1, 2, 5, 10, 30, 60)),
        (1593, (1, 2, 5, 10, 30, 60, 120, 240, 480)),
    ],
)
def test_steps_are_calibrated_up_to_a_third_of_the_tail(tail_rows: int, steps: tuple[int, ...]) -> None:
    assert calibration_steps(tail_rows) == steps


def test_bounds_are_the_order_statistics_counted_by_hand() -> None:
    # For 99 residuals and 90 % coverage the bounds have the ranks floor(100 * 0.05) = 5 and ceil(100 * 0.95) = 95. The
    # residuals are 1 to 99, so each is its own rank.
    residuals = np.random.default_rng(0).permutation(np.arange(1.0, 100.0))

    intervals = calibrate({1: column(residuals.tolist())})

    assert intervals.lower is not None
    assert intervals.upper is not None
    assert (intervals.lower.tolist(), intervals.upper.tolist()) == ([[5]], [[95]])


def test_bounds_are_counted_from_outside_where_the_number_is_not_whole() -> None:
    # The bounds have the ranks floor((n + 1) * 0.05) and ceil((n + 1) * 0.95) among n residuals.
    for n, lower, upper in ((24, 1, 24), (48, 2, 47)):
        intervals = calibrate({1: column([float(value) for value in range(1, n + 1)])})
        assert intervals.lower is not None
        assert intervals.upper is not None
        assert (intervals.lower.item(), intervals.upper.item()) == (lower, upper)


def test_another_share_takes_other_order_statistics() -> None:
    # For 19 residuals and 80 % coverage the ranks are floor(20 * 0.1) = 2 and ceil(20 * 0.9) = 18.
    intervals = calibrate({1: column([float(value) for value in range(1, 20)])}, nominal=0.8)

    assert intervals.lower is not None
    assert intervals.upper is not None
    assert (intervals.lower.item(), intervals.upper.item()) == (2, 18)


def test_each_side_is_calibrated_by_itself_so_that_skewed_residuals_have_skewed_bounds() -> None:
    intervals = calibrate({1: column([-1.0] * 10 + [0.0] * 80 + [50.0] * 10)})

    lower, upper = bounds(intervals, np.array([[100.0]])) or (None, None)

    assert lower is not None
    assert upper is not None
    assert (lower.item(), upper.item()) == (99, 150)


def test_a_forecast_is_inside_its_interval_also_if_all_residuals_have_one_sign() -> None:
    quantiles = np.array([[2.0, -5.0, -1.0]]), np.array([[3.0, -4.0, 1.0]])
    mean = np.array([[10.0, 10.0, 10.0]])

    lower, upper = bounds(Intervals.between(0.9, (1,), *quantiles), mean) or (np.empty(0), np.empty(0))

    assert lower.tolist() == [[10.0, 5.0, 9.0]]
    assert upper.tolist() == [[13.0, 10.0, 11.0]]


def test_fewer_than_nine_residuals_give_no_bounds() -> None:
    eight = calibrate({1: column([1.0] * 8)})

    assert (eight.lower, eight.upper, eight.calibrated_steps) == (None, None, 0)
    assert bounds(eight, np.zeros((2, 1))) is None
    assert bounds(None, np.zeros((2, 1))) is None
    assert calibrate({1: column([1.0] * 9)}).calibrated_steps == 1


def test_missing_residuals_are_left_out_and_a_step_that_lacks_nine_is_not_calibrated() -> None:
    one = [*[float(value) for value in range(1, 100)], NAN, NAN]
    two = [1.0] * 8 + [NAN] * 93

    intervals = calibrate({2: np.column_stack([one, two]), 1: np.column_stack([one, one])})

    assert intervals.steps == (1,)
    assert intervals.lower is not None
    assert intervals.lower.tolist() == [[5, 5]]


def test_bounds_are_interpolated_between_calibrated_steps_and_widened_by_the_last_slope() -> None:
    intervals = Intervals.between(0.9, (1, 3), np.array([[-1.0], [-2.0]]), np.array([[1.0], [5.0]]))

    lower, upper = bounds(intervals, np.full((5, 1), 10.0)) or (np.empty(0), np.empty(0))

    assert lower[:, 0].tolist() == [9, 8.5, 8, 7.5, 7]
    assert upper[:, 0].tolist() == [11, 13, 15, 17, 19]


def test_a_last_slope_that_would_narrow_the_interval_is_not_followed() -> None:
    intervals = Intervals.between(0.9, (1, 2), np.array([[-3.0], [-1.0]]), np.array([[3.0], [1.0]]))

    lower, upper = bounds(intervals, np.zeros((9, 1))) or (np.empty(0), np.empty(0))

    assert lower[:, 0].tolist() == [-3, *[-1] * 8]
    assert upper[:, 0].tolist() == [3, *[1] * 8]


def test_rows_of_a_longer_forecast_have_the_bounds_of_their_own_step() -> None:
    intervals = Intervals.between(0.9, (1, 3), np.array([[-1.0], [-2.0]]), np.array([[1.0], [5.0]]))
    whole = bounds(intervals, np.zeros((6, 1))) or (np.empty(0), np.empty(0))

    part = bounds(intervals, np.zeros((2, 1)), first_step=5) or (np.empty(0), np.empty(0))

    np.testing.assert_array_equal(part[0], whole[0][4:])
    np.testing.assert_array_equal(part[1], whole[1][4:])


def test_bounds_of_one_target_are_not_lent_to_others() -> None:
    with pytest.raises(RejectedError) as refused:
        bounds(calibrate({1: column([1.0] * 9)}), np.zeros((2, 3)))

    assert refused.value.code == "bad_shape"


def test_more_quantiles_are_the_order_statistics_counted_by_hand() -> None:
    # Ranks among 99 residuals: floor(100 p) below 0.5, ceil(100 p) above it; the residuals are 1 to 99.
    intervals = calibrate({1: column([float(value) for value in range(1, 100)])}, levels=STORED)

    assert intervals.probabilities == pytest.approx(STORED)
    assert intervals.values is not None
    assert intervals.values[:, 0, 0].tolist() == [1, 2, 5, 10, 25, 50, 75, 90, 95, 98, 99]
    assert intervals.lower is not None
    assert intervals.lower.tolist() == [[5]]


def test_the_median_of_an_even_number_of_residuals_is_between_the_middle_two() -> None:
    intervals = calibrate({1: column([float(value) for value in range(1, 11)])}, levels=[0.5])

    assert intervals.at_level(0.5) == pytest.approx(np.array([[5.5]]))


@pytest.mark.parametrize(
    ("residuals", "lowest"), [(9, 0.05), (18, 0.05), (38, 0.05), (39, 0.025), (98, 0.025), (99, 0.01)]
)
def test_a_quantile_without_a_rank_of_its_own_is_left_out(residuals: int, lowest: float) -> None:
    many = column([0.0] * 200)
    few = column([0.0] * residuals + [NAN] * (200 - residuals))

    intervals = calibrate({1: many, 2: few}, levels=STORED)

    assert intervals.steps == (1, 2)
    assert intervals.probabilities == pytest.approx([level for level in STORED if lowest <= level <= 1 - lowest])


def test_quantiles_around_the_median_are_those_of_a_forecast_that_was_moved_by_it() -> None:
    values = np.array([[[-1.0]], [[2.0]], [[4.0]]])
    intervals = Intervals(0.9, (1,), (0.05, 0.5, 0.95), values)

    assert intervals.around(0.5).values == pytest.approx(values - 2)
    assert intervals.around(0.3) is intervals


@given(
    arrays(float, (5, 12, 2), elements=st.floats(-1e6, 1e6)),
    st.lists(st.integers(1, 50), min_size=5, max_size=5, unique=True),
)
def test_an_interval_is_never_negative_at_any_step(residuals: np.ndarray, steps: list[int]) -> None:
    intervals = calibrate(dict(zip(steps, residuals, strict=True)))

    lower, upper = bounds(intervals, np.zeros((120, 2))) or (np.empty(0), np.empty(0))

    assert (lower <= upper).all()


def test_a_new_residual_of_the_same_kind_is_covered_as_often_as_promised() -> None:
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(400):
        intervals = calibrate({1: rng.exponential(size=(60, 1)) - 1})
        lower, upper = bounds(intervals, np.zeros((1, 1))) or (np.empty(0), np.empty(0))
        new = rng.exponential(size=200) - 1
        covered.append(((new >= lower.item()) & (new <= upper.item())).mean())

    assert 0.9 <= np.mean(covered) <= 0.93


def test_intervals_survive_json() -> None:
    for intervals in (calibrate({1: column([0.1] * 9 + [0.3]), 2: column([0.2] * 9)}), calibrate({})):
        copy = Intervals.from_dict(json.loads(json.dumps(intervals.to_dict(), allow_nan=False)))
        assert copy.to_dict() == intervals.to_dict()


@pytest.mark.parametrize(
    "change",
    [
        {"steps": [2, 1]},
        {"steps": [0, 1]},
        {"steps": [1]},
        {"steps": None},
        {"nominal": 1},
        {"lower": None},
        {"lower": [[2.0], [0.0]]},
        {"lower": [[None], [0.0]]},
        {"lower": [0.0, 0.0]},
        {"upper": [[float("inf")], [1.0]]},
        {"upper": [[1.0, 1.0], [1.0, 1.0]]},
    ],
)
def test_intervals_that_make_no_sense_are_refused(change: dict[str, object]) -> None:
    good = {"nominal": 0.9, "steps": [1, 2], "lower": [[-1.0], [-1.0]], "upper": [[1.0], [1.0]]}
    assert Intervals.from_dict(good).calibrated_steps == 2

    with pytest.raises(RejectedError) as refused:
        Intervals.from_dict({**good, **change})

    assert refused.value.code == "bad_intervals"


LEVELS = (0.01, 0.05, 0.5, 0.95, 0.99)
VALUES = np.array([[[-3.0], [-9]], [[-2], [-6]], [[0.5], [1]], [[2], [6]], [[4], [9]]])


def test_of_several_quantiles_the_nominal_two_are_the_bounds() -> None:
    head = Intervals(0.9, (1, 4), LEVELS, None)
    assert bounds(head, np.zeros((2, 1))) is None

    intervals = Intervals.from_head(json.loads(json.dumps(head.to_head()))).with_values(VALUES)

    lower, upper = bounds(intervals, np.zeros((4, 1))) or (np.empty(0), np.empty(0))
    assert lower[[0, 3], 0].tolist() == [-2, -6]
    assert upper[[0, 3], 0].tolist() == [2, 6]
    assert intervals.calibrated_steps == 4
    assert not intervals.has_only_edges
    assert Intervals.between(0.9, (1,), np.zeros((1, 1)), np.ones((1, 1))).has_only_edges


def test_targets_are_selected_in_every_quantile() -> None:
    intervals = Intervals(0.9, (1, 4), LEVELS, np.concatenate([VALUES, 10 * VALUES], axis=2))

    assert np.array_equal(intervals.select([1]).values, 10 * VALUES)


@pytest.mark.parametrize(
    "change",
    [
        {"probabilities": [0.05, 0.5]},
        {"probabilities": [0.05, 0.95, 0.5]},
        {"probabilities": [0.0, 0.05, 0.95]},
        {"probabilities": []},
        {"probabilities": None},
        {"nominal": 0.8},
        {"steps": [4, 1]},
        {"more": 1},
    ],
)
def test_heads_that_make_no_sense_are_refused(change: dict[str, object]) -> None:
    good = Intervals(0.9, (1, 4), LEVELS, None).to_head()

    with pytest.raises(RejectedError) as refused:
        Intervals.from_head({**good, **change})

    assert refused.value.code == "bad_intervals"


@pytest.mark.parametrize("values", [VALUES[::-1], VALUES[:4], VALUES[:, :1], VALUES[..., 0], VALUES + np.nan])
def test_values_of_another_shape_or_order_are_refused(values: np.ndarray) -> None:
    with pytest.raises(RejectedError):
        Intervals(0.9, (1, 4), LEVELS, None).with_values(values)
