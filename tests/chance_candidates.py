"""Count promotions on series where no model has skill: ``python -m tests.chance_candidates 200``.

A test in ``tests/unit/eval_container/domain/test_gate.py`` does the same with fewer series.
"""

from __future__ import annotations

import sys
from collections import Counter

import numpy as np

from eval_container.domain.gate import Contest, GateRules, Verdict, judge
from eval_container.domain.step_scores import best_baseline, horizon_losses, step_divisors, step_scores
from flts.forecasting.series import FloatArray, IntArray

HORIZON, SEASON, LAGS = 24, 24, 12
TRAIN_ROWS, TEST_ROWS = 2_000, 800
WEIGHTS = (0.5, 0.3, 0.2)


def forecasts(series: FloatArray, train: int, origins: IntArray) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    """Return the forecasts (n, HORIZON) of three baselines and of six candidates that are fitted on the first rows."""
    steps = np.arange(1, HORIZON + 1)
    fit = series[:train]
    last = series[origins - 1][:, None]
    seasonal = series[origins[:, None] - SEASON + (steps - 1) % SEASON]
    baselines = {
        "PERSISTENCE": np.repeat(last, HORIZON, axis=1),
        "MEAN": np.full((len(origins), HORIZON), fit.mean()),
        "SEASONAL_NAIVE": seasonal,
    }
    decay = np.polyfit(fit[:-1] - fit.mean(), fit[1:] - fit.mean(), 1)[0]
    smooth = series[origins[:, None] - 1 - np.arange(30)] @ (0.6 * 0.4 ** np.arange(30))
    changes = np.diff(fit)
    profile = changes[-(len(changes) // SEASON) * SEASON :].reshape(-1, SEASON).mean(axis=0)
    # The changes end at row `train` - 1; the change to row r is at place (r - train) of the season.
    places = (origins[:, None] - train + steps - 1) % SEASON
    luck = np.random.default_rng(len(series)).standard_normal((len(origins), HORIZON))
    candidates = {
        "SHRINKAGE": fit.mean() + (last - fit.mean()) * decay**steps,
        "DRIFT": last + steps * changes.mean(),
        "SMOOTHING": np.repeat(smooth[:, None], HORIZON, axis=1),
        "SEASONAL": last + profile[places].cumsum(axis=1),
        "DISTURBED": last + 0.02 * changes.std() * luck,
        "AUTOREGRESSION": _autoregression(series, train, origins),
    }
    return baselines, candidates


def _autoregression(series: FloatArray, train: int, origins: IntArray) -> FloatArray:
    """Return direct forecasts of all steps by a ridge on the last changes and the level."""
    windows = np.lib.stride_tricks.sliding_window_view(series, LAGS + HORIZON)

    def inputs(rows: IntArray) -> FloatArray:
        past = series[rows[:, None] - LAGS + np.arange(LAGS)]
        return np.c_[past - past[:, -1:], past[:, -1] - series[:train].mean(), np.ones(len(rows))]

    rows = np.arange(LAGS, train - HORIZON + 1)
    design, targets = inputs(rows), windows[rows - LAGS, LAGS:] - series[rows - 1][:, None]
    weights = np.linalg.solve(design.T @ design + 1e-3 * len(rows) * np.eye(LAGS + 2), design.T @ targets)
    answer: FloatArray = series[origins - 1][:, None] + inputs(origins) @ weights
    return answer


def judged(series: FloatArray, train: int = TRAIN_ROWS) -> tuple[str, dict[str, Verdict], FloatArray]:
    """Return the best baseline, the verdict on each candidate and the candidates' scores."""
    origins = np.arange(train, len(series) - HORIZON + 1)
    actual = series[origins[:, None] + np.arange(HORIZON)]
    scale = float(np.ptp(series[:train]))
    known = np.ones((*actual.shape, 1), dtype=bool)
    baselines, candidates = (
        {name: ((values - actual) / scale)[..., None] for name, values in part.items()}
        for part in forecasts(series, train, origins)
    )
    scores = {name: step_scores(errors, known, WEIGHTS) for name, errors in baselines.items()}
    best = best_baseline(scores)
    assert best is not None
    divisors = step_divisors(scores[best], np.array([series[:train].std() / scale]))
    losses, references = (
        {name: horizon_losses(errors, known, WEIGHTS, divisors) for name, errors in part.items()}
        for part in (candidates, baselines)
    )
    verdicts = {
        name: judge(
            Contest(own, references, origins), best, closed_form=True, candidates=len(losses), rules=GateRules()
        )
        for name, own in losses.items()
    }
    return best, verdicts, np.array([own.mean() for own in losses.values()])


def random_walk(seed: int) -> FloatArray:
    return np.random.default_rng(seed).standard_normal(TRAIN_ROWS + TEST_ROWS).cumsum()


def white_noise(seed: int) -> FloatArray:
    return np.random.default_rng(seed).standard_normal(TRAIN_ROWS + TEST_ROWS)


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    for make in (random_walk, white_noise):
        promoted, lucky = 0, 0
        best: Counter[str] = Counter()
        by_model: Counter[str] = Counter()
        for seed in range(runs):
            name, verdicts, scores = judged(make(seed))
            best[name] += 1
            passing = [model for model, verdict in verdicts.items() if not verdict.reasons]
            by_model.update(passing)
            promoted += bool(passing)
            lucky += bool((scores < 1).any())
        sys.stdout.write(
            f"{make.__name__}: {promoted} promotions in {runs} runs {dict(by_model)}; a candidate had the lower score "
            f"in {lucky}; best baselines {dict(best)}\n"
        )


if __name__ == "__main__":
    main()
