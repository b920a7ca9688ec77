from __future__ import annotations

import math

import numpy as np
import pytest

from eval_container.domain.scoring import (
    Contender,
    HeldOut,
    Pass,
    origin_losses,
    origins_for,
    plan_passes,
    score,
)
from flts.forecasting.intervals import Intervals
from flts.forecasting.series import FloatArray, IntArray

WEIGHTS = (0.5, 0.3, 0.2)


def _known(errors: FloatArray) -> np.ndarray:
    return np.ones_like(errors, dtype=bool)


def test_the_mean_of_the_losses_is_the_score_by_hand() -> None:
    errors = np.array([3.0, -1.0, 1.0, 1.0])[:, None, None]  # MSE 3, MAE 1.5, RMSE sqrt(3)

    losses, rmse, mae, mse = origin_losses(errors, known=_known(errors), weights=WEIGHTS)

    assert (rmse, mae, mse) == pytest.approx((math.sqrt(3), 1.5, 3.0))
    assert losses.mean() == pytest.approx(0.5 * math.sqrt(3) + 0.3 * 1.5 + 0.2 * 3)
    assert losses[0] == pytest.approx(0.5 * (9 / (2 * math.sqrt(3)) + math.sqrt(3) / 2) + 0.3 * 3 + 0.2 * 9)


def test_targets_and_steps_count_alike_whatever_their_number_of_known_cells() -> None:
    errors = np.zeros((4, 1, 2))
    errors[:, 0, 0] = 1.0
    errors[:, 0, 1] = 3.0
    known = _known(errors)
    known[2:, 0, 1] = False
    errors[2:, 0, 1] = np.nan

    losses, rmse, mae, mse = origin_losses(errors, known=known, weights=WEIGHTS)

    assert (rmse, mae, mse) == (2.0, 2.0, 5.0)
    assert losses.mean() == pytest.approx(0.5 * 2 + 0.3 * 2 + 0.2 * 5)


def test_a_forecast_that_is_not_a_number_makes_the_score_none() -> None:
    errors = np.array([1.0, np.nan])[:, None, None]

    losses, rmse, _, _ = origin_losses(errors, known=_known(errors), weights=WEIGHTS)

    assert math.isnan(losses.mean())
    assert math.isnan(rmse)


def test_differences_of_losses_behave_like_differences_of_scores() -> None:
    source = np.random.default_rng(0)
    ours, theirs = source.normal(size=(2, 500, 1, 1))

    def losses(errors: FloatArray) -> FloatArray:
        return origin_losses(errors, known=_known(errors), weights=WEIGHTS)[0]

    difference = losses(ours) - losses(theirs)
    spread = [
        float(losses(ours[rows]).mean() - losses(theirs[rows]).mean())
        for rows in (source.integers(0, 500, 500) for _ in range(300))
    ]

    assert difference.std() / math.sqrt(500) == pytest.approx(float(np.std(spread)), rel=0.15)


def test_an_origin_has_its_whole_horizon_in_its_segment() -> None:
    segments = [slice(0, 10), slice(10, 20)]
    usable = np.array([3, 7, 8, 9, 12, 17, 18])

    assert origins_for(usable, segments, first_row=4, horizon=3).tolist() == [7, 12, 17]


def test_origins_are_thinned_evenly_with_both_ends() -> None:
    origins = origins_for(np.arange(100), [slice(0, 100)], first_row=0, horizon=1, limit=4)

    assert origins.tolist() == [0, 33, 66, 99]


def test_informative_steps_are_measured_where_the_rows_reach() -> None:
    scored, informative = plan_passes(
        np.arange(10, 100),
        [slice(0, 100)],
        first_row=20,
        scored_steps=(1, 2),
        targets=1,
        season_steps=24,
    )

    assert (scored.steps, scored.horizon, len(scored.origins)) == ((1, 2), 2, 79)
    assert [(extra.horizon, len(extra.origins)) for extra in informative] == [(10, 71), (24, 12), (60, 21)]


def _held_out(actual: FloatArray, *steps: int) -> HeldOut:
    origins = np.arange(1, len(actual) - max(steps) + 1)
    return HeldOut(
        actual=actual[:, None],
        targets=("x",),
        scale=np.array([10.0]),
        naive_error=np.array([2.0]),
        weights=WEIGHTS,
        scored=Pass(steps, origins),
    )


def _repeats(actual: FloatArray, **options: object) -> Contender:
    def forecast(origins: IntArray, horizon: int) -> FloatArray:
        return np.repeat(actual[origins - 1][:, None, None], horizon, axis=1)

    return Contender(forecast, **options)  # type: ignore[arg-type]


def test_a_table_row_by_hand() -> None:
    actual = np.array([0.0, 2.0, 2.0, 6.0])  # repeating the last value has the errors -2, 0, -4 (one step)

    card = score(_repeats(actual), _held_out(actual, 1))

    (row,) = card.table
    assert (row["target"], row["step"], row["n"]) == ("x", 1, 3)
    assert (row["mae_raw"], row["mse_raw"]) == (2.0, pytest.approx(20 / 3))
    assert (row["mae"], row["mse"]) == (pytest.approx(0.2), pytest.approx(20 / 300))
    assert row["mase"] == 1.0
    assert row["mape"] == pytest.approx((1 + 0 + 4 / 6) / 3)
    assert row["r2"] == pytest.approx(1 - 20 / (32 / 3))
    assert card.score == pytest.approx(0.5 * math.sqrt(20 / 300) + 0.3 * 0.2 + 0.2 * 20 / 300)


def test_coverage_is_the_share_of_actuals_between_the_bounds() -> None:
    actual = np.array([0.0, 2.0, 2.0, 6.0])
    edge = np.array([[3.0]])

    card = score(_repeats(actual, intervals=Intervals.between(0.9, (1,), -edge, edge)), _held_out(actual, 1))

    (row,) = card.coverage
    assert (row["coverage"], row["nominal"], row["low"]) == (pytest.approx(2 / 3), 0.9, True)


def test_only_the_scored_steps_enter_the_score() -> None:
    actual = np.array([0.0, 1.0, 2.0, 3.0, 4.0])

    card = score(_repeats(actual), _held_out(actual, 2))

    assert card.mae == pytest.approx(0.2), "two steps after the last value the error is always 2"
    assert [row["step"] for row in card.table] == [2]


def test_a_contender_that_does_not_reach_a_step_says_so() -> None:
    actual = np.arange(40.0)
    held_out = _held_out(actual, 1)
    extra = Pass((10,), np.arange(1, 20))
    held_out = HeldOut(**{name: getattr(held_out, name) for name in held_out.__slots__} | {"informative": (extra,)})

    card = score(_repeats(actual, max_horizon=5), held_out)

    assert card.notes == ("forecasts at most 5 steps",)
    assert {row["step"] for row in card.table} == {1}
