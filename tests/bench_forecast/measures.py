"""Measure forecasts by the product's own functions: MASE, composite, coverage and width."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from eval_container.domain.step_scores import (
    StepBlock,
    best_baseline,
    horizon_score,
    step_blocks,
    step_divisors,
    step_scores,
)
from flts.forecasting.scores import coverage, measure, naive_errors
from flts.forecasting.series import FloatArray


@dataclass(frozen=True, eq=False)
class Forecasts:
    """The forecasts of a contender from all origins, raw units."""

    mean: FloatArray
    """(n, H, m)"""
    lower: FloatArray | None = None
    upper: FloatArray | None = None
    """Bounds of 90 %, (n, H, m); None without intervals."""
    cpu_seconds: float | None = None
    """Of the fit, for the product's models; of the fit and all forecasts, for the peers. None if not measured alone."""


@dataclass(frozen=True, eq=False)
class Truth:
    """What the forecasts are compared with."""

    actual: FloatArray
    """(n, H, m) raw units, NaN where missing."""
    training_rows: FloatArray
    """(rows, m) raw units, NaN where missing."""
    segments: list[slice]
    """Pieces of the training rows between gaps."""
    season: int
    """In rows: MASE divides by the naive forecast's error over one season in the training rows."""
    scale: FloatArray
    """(m,) raw units per scaled unit, as eval scales errors."""
    weights: tuple[float, float, float]
    """Of RMSE, MAE and MSE in the composite."""
    baselines: tuple[str, ...]
    """Contenders of which the best has the composite 1."""

    @property
    def blocks(self) -> tuple[StepBlock, ...]:
        """Return the blocks of steps."""
        return step_blocks(self.actual.shape[1])


@dataclass(frozen=True)
class Measures:
    """The figures of a contender; NaN where there is none."""

    mase: float
    """Mean over the targets, over all steps and origins."""
    composite: float
    """Score as eval's: 1 is the best baseline, lower is better."""
    coverage: float
    """Share of the actual values within the 90 % interval."""
    widths: tuple[float, ...]
    """Mean width of the interval by block of steps, in units of MASE."""
    coverages: tuple[float, ...]
    cpu_seconds: float


def measures(truth: Truth, forecasts: Mapping[str, Forecasts]) -> dict[str, Measures]:
    """Measure every contender on the same cells."""
    known = np.isfinite(truth.actual)
    naive = naive_errors(truth.training_rows, truth.segments, truth.season)
    scored = {
        name: step_scores((each.mean - truth.actual) / truth.scale, known, truth.weights)
        for name, each in forecasts.items()
    }
    best = best_baseline({name: scored[name] for name in truth.baselines})
    assert best is not None
    divisors = step_divisors(scored[best], np.nanstd(truth.training_rows, axis=0) / truth.scale)
    return {
        name: Measures(
            mase=_mase(truth.actual, each.mean, naive),
            composite=horizon_score(scored[name], divisors),
            coverage=_coverage(truth.actual, each, slice(None)),
            widths=tuple(_width(each, block.steps, naive) for block in truth.blocks),
            coverages=tuple(_coverage(truth.actual, each, block.steps) for block in truth.blocks),
            cpu_seconds=math.nan if each.cpu_seconds is None else each.cpu_seconds,
        )
        for name, each in forecasts.items()
    }


def _mase(actual: FloatArray, mean: FloatArray, naive: FloatArray) -> float:
    targets = actual.shape[-1]
    measured = measure(actual.reshape(-1, targets), mean.reshape(-1, targets), naive_scale=naive)
    defined = [one.mase for one in measured if one.mase is not None]
    return float(np.mean(defined)) if defined else math.nan


def _coverage(actual: FloatArray, each: Forecasts, steps: slice) -> float:
    if each.lower is None or each.upper is None:
        return math.nan
    share = coverage(actual[:, steps], each.lower[:, steps], each.upper[:, steps])
    return math.nan if share is None else share


def _width(each: Forecasts, steps: slice, naive: FloatArray) -> float:
    if each.lower is None or each.upper is None:
        return math.nan
    return float(((each.upper - each.lower)[:, steps] / naive).mean())
