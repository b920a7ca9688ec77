from __future__ import annotations

import math

import numpy as np
import pytest

from eval_container.domain.scoring import (
    Contender,
    HeldOut,
    Pass,
    Scorecard,
    card_of,
    measure_contender,
    origins_for,
    plan_passes,
)
from eval_container.domain.step_scores import scoreboard_blocks, step_divisors
from flts.forecasting.intervals import Intervals
from flts.forecasting.series import FloatArray, IntArray

WEIGHTS = (0.5, 0.3, 0.2)


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


def test_many_passes_a_forecast_thin_the_origins() -> None:
    scored, _ = plan_passes(
        np.arange(4_000),
        [slice(0, 4_000)],
        first_row=0,
        scored_steps=range(1, 169),
        targets=2,
        season_steps=None,
        passes=168,
    )

    assert len(scored.origins) == 60_000 // 168
    assert (scored.origins[0], scored.origins[-1]) == (0, 4_000 - 168)


def _held_out(actual: FloatArray, *steps: int) -> HeldOut:
    origins = np.arange(1, len(actual) - max(steps) + 1)
    return HeldOut(
        values=actual[:, None],
        targets=("x",),
        scale=np.array([10.0]),
        naive_error=np.array([2.0]),
        weights=WEIGHTS,
        scored=Pass(steps, origins),
        blocks=scoreboard_blocks(max(steps)),
    )


def _score(contender: Contender, held_out: HeldOut) -> Scorecard:
    """Return a card in units of the repeated last value's errors."""
    best = measure_contender(_repeats(held_out.values[:, 0]), held_out).steps
    return card_of(measure_contender(contender, held_out), step_divisors(best, np.zeros(1)), held_out)


def _repeats(actual: FloatArray, **options: object) -> Contender:
    def forecast(origins: IntArray, horizon: int) -> FloatArray:
        return np.repeat(actual[origins - 1][:, None, None], horizon, axis=1)

    return Contender(forecast, **options)  # type: ignore[arg-type]


def test_a_table_row_by_hand() -> None:
    actual = np.array([0.0, 2.0, 2.0, 6.0])  # repeating the last value has the errors -2, 0, -4 (one step)

    card = _score(_repeats(actual), _held_out(actual, 1))

    (row,) = card.table
    assert (row["target"], row["step"], row["n"]) == ("x", 1, 3)
    assert (row["mae_raw"], row["mse_raw"]) == (2.0, pytest.approx(20 / 3))
    assert (row["mae"], row["mse"]) == (pytest.approx(0.2), pytest.approx(20 / 300))
    assert row["mase"] == 1.0
    assert row["mape"] == pytest.approx((1 + 0 + 4 / 6) / 3)
    assert row["r2"] == pytest.approx(1 - 20 / (32 / 3))
    assert card.composite == pytest.approx(0.5 * math.sqrt(20 / 300) + 0.3 * 0.2 + 0.2 * 20 / 300)
    assert (card.score, card.losses.mean(), card.blocks) == (pytest.approx(1), pytest.approx(1), (pytest.approx(1),))


def test_half_of_the_best_baselines_error_at_each_step_scores_less_than_half() -> None:
    actual = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])

    def ahead(origins: IntArray, horizon: int) -> FloatArray:
        steps = np.arange(1, horizon + 1)
        return (actual[origins - 1][:, None] + steps / 2)[..., None]

    card = _score(Contender(ahead), _held_out(actual, 1, 2, 3))

    assert card.score < 0.5, "the squared error is a quarter"
    assert all(0.45 < block < 0.5 for block in card.blocks)


def test_coverage_is_the_share_of_actuals_between_the_bounds() -> None:
    actual = np.array([0.0, 2.0, 2.0, 6.0])
    edge = np.array([[3.0]])

    card = _score(_repeats(actual, intervals=Intervals.between(0.9, (1,), -edge, edge)), _held_out(actual, 1))

    (row,) = card.coverage
    assert (row["coverage"], row["nominal"], row["low"]) == (pytest.approx(2 / 3), 0.9, True)


def test_only_the_scored_steps_enter_the_score() -> None:
    actual = np.array([0.0, 1.0, 2.0, 3.0, 4.0])

    card = _score(_repeats(actual), _held_out(actual, 2))

    assert card.mae == pytest.approx(0.2), "two steps after the last value the error is always 2"
    assert card.losses.mean() == pytest.approx(card.score)
    assert [row["step"] for row in card.table] == [2]


def test_a_contender_that_does_not_reach_a_step_says_so() -> None:
    actual = np.arange(40.0)
    held_out = _held_out(actual, 1)
    extra = Pass((10,), np.arange(1, 20))
    held_out = HeldOut(**{name: getattr(held_out, name) for name in held_out.__slots__} | {"informative": (extra,)})

    card = _score(_repeats(actual, max_horizon=5), held_out)

    assert card.notes == ("forecasts at most 5 steps",)
    assert {row["step"] for row in card.table} == {1}
