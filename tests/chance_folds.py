"""Count promotions of closed forms on short series without skill, with folds: ``python -m tests.chance_folds 200``.

A test in ``tests/unit/eval_container/domain/test_folds.py`` does the same with fewer series.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from itertools import product

import numpy as np

from eval_container.domain.folds import fold_contests
from eval_container.domain.gate import Contest, GateRules, Verdict, judge
from eval_container.domain.scoring import HeldOut, Pass
from eval_container.domain.step_scores import best_baseline, horizon_losses, step_divisors, step_scores
from flts.forecasting.folds import ClosedForm, expanding_folds, forecast_after
from flts.forecasting.grid import MonthGrid
from flts.forecasting.linear.folds import LINEAR_FORM
from flts.forecasting.recipe import RecipeSpec, fit_recipe, transform
from flts.forecasting.series import FloatArray, Series
from flts.forecasting.splits import as_train, tails
from flts.forecasting.theta.folds import THETA_FORM

ROWS, TRAIN_ROWS, HORIZON, SEASON = 132, 105, 12, 12
SHARES = (0.1, 0.1)
WEIGHTS = (0.5, 0.3, 0.2)
FIRST = 473_385_600  # 1985-01-01 UTC


def monthly(values: FloatArray) -> Series:
    grid = MonthGrid(1)
    times = np.concatenate([[FIRST], grid.after(np.array([FIRST]), len(values) - 1)[0]])
    return Series(times, ("value",), values[:, None], grid)


def judged(
    values: FloatArray, closed_form: ClosedForm = LINEAR_FORM, *, with_folds: bool = True
) -> tuple[str, Verdict, float]:
    """Return the best baseline, the verdict on a model and its score on the last rows of a monthly series."""
    series = monthly(values)
    run = fit_recipe(as_train(series.rows(0, TRAIN_ROWS)), RecipeSpec())
    everything = transform(run, series)
    recipe, rows = closed_form.own_rows(run, everything)
    own = tails(TRAIN_ROWS, stop_tail=SHARES[0], calibration_tail=SHARES[1])
    test = forecast_after(closed_form, own, recipe, rows, horizon=HORIZON, season=SEASON, most=1_000)
    scored = Pass(tuple(range(1, HORIZON + 1)), test.rows)
    held_out = HeldOut(series.values, ("value",), run.scales_of_targets, np.ones(1), WEIGHTS, scored)
    known = np.ones(test.actual.shape, dtype=bool)
    errors = {name: (forecast - test.actual) / run.scales_of_targets for name, forecast in test.baselines.items()}
    scores = {name: step_scores(each, known, WEIGHTS) for name, each in errors.items()}
    best = best_baseline(scores)
    assert best is not None
    divisors = step_divisors(scores[best], values[:TRAIN_ROWS].std(keepdims=True) / run.scales_of_targets)
    losses = {name: horizon_losses(each, known, WEIGHTS, divisors) for name, each in errors.items()}
    own_losses = horizon_losses((test.candidate - test.actual) / run.scales_of_targets, known, WEIGHTS, divisors)
    features = transform(run, series.rows(0, TRAIN_ROWS))
    folds = expanding_folds(
        closed_form,
        run,
        features,
        horizon=HORIZON,
        shares=SHARES,
        season=SEASON,
        most=1_000,
        alive=lambda: None,
    )
    verdict = judge(
        Contest(own_losses, losses, test.rows),
        best,
        closed_form=True,
        candidates=1,
        rules=GateRules(),
        folds=fold_contests(folds, best, divisors, held_out) if with_folds else (),
    )
    return best, verdict, float(own_losses.mean())


def random_walk(seed: int) -> FloatArray:
    return np.random.default_rng(seed).standard_normal(ROWS).cumsum()


def white_noise(seed: int) -> FloatArray:
    return np.random.default_rng(seed).standard_normal(ROWS)


def trend_and_season(seed: int) -> FloatArray:
    """Return monthly values that double in eleven years, with a season of a fifth and noise of 2 %."""
    at = np.arange(ROWS)
    noise = np.random.default_rng(seed).standard_normal(ROWS)
    values: FloatArray = 100 * (1 + at / ROWS) * (1 + 0.2 * np.sin(2 * np.pi * at / SEASON) + 0.02 * noise)
    return values


FORMS = {"LINEAR": LINEAR_FORM, "THETA": THETA_FORM}
MAKERS: tuple[Callable[[int], FloatArray], ...] = (random_walk, white_noise, trend_and_season)


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    for make, (model_type, closed_form) in product(MAKERS, FORMS.items()):
        best: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        pieces: Counter[int] = Counter()
        for seed in range(runs):
            name, verdict, _ = judged(make(seed), closed_form)
            best[name] += 1
            reasons[verdict.reasons[0].code if verdict.reasons else "promoted"] += 1
            pieces[verdict.comparison.pieces if verdict.comparison else 0] += 1
        sys.stdout.write(
            f"{make.__name__}, {model_type}: {reasons['promoted']} promotions in {runs} runs; {dict(reasons)}; best "
            f"baselines {dict(best)}; pieces {dict(pieces)}\n"
        )


if __name__ == "__main__":
    main()
