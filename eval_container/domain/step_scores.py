"""Score forecasts over the served horizon, in units of the best baseline's error at each step.

The errors of far steps are larger than those of near ones, so a plain mean would score little but the far end. Divided
by the best baseline's error at the same step and target, every step counts alike: 1.0 is the best baseline.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flts.forecasting.series import BoolArray, FloatArray

LEAST_DIVISOR = 0.001
"""Share of the training deviation; a baseline without error does not make every other forecast infinitely bad."""


@dataclass(frozen=True, slots=True, eq=False)
class StepScores:
    """The errors of a forecast at each step and target, (H, m)."""

    rmse: FloatArray
    mae: FloatArray
    mse: FloatArray
    composite: FloatArray
    """The weighted sum of the three."""
    used: BoolArray
    """Steps and targets with an actual value; all means are over these."""

    def means(self) -> dict[str, float]:
        """Return the means over the horizon and the targets, as events and pointer name them."""
        return {name: _mean(getattr(self, name), self.used) for name in ("rmse", "mae", "mse", "composite")}


@dataclass(frozen=True, slots=True, order=True)
class StepBlock:
    """Steps that the scoreboard shows and the gate tests together, 1-based and inclusive."""

    first: int
    last: int

    @property
    def text(self) -> str:
        """The steps in words: ``1``, ``2-3``."""
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"

    @property
    def steps(self) -> slice:
        """The positions of the steps in an array (..., H)."""
        return slice(self.first - 1, self.last)


def step_scores(errors: FloatArray, known: BoolArray, weights: tuple[float, float, float]) -> StepScores:
    """Measure a forecast at each step and target.

    Parameters
    ----------
    errors : (n, H, m)
        Scaled errors of n origins; not used where ``known`` is false.
    known : (n, H, m)
        Cells with an actual value.
    weights : (3,)
        Of RMSE, MAE and MSE (``SCORE_WEIGHTS``).
    """
    count = known.sum(axis=0)
    error = np.where(known, errors, 0.0)
    divisor = np.maximum(count, 1)
    mse = np.square(error).sum(axis=0) / divisor
    mae = np.abs(error).sum(axis=0) / divisor
    rmse = np.sqrt(mse)
    by_rmse, by_mae, by_mse = weights
    return StepScores(rmse, mae, mse, by_rmse * rmse + by_mae * mae + by_mse * mse, count > 0)


def best_baseline(baselines: Mapping[str, StepScores]) -> str | None:
    """Return the name of the baseline with the lowest composite over the horizon, of equal ones the first.

    A baseline whose forecasts are not finite is left out; None if there is no other. Seasonal-naive takes part once for
    each season.
    """
    means = {name: _mean(scores.composite, scores.used) for name, scores in baselines.items()}
    finite = [name for name, mean in means.items() if math.isfinite(mean)]
    return min(finite, key=means.__getitem__, default=None)


def step_divisors(best: StepScores, deviation: FloatArray) -> FloatArray:
    """Return the errors (H, m) that are counted as 1.

    Parameters
    ----------
    best : StepScores
        Of the best baseline.
    deviation : (m,)
        Standard deviation of each target in the training rows, scaled.
    """
    divisors: FloatArray = np.maximum(best.composite, LEAST_DIVISOR * deviation)
    return np.where(divisors > 0, divisors, 1.0)


def horizon_score(scores: StepScores, divisors: FloatArray) -> float:
    """Return the mean over steps and targets of the composite in units of ``divisors``, (H, m).

    Lower is better. NaN if a forecast was not finite or no cell has an actual value.
    """
    return _mean(scores.composite / divisors, scores.used)


def target_scores(scores: StepScores, divisors: FloatArray) -> FloatArray:
    """Return `horizon_score` of each target (m,); NaN for a target without an actual value."""
    counts = scores.used.sum(axis=0)
    sums = np.where(scores.used, scores.composite / divisors, 0.0).sum(axis=0)
    means: FloatArray = np.where(counts > 0, sums / np.maximum(counts, 1), math.nan)
    return means


def horizon_losses(
    errors: FloatArray, known: BoolArray, weights: tuple[float, float, float], divisors: FloatArray
) -> FloatArray:
    """Return the losses (n, H) of each origin and step, whose mean is `horizon_score`.

    RMSE is not a mean over origins. ``e ** 2 / (2 RMSE) + RMSE / 2`` has RMSE as its mean and is the tangent of the
    root, so differences of these losses behave like differences of scores (delta method). A cell without an actual
    value has no loss; the other origins of its step and target count for more.

    Parameters
    ----------
    errors, known : (n, H, m)
        See `step_scores`.
    divisors : (H, m)
        See `step_divisors`.
    """
    count = known.sum(axis=0)
    used = count > 0
    error = np.where(known, errors, 0.0)
    rmse = np.sqrt(np.square(error).sum(axis=0) / np.maximum(count, 1))
    by_rmse, by_mae, by_mse = weights
    # The cells are weighted so that the mean of `losses` is the mean over the used steps and targets.
    n, horizon, _ = errors.shape
    weight = n * horizon / (np.maximum(count, 1) * max(used.sum(), 1) * divisors)
    squares = by_rmse / np.where(rmse > 0, 2 * rmse, 1.0) + by_mse
    losses = squares * np.square(error) + by_mae * np.abs(error) + by_rmse * rmse / 2
    summed: FloatArray = np.einsum("nhm,hm->nh", np.where(known, losses, 0.0), weight)
    return summed if used.any() else np.full((n, horizon), math.nan)


def step_blocks(horizon: int) -> tuple[StepBlock, ...]:
    """Return steps 1 to ``horizon`` in blocks that double: 1, 2-3, 4-7, 8-15, and so on; the last one is cut."""
    firsts = [2**power for power in range(horizon.bit_length())]
    return tuple(StepBlock(first, min(2 * first - 1, horizon)) for first in firsts)


def scoreboard_blocks(horizon: int, seasons: Sequence[int] = ()) -> tuple[StepBlock, ...]:
    """Return the blocks that the scoreboard shows: those of `step_blocks`, and the path to the end of each season.

    A row for the last step of a season alone would flatter persistence, which is the last season there.
    """
    paths = [StepBlock(1, season) for season in sorted(set(seasons)) if 1 < season <= horizon]
    return (*step_blocks(horizon), *paths)


def block_scores(scores: StepScores, divisors: FloatArray, blocks: Sequence[StepBlock]) -> tuple[float, ...]:
    """Return `horizon_score` of each block of steps; NaN for a block without an actual value."""
    ratios = scores.composite / divisors
    return tuple(_mean(ratios[block.steps], scores.used[block.steps]) for block in blocks)


def _mean(values: FloatArray, used: BoolArray) -> float:
    return float(values[used].mean()) if used.any() else math.nan
