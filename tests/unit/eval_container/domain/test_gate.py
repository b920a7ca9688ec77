from __future__ import annotations

import math

import numpy as np
import pytest

from eval_container.domain.gate import (
    Advantage,
    GateRules,
    Reason,
    advantage,
    long_run_variance,
    skill,
    skill_reasons,
    student_upper_tail,
)
from eval_container.domain.scoring import origin_losses

WEIGHTS = (0.5, 0.3, 0.2)


def test_skill_is_the_share_of_persistences_score_that_is_saved() -> None:
    assert skill(0.03, 0.04) == pytest.approx(0.25)
    assert skill(0.05, 0.04) == pytest.approx(-0.25)


def test_nothing_has_skill_against_a_persistence_without_error() -> None:
    assert skill(0.1, 0.0) == -math.inf
    assert skill(0.0, 0.0) == 0.0


@pytest.mark.parametrize(
    ("statistic", "degrees", "tail"),
    # From a table of Student's t distribution: one-sided tails of 5 %, 2.5 % and 1 %.
    [(2.015, 5, 0.05), (1.812, 10, 0.05), (2.228, 10, 0.025), (2.364, 100, 0.01), (1.645, 100_000, 0.05)],
)
def test_the_upper_tail_agrees_with_the_tables(statistic: float, degrees: int, tail: float) -> None:
    assert student_upper_tail(statistic, degrees) == pytest.approx(tail, abs=0.002)
    assert student_upper_tail(-statistic, degrees) == pytest.approx(1 - tail, abs=0.002)


def test_the_long_run_variance_of_a_short_series_by_hand() -> None:
    values = np.array([1.0, 3.0, 2.0, 6.0])  # the mean is 3, the deviations from it are -2, 0, -1, 3

    # The autocovariance is (4 + 0 + 1 + 9) / 4 = 3.5 at lag 0 and (0 + 0 - 3) / 4 = -0.75 at lag 1. The estimator
    # counts lag 1 twice, with the weight 1/2.
    assert long_run_variance(values, lags=0) == pytest.approx(3.5)
    assert long_run_variance(values, lags=1) == pytest.approx(3.5 - 0.75)


def test_alike_neighbours_make_a_mean_less_certain() -> None:
    source = np.random.default_rng(1)
    noise = source.normal(size=2000)
    slow = np.convolve(noise, np.ones(8) / 8, mode="valid")
    shifted = slow - slow.mean() + 2 * slow.std() / math.sqrt(len(slow))

    taken_as_independent = shifted.mean() / math.sqrt(shifted.var() / len(shifted))
    tested = advantage(np.zeros(len(shifted)), shifted, horizon_steps=8)

    assert student_upper_tail(taken_as_independent, len(shifted)) < tested.p_value


def test_an_advantage_everywhere_is_certain_and_none_is_not() -> None:
    losses = np.full(50, 0.1)

    assert advantage(losses, losses + 0.1, horizon_steps=1).p_value == 0.0
    assert advantage(losses, losses, horizon_steps=1).p_value == 1.0
    assert advantage(losses + 0.1, losses, horizon_steps=1).p_value == 1.0


def test_a_systematic_difference_of_rounding_is_no_advantage() -> None:
    losses = np.random.default_rng(0).random(500)

    assert advantage(losses * (1 - 1e-8), losses, horizon_steps=1).p_value == 1.0


@pytest.mark.parametrize("origins", [0, 1])
def test_too_few_origins_prove_nothing(origins: int) -> None:
    assert advantage(np.zeros(origins), np.ones(origins), horizon_steps=1).p_value == 1.0


def test_origins_that_overlap_more_than_they_are_many_prove_nothing() -> None:
    assert advantage(np.zeros(10), np.ones(10) + np.arange(10), horizon_steps=10).p_value == 1.0


def test_a_score_that_is_not_finite_never_passes() -> None:
    reasons = skill_reasons(math.nan, 0.04, None, rules=GateRules(min_skill=-1), candidates=1)

    assert [reason.code for reason in reasons] == ["not_finite"]


def test_less_skill_than_asked_does_not_pass() -> None:
    certain = Advantage(0.01, 0.0, 100)

    reasons = skill_reasons(0.039, 0.04, certain, rules=GateRules(min_skill=0.1), candidates=1)

    assert [reason.code for reason in reasons] == ["no_skill"]


def test_skill_that_may_be_luck_does_not_pass_and_each_of_three_has_a_third_of_the_chance() -> None:
    likely = Advantage(0.01, 0.015, 100)

    alone = skill_reasons(0.03, 0.04, likely, rules=GateRules(), candidates=1)
    of_three = skill_reasons(0.03, 0.04, likely, rules=GateRules(), candidates=3)

    assert alone == ()
    assert [reason.code for reason in of_three] == ["skill_within_noise"]


def test_a_least_skill_below_zero_switches_the_test_off() -> None:
    hopeless = Advantage(-0.01, 1.0, 100)

    assert skill_reasons(0.05, 0.04, hopeless, rules=GateRules(min_skill=-0.5), candidates=3) == ()


def _losses(errors: np.ndarray) -> np.ndarray:
    cells = errors[:, None, None]
    return origin_losses(cells, known=np.ones_like(cells, dtype=bool), weights=WEIGHTS)[0]


def _passes(errors: list[np.ndarray], persistence: np.ndarray) -> bool:
    reference = _losses(persistence)
    for error in errors:
        losses = _losses(error)
        test = advantage(losses, reference, horizon_steps=1)
        reasons = skill_reasons(
            float(losses.mean()), float(reference.mean()), test, rules=GateRules(), candidates=len(errors)
        )
        if not reasons:
            return True
    return False


def _fit_and_score(series: np.ndarray, train_rows: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the errors of three autoregressions (10, 3 and 2 rows) and of persistence on the held-out rows."""
    windows = np.lib.stride_tricks.sliding_window_view(series, 11)
    inputs, targets = windows[:, :-1], windows[:, -1]
    held_out = np.arange(train_rows - 10, len(targets))
    errors = []
    for rows in (10, 3, 2):
        design = np.c_[inputs[:, -rows:], np.ones(len(inputs))]
        fitted, *_ = np.linalg.lstsq(design[: train_rows - 10], targets[: train_rows - 10], rcond=None)
        errors.append((targets - design @ fitted)[held_out])
    return errors, (targets - inputs[:, -1])[held_out]


def test_on_random_walks_at_most_one_run_of_twenty_promotes_anything() -> None:
    promoted = 0
    lucky = 0
    for seed in range(20):
        series = np.cumsum(np.random.default_rng(seed).normal(size=1250))
        errors, persistence = _fit_and_score(series / np.ptp(series[:1000]), 1000)
        promoted += _passes(errors, persistence)
        lucky += any(_losses(error).mean() < _losses(persistence).mean() for error in errors)

    assert promoted <= 1
    assert lucky >= 3, "without the test several of these would have been promoted"


def test_an_autoregression_that_is_there_passes_in_every_series() -> None:
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(size=1250)
        series = np.zeros(1250)
        for at in range(1, 1250):
            series[at] = 0.6 * series[at - 1] + noise[at]
        errors, persistence = _fit_and_score(series / np.ptp(series[:1000]), 1000)

        assert _passes(errors, persistence), seed


def test_a_long_reason_is_cut_for_the_event_and_whole_elsewhere() -> None:
    reason = Reason("training_failed", "ж" * 2_000)

    assert len(reason.as_text()) == 300
    assert reason.as_text().endswith(" ...")
    assert reason.as_dict()["message"] == "ж" * 2_000
