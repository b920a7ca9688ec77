from __future__ import annotations

import numpy as np
import pytest

from eval_container.domain.folds import fold_contests
from eval_container.domain.scoring import HeldOut, Pass
from flts.forecasting.folds import Fold
from tests.chance_folds import judged, random_walk, trend_and_season

ROWS = np.arange(40, 44)
ACTUAL = np.arange(8.0).reshape(4, 2, 1)
DIVISORS = np.array([[2.0], [4.0]])


def held_out(weights: tuple[float, float, float], steps: tuple[int, ...] = (1, 2)) -> HeldOut:
    return HeldOut(np.zeros((9, 1)), ("a",), np.array([10.0]), np.ones(1), weights, Pass(steps, np.arange(4)))


def fold(linear: float, persistence: float, mean: float) -> Fold:
    return Fold(ROWS, ACTUAL, ACTUAL + linear, {"PERSISTENCE": ACTUAL + persistence, "MEAN": ACTUAL + mean})


def test_losses_are_in_units_of_the_best_baseline_of_the_fold_with_the_steps_weighted_as_on_the_held_out_rows() -> None:
    [contest] = fold_contests([fold(3.0, 6.0, 12.0)], "PERSISTENCE", DIVISORS, held_out((0.0, 1.0, 0.0)))

    # The scaled error 0.6 is 0.3 and 0.15 of the divisors, 0.225 in the mean.
    assert contest.baselines["PERSISTENCE"] == pytest.approx(np.tile([0.3 / 0.225, 0.15 / 0.225], (4, 1)))
    assert contest.losses == pytest.approx(contest.baselines["PERSISTENCE"] / 2)
    assert contest.baselines["MEAN"] == pytest.approx(contest.baselines["PERSISTENCE"] * 2)
    assert contest.rows.tolist() == ROWS.tolist()


def test_steps_that_are_not_scored_and_cells_without_a_value_have_no_loss() -> None:
    hole = ACTUAL.copy()
    hole[1, 1] = np.nan
    made = Fold(ROWS, hole, ACTUAL + 3, {"PERSISTENCE": ACTUAL + 6})

    [contest] = fold_contests([made], "PERSISTENCE", DIVISORS, held_out((0.5, 0.3, 0.2), (2,)))

    assert contest.losses[:, 0].tolist() == [0, 0, 0, 0]
    assert contest.losses[1, 1] == 0
    assert contest.baselines["PERSISTENCE"].mean() == pytest.approx(1)


@pytest.mark.parametrize("persistence", [0.0, np.nan])
def test_a_fold_that_cannot_be_measured_by_the_best_baseline_is_left_out(persistence: float) -> None:
    folds = [fold(3.0, persistence, 12.0), fold(3.0, 6.0, np.nan)]

    [contest] = fold_contests(folds, "PERSISTENCE", DIVISORS, held_out((0.5, 0.3, 0.2)))

    assert set(contest.baselines) == {"PERSISTENCE"}


def test_linear_passes_on_monthly_values_with_trend_and_season_because_of_the_folds() -> None:
    values = trend_and_season(1)

    best, verdict, score = judged(values)
    _, without, _ = judged(values, with_folds=False)

    assert best == "SEASONAL_NAIVE"
    assert verdict.reasons == ()
    assert verdict.comparison is not None
    assert verdict.comparison.pieces == 4
    assert verdict.comparison.gain > 0.5
    assert score < 0.5
    assert [reason.code for reason in without.reasons] == ["skill_within_noise"]


def test_linear_does_not_pass_on_random_walks() -> None:
    verdicts = [judged(random_walk(seed))[1] for seed in range(20)]

    assert all(verdict.comparison is not None and verdict.comparison.pieces == 4 for verdict in verdicts)
    assert sum(not verdict.reasons for verdict in verdicts) <= 1
