from __future__ import annotations

import numpy as np
import pytest

from eval_container.domain.many_series import MOST_SHOWN, WORST, many_series
from eval_container.domain.promotion import Candidate
from eval_container.domain.scoring import Scorecard
from eval_container.domain.step_scores import horizon_score, step_scores, target_scores
from flts.forecasting.series import FloatArray

SERIES = 100
NAMES = tuple(f"s{at}" for at in range(SERIES))
SCORES = np.random.default_rng(0).permutation(SERIES) / 50


def candidate(scores: FloatArray, model_type: str = "LINEAR") -> Candidate:
    rows = tuple({"target": name, "step": 1, "coverage": 0.9} for name in NAMES[: len(scores)])
    mean = float(scores.mean())
    losses = np.full((3, 1), mean)
    card = Scorecard(mean, mean, mean, mean, mean, losses, (mean,), 0, table=rows, coverage=rows, by_target=scores)
    return Candidate(model_type, card=card)


def test_few_series_are_shown_one_by_one() -> None:
    assert many_series(NAMES[:MOST_SHOWN], "LINEAR", [candidate(SCORES[:MOST_SHOWN])]) is None


def test_of_many_series_those_on_which_the_winner_is_worst_are_shown() -> None:
    winner, other = candidate(SCORES), candidate(SCORES[::-1].copy(), "GRU")

    many = many_series(NAMES, "LINEAR", [other, winner])

    assert many is not None
    assert [SCORES[NAMES.index(name)] for name in many.shown] == sorted(SCORES, reverse=True)[:WORST]
    assert winner.card is not None
    figures = many.of(winner.card)
    assert {row["target"] for row in figures["table"]} == {row["target"] for row in figures["coverage"]}
    assert len(figures["table"]) == WORST
    short = figures["series"]
    assert (short["scored"], short["better"]) == (SERIES, 50)
    assert short["quantiles"]["0.5"] == pytest.approx(0.99)
    assert list(short["worst"].values()) == sorted(SCORES, reverse=True)[:WORST]


def test_a_series_without_a_held_out_value_has_no_score() -> None:
    scores = SCORES.copy()
    scores[7] = np.nan

    many = many_series(NAMES, "LINEAR", [one := candidate(scores)])

    assert many is not None
    assert one.card is not None
    assert "s7" not in many.shown
    assert many.of(one.card)["series"]["scored"] == SERIES - 1


def test_the_score_is_the_mean_of_the_scores_of_the_targets() -> None:
    rng = np.random.default_rng(1)
    scores = step_scores(rng.normal(size=(20, 6, 3)), np.ones((20, 6, 3), dtype=bool), (0.5, 0.3, 0.2))
    divisors = rng.uniform(0.5, 2, (6, 3))

    assert target_scores(scores, divisors).mean() == pytest.approx(horizon_score(scores, divisors))
