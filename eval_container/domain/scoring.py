"""Score forecasts on the same held-out rows.

In this module a model is a function from origins to forecasts. The same code therefore scores candidates, the champion
and the baselines.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eval_container.domain.step_scores import (
    StepBlock,
    StepScores,
    block_scores,
    horizon_losses,
    horizon_score,
    step_blocks,
    step_scores,
    target_scores,
)
from flts.forecasting.intervals import Intervals, bounds
from flts.forecasting.scores import coverage, measure
from flts.forecasting.series import BoolArray, FloatArray, IntArray
from flts.forecasting.windows import Float32Array

ForecastAt = Callable[[IntArray, int], FloatArray]
"""(origins (n,), horizon) -> raw forecasts (n, horizon, m); an origin is the row of the first forecast step."""

MAX_CELLS = 2_000_000
"""Most forecast values of one pass, 16 MB per array; in a longer test, evenly spread origins are scored."""
MAX_ROLLED_PASSES = 60_000
"""Most model passes of a contender that feeds its forecasts back, at 20 to 35 us each."""
LEAST_ORIGINS = 200
"""Origins that are scored where there are so many, also if their passes or values exceed the limits."""
INFORMATIVE_ORIGINS = {10: 200, 60: 64}
"""Further steps ahead that the scoreboard shows, and the most origins for each."""
SEASON_ORIGINS = 12
MAX_INFORMATIVE_STEPS = 2_016
"""Steps; a longer season adds no row to the scoreboard, because such long forecasts are slow."""
ALL_STEPS = 12
"""Horizon up to which the table shows every step; of a longer one it shows the first and the last of each block."""
MAX_TABLE_CELLS = 3_000
"""Most rows of one contender's table; if the steps need more, evenly spread steps are shown."""
NOMINAL_SLACK = 0.10
"""Coverage this far below nominal is flagged."""


@dataclass(frozen=True, slots=True)
class Pass:
    """The origins and the scored steps of forecasts that every contender makes."""

    steps: tuple[int, ...]
    """Steps ahead that are measured, 1-based."""
    origins: IntArray

    @property
    def horizon(self) -> int:
        """Length of the forecasts."""
        return max(self.steps)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The held-out values and the rules by which every contender is scored."""

    values: FloatArray
    """(rows, m) raw values of the varying targets, NaN where missing."""
    targets: tuple[str, ...]
    """The varying targets."""
    scale: FloatArray
    """(m,) raw units per scaled unit, by this run's recipe."""
    naive_error: FloatArray
    """(m,) mean absolute one-step change in the training rows, raw: the scale of MASE."""
    weights: tuple[float, float, float]
    """Of RMSE, MAE and MSE in the composite."""
    scored: Pass
    informative: tuple[Pass, ...] = ()
    seasons: tuple[int, ...] = ()
    """Seasons in rows that the fit rows confirm, the shortest first."""
    blocks: tuple[StepBlock, ...] = ()
    """Blocks of steps whose scores the scoreboard shows."""

    @property
    def actual(self) -> FloatArray:
        """(n, H, m) actual values at the scored steps."""
        return self.at(self.scored)

    def at(self, chosen: Pass) -> FloatArray:
        """Return the actual values (n, horizon, m) that a pass's forecasts are compared with."""
        rows: FloatArray = self.values[chosen.origins[:, None] + np.arange(chosen.horizon)]
        return rows


@dataclass(frozen=True, slots=True)
class Contender:
    """A forecast of the held-out rows that can be scored."""

    forecast: ForecastAt
    max_horizon: int | None = None
    """Longest forecast in steps; None without a limit."""
    intervals: Intervals | None = None
    """Intervals with the same columns as the forecasts."""
    limits: tuple[FloatArray, FloatArray] | None = None
    """Lowest and highest value of each column, (m,) each, to which bounds are clipped; None without limits."""


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """The errors of a contender on the held-out rows, before they are compared with those of a baseline."""

    errors: Float32Array
    """(n, H, m) scaled."""
    known: BoolArray
    """(n, H, m) cells of the scored steps with an actual value."""
    steps: StepScores
    table: tuple[Mapping[str, Any], ...]
    """Metrics per target and step."""
    coverage: tuple[Mapping[str, Any], ...]
    """Interval coverage per target at the calibrated steps."""
    seconds: float
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Scorecard:
    """The errors and the interval coverage of a contender."""

    score: float
    """Mean over scored steps and targets of the composite, in units of the best baseline's composite there."""
    composite: float
    """``w . (rmse, mae, mse)``, scaled, mean over targets and scored steps; NaN if a forecast was not finite."""
    rmse: float
    mae: float
    mse: float
    losses: FloatArray
    """(n, H) losses of the scored origins and steps whose mean is the score."""
    blocks: tuple[float, ...]
    """Score of each block of steps of the scoreboard."""
    left_out: int
    """Cells without an actual value."""
    table: tuple[Mapping[str, Any], ...] = ()
    """Metrics per target and step."""
    coverage: tuple[Mapping[str, Any], ...] = ()
    """Interval coverage per target at the calibrated steps."""
    seconds: float = 0.0
    notes: tuple[str, ...] = field(default=())
    by_target: FloatArray | None = None
    """(m,) score of each target; NaN without an actual value."""

    def least_coverage(self) -> float | None:
        """Return the least interval coverage one step ahead, over all targets; None without intervals."""
        shares = [float(row["coverage"]) for row in self.coverage if row["step"] == 1 and row["coverage"] is not None]
        return min(shares, default=None)


def origins_for(
    usable: IntArray, segments: Sequence[slice], *, first_row: int, horizon: int, limit: int | None = None
) -> IntArray:
    """Return at most ``limit`` evenly spread origins from ``first_row`` on whose horizon is inside their segment."""
    ends = np.zeros(max((segment.stop for segment in segments), default=0) + 1, dtype=np.int64)
    for segment in segments:
        ends[segment] = segment.stop
    origins = usable[usable >= first_row]
    origins = origins[origins + horizon <= ends[origins]]
    if limit is not None and len(origins) > limit:
        origins = origins[np.linspace(0, len(origins) - 1, limit).round().astype(np.int64)]
    return origins


def plan_passes(
    usable: IntArray,
    segments: Sequence[slice],
    *,
    first_row: int,
    scored_steps: Sequence[int],
    targets: int,
    season_steps: int | None,
    passes: int = 1,
) -> tuple[Pass, tuple[Pass, ...]]:
    """Choose the origins of the scored steps (all, up to the limits) and of the informative steps (a few).

    Parameters
    ----------
    usable : (n,)
        Rows that have a whole window before them, for every contender.
    season_steps : int, optional
        The shortest season of the training rows; None if they have none.
    passes : int
        Most passes in which a contender forecasts the scored steps.
    """
    horizon = max(scored_steps)
    limit = most_origins(horizon, targets, passes)
    scored = Pass(tuple(scored_steps), origins_for(usable, segments, first_row=first_row, horizon=horizon, limit=limit))
    wanted = dict(INFORMATIVE_ORIGINS)
    if season_steps is not None and season_steps <= MAX_INFORMATIVE_STEPS:
        wanted.setdefault(season_steps, SEASON_ORIGINS)
    informative = []
    for steps, origins in sorted(wanted.items()):
        found = origins_for(usable, segments, first_row=first_row, horizon=steps, limit=origins)
        if len(found) and steps not in scored_steps:
            informative.append(Pass((steps,), found))
    return scored, tuple(informative)


def most_origins(horizon: int, targets: int, passes: int = 1) -> int:
    """Return the most origins of forecasts of ``horizon`` steps that are scored."""
    return max(LEAST_ORIGINS, min(MAX_CELLS // (horizon * max(targets, 1)), MAX_ROLLED_PASSES // passes))


def measure_contender(contender: Contender, held_out: HeldOut) -> Measured:
    """Forecast from all origins and measure the errors; only the scored pass is part of the score."""
    began = time.perf_counter()
    scored = held_out.scored
    actual = held_out.actual
    forecasts = contender.forecast(scored.origins, scored.horizon)
    known = np.isfinite(actual) & counted_steps(scored)[:, None]
    errors = (forecasts - actual) / held_out.scale
    steps = step_scores(errors, known, held_out.weights)
    table = _table(forecasts, actual, _shown(scored.steps, len(held_out.targets)), held_out)
    coverage = list(_coverage(contender, forecasts, actual, held_out, done=0))
    notes = []
    reached = scored.horizon
    for extra in held_out.informative:
        if contender.max_horizon is not None and extra.horizon > contender.max_horizon:
            notes.append(f"forecasts at most {contender.max_horizon} steps")
            break
        forecasts, actual = contender.forecast(extra.origins, extra.horizon), held_out.at(extra)
        table += _table(forecasts, actual, extra.steps, held_out)
        coverage += _coverage(contender, forecasts, actual, held_out, done=reached)
        reached = max(reached, extra.horizon)
    return Measured(
        errors.astype(np.float32),
        known,
        steps,
        table=tuple(table),
        coverage=tuple(coverage),
        seconds=time.perf_counter() - began,
        notes=tuple(notes),
    )


def card_of(measured: Measured, divisors: FloatArray, held_out: HeldOut) -> Scorecard:
    """Return the scores in units of the best baseline's errors (H, m) (`step_scores.step_divisors`)."""
    means = measured.steps.means()
    counted = counted_steps(held_out.scored)
    return Scorecard(
        score=horizon_score(measured.steps, divisors),
        composite=means["composite"],
        rmse=means["rmse"],
        mae=means["mae"],
        mse=means["mse"],
        losses=horizon_losses(measured.errors.astype(np.float64), measured.known, held_out.weights, divisors),
        blocks=block_scores(measured.steps, divisors, held_out.blocks),
        left_out=int((~measured.known[:, counted]).sum()),
        table=measured.table,
        coverage=measured.coverage,
        seconds=measured.seconds,
        notes=measured.notes,
        by_target=target_scores(measured.steps, divisors),
    )


def counted_steps(scored: Pass) -> BoolArray:
    """Return which steps of the horizon are scored, (H,)."""
    counted = np.zeros(scored.horizon, dtype=bool)
    counted[np.array(scored.steps) - 1] = True
    return counted


def _table(
    forecasts: FloatArray, actual: FloatArray, steps: Sequence[int], held_out: HeldOut
) -> list[Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = []
    for step in steps:
        measured = measure(actual[:, step - 1], forecasts[:, step - 1], naive_scale=held_out.naive_error)
        for target, scale, metrics in zip(held_out.targets, held_out.scale.tolist(), measured, strict=True):
            raw = metrics.as_dict()
            row: dict[str, Any] = {"target": target, "step": step, "n": metrics.n, "left_out": metrics.left_out}
            for name, unit in (("rmse", scale), ("mae", scale), ("mse", scale**2)):
                row[f"{name}_raw"] = raw[name]
                row[name] = _finite(getattr(metrics, name) / unit)
            rows.append({**row, **{name: raw[name] for name in ("mase", "mape", "mape_share", "r2")}})
    return rows


def _coverage(
    contender: Contender, forecasts: FloatArray, actual: FloatArray, held_out: HeldOut, *, done: int
) -> list[Mapping[str, Any]]:
    """Measure coverage at the calibrated steps that this pass reaches and no shorter pass reached."""
    intervals = contender.intervals
    # An interval adds the same offsets to the forecast at every origin. The bounds of a forecast of zeros are therefore
    # the offsets themselves.
    widths = bounds(intervals, np.zeros(forecasts.shape[1:]))
    if intervals is None or widths is None:
        return []
    rows: list[Mapping[str, Any]] = []
    for step in (step for step in intervals.steps if done < step <= forecasts.shape[1]):
        for at, target in enumerate(held_out.targets):
            truth, mean = actual[:, step - 1, at], forecasts[:, step - 1, at]
            lower, upper = (_limited(mean + width[step - 1, at], contender.limits, at) for width in widths)
            share = coverage(truth, lower, upper)
            if share is not None:
                rows.append(
                    {
                        "target": target,
                        "step": step,
                        "n": int(np.isfinite(truth).sum()),
                        "coverage": share,
                        "nominal": intervals.nominal,
                        "low": share < intervals.nominal - NOMINAL_SLACK,
                    }
                )
    return rows


def _limited(bound: FloatArray, limits: tuple[FloatArray, FloatArray] | None, at: int) -> FloatArray:
    return bound if limits is None else np.clip(bound, limits[0][at], limits[1][at])


def _shown(steps: tuple[int, ...], targets: int) -> tuple[int, ...]:
    """Return the steps that the table shows."""
    if len(steps) > ALL_STEPS:
        edges = {step for block in step_blocks(steps[-1]) for step in (block.first, block.last)}
        edges |= set(INFORMATIVE_ORIGINS)
        steps = tuple(step for step in steps if step in edges)
    limit = max(1, MAX_TABLE_CELLS // max(targets, 1))
    if len(steps) <= limit:
        return steps
    return tuple(steps[int(at)] for at in np.unique(np.linspace(0, len(steps) - 1, limit).round()))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
