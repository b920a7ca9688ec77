from __future__ import annotations

import math

import numpy as np
import pytest

from eval_container.domain.step_scores import (
    StepBlock,
    best_baseline,
    block_scores,
    horizon_losses,
    horizon_score,
    scoreboard_blocks,
    step_blocks,
    step_divisors,
    step_scores,
)

WEIGHTS = (0.5, 0.3, 0.2)
DEVIATION = np.array([1.0])


def _all(errors: np.ndarray) -> np.ndarray:
    return np.ones(errors.shape, dtype=bool)


def _random(seed: int, scale: float = 1.0, shape: tuple[int, ...] = (50, 6, 2)) -> np.ndarray:
    return scale * np.random.default_rng(seed).standard_normal(shape)


def test_the_composite_of_a_step_by_hand() -> None:
    errors = np.array([[[3.0]], [[-1.0]]])  # MSE 5, MAE 2, RMSE sqrt(5)

    scores = step_scores(errors, _all(errors), WEIGHTS)

    assert scores.composite[0, 0] == pytest.approx(0.5 * math.sqrt(5) + 0.3 * 2 + 0.2 * 5)
    assert scores.means() == pytest.approx(
        {"rmse": math.sqrt(5), "mae": 2.0, "mse": 5.0, "composite": 0.5 * math.sqrt(5) + 1.6}
    )


def test_the_best_baseline_scores_one_and_half_of_its_error_scores_less() -> None:
    errors = _random(0)
    best = step_scores(errors, _all(errors), WEIGHTS)
    divisors = step_divisors(best, np.ones(2))

    assert horizon_score(best, divisors) == pytest.approx(1.0)
    half = step_scores(errors / 2, _all(errors), (0.0, 1.0, 0.0))
    by_mae = step_divisors(step_scores(errors, _all(errors), (0.0, 1.0, 0.0)), np.ones(2))
    assert horizon_score(half, by_mae) == pytest.approx(0.5)


def test_every_step_and_target_counts_alike() -> None:
    near_and_far = np.array([[[1.0, 10.0], [100.0, 1000.0]]])
    baseline = step_scores(near_and_far, _all(near_and_far), (0.0, 1.0, 0.0))
    better = near_and_far * np.array([[[0.5, 1.0], [1.0, 1.0]]])

    scores = step_scores(better, _all(better), (0.0, 1.0, 0.0))

    assert horizon_score(scores, step_divisors(baseline, np.ones(2))) == pytest.approx((0.5 + 3) / 4)


def test_a_baseline_without_error_divides_by_a_thousandth_of_the_deviation() -> None:
    exact = step_scores(np.zeros((3, 2, 1)), np.ones((3, 2, 1), dtype=bool), WEIGHTS)

    divisors = step_divisors(exact, np.array([5.0]))

    assert divisors.tolist() == [[0.005], [0.005]]
    assert horizon_score(exact, divisors) == 0.0


def test_the_best_baseline_has_the_lowest_composite_over_the_horizon() -> None:
    def scores(first: float, second: float):
        errors = np.array([[[first], [second]]])
        return step_scores(errors, _all(errors), WEIGHTS)

    assert best_baseline({"PERSISTENCE": scores(1, 9), "MEAN": scores(4, 4), "DAY": scores(5, 5)}) == "MEAN"
    assert best_baseline({"PERSISTENCE": scores(4, 4), "MEAN": scores(4, 4)}) == "PERSISTENCE"
    assert best_baseline({"PERSISTENCE": scores(math.nan, 1), "MEAN": scores(4, 4)}) == "MEAN"
    assert best_baseline({"PERSISTENCE": scores(math.nan, 1)}) is None


def test_the_mean_of_the_losses_is_the_score_even_with_missing_cells() -> None:
    errors, baseline = _random(1), _random(2, 1.3)
    known = np.random.default_rng(3).random(errors.shape) < 0.7
    known[:, 4, 1] = False
    errors[~known] = np.nan
    divisors = step_divisors(step_scores(baseline, known, WEIGHTS), np.ones(2))

    losses = horizon_losses(errors, known, WEIGHTS, divisors)

    scores = step_scores(errors, known, WEIGHTS)
    assert losses.shape == (50, 6)
    assert losses.mean() == pytest.approx(horizon_score(scores, divisors))
    assert scores.used.sum() == 11


def test_a_forecast_that_is_not_finite_has_no_score() -> None:
    errors = _random(4)
    divisors = step_divisors(step_scores(errors, _all(errors), WEIGHTS), np.ones(2))
    errors[7, 2, 1] = np.nan

    scores = step_scores(errors, _all(errors), WEIGHTS)

    assert math.isnan(horizon_score(scores, divisors))
    assert math.isnan(horizon_losses(errors, _all(errors), WEIGHTS, divisors).mean())


def test_held_out_rows_without_any_value_have_no_score() -> None:
    none = np.zeros((5, 2, 1), dtype=bool)
    scores = step_scores(np.full((5, 2, 1), np.nan), none, WEIGHTS)

    assert math.isnan(horizon_score(scores, step_divisors(scores, DEVIATION)))
    assert np.isnan(horizon_losses(np.full((5, 2, 1), np.nan), none, WEIGHTS, np.ones((2, 1)))).all()


@pytest.mark.parametrize(
    ("horizon", "texts"),
    [(1, ["1"]), (2, ["1", "2"]), (7, ["1", "2-3", "4-7"]), (24, ["1", "2-3", "4-7", "8-15", "16-24"])],
)
def test_blocks_of_steps_double_and_end_at_the_horizon(horizon: int, texts: list[str]) -> None:
    blocks = step_blocks(horizon)

    assert [block.text for block in blocks] == texts
    steps = [step for block in blocks for step in range(horizon)[block.steps]]
    assert steps == list(range(horizon))


def test_the_scoreboard_shows_the_path_to_the_end_of_each_season_inside_the_horizon() -> None:
    texts = [block.text for block in scoreboard_blocks(30, (168, 24))]

    assert texts == ["1", "2-3", "4-7", "8-15", "16-30", "1-24"]


def test_a_block_has_the_mean_of_its_steps() -> None:
    errors = np.array([[[1.0], [2.0], [6.0]]])
    baseline = np.array([[[2.0], [2.0], [2.0]]])
    weights = (0.0, 1.0, 0.0)
    divisors = step_divisors(step_scores(baseline, _all(baseline), weights), DEVIATION)

    scores = block_scores(
        step_scores(errors, _all(errors), weights), divisors, (StepBlock(1, 1), StepBlock(2, 3), StepBlock(1, 3))
    )

    assert scores == pytest.approx((0.5, 2.0, 1.5))
