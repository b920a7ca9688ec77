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

from flts.forecasting.intervals import Intervals, bounds
from flts.forecasting.scores import coverage, measure
from flts.forecasting.series import BoolArray, FloatArray, IntArray

ForecastAt = Callable[[IntArray, int], FloatArray]
"""(origins (n,), horizon) -> raw forecasts (n, horizon, m); an origin is the row of the first forecast step."""

MAX_CELLS = 4_000_000
"""Most forecast values of one pass, 32 MB per array; in a longer test, evenly spread origins are scored."""
INFORMATIVE_ORIGINS = {10: 200, 60: 64}
"""Further steps ahead that the scoreboard shows, and the most origins for each."""
SEASON_ORIGINS = 12
MAX_INFORMATIVE_STEPS = 2_016
"""Steps; a longer season adds no row to the scoreboard, because such long forecasts are slow."""
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

    actual: FloatArray
    """(rows, m) raw values of the varying targets, NaN where missing."""
    targets: tuple[str, ...]
    """The varying targets."""
    scale: FloatArray
    """(m,) raw units per scaled unit, by this run's recipe."""
    naive_error: FloatArray
    """(m,) mean absolute one-step change in the training rows, raw: the scale of MASE."""
    weights: tuple[float, float, float]
    """Of RMSE, MAE and MSE in the score."""
    scored: Pass
    informative: tuple[Pass, ...] = ()


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


@dataclass(frozen=True, slots=True)
class Scorecard:
    """The errors and the interval coverage of a contender."""

    score: float
    """``w . (rmse, mae, mse)``, scaled, mean over targets and scored steps; NaN if a forecast was not finite."""
    rmse: float
    mae: float
    mse: float
    losses: FloatArray
    """(n,) losses of the scored origins whose mean is the score."""
    left_out: int
    """Cells without an actual value."""
    table: tuple[Mapping[str, Any], ...] = ()
    """Metrics per target and step."""
    coverage: tuple[Mapping[str, Any], ...] = ()
    """Interval coverage per target at the calibrated steps."""
    seconds: float = 0.0
    notes: tuple[str, ...] = field(default=())

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
) -> tuple[Pass, tuple[Pass, ...]]:
    """Choose the origins of the scored steps (all, up to `MAX_CELLS`) and of the informative steps (a few).

    Parameters
    ----------
    usable : (n,)
        Rows that have a whole window before them, for every contender.
    season_steps : int, optional
        One season; None if the training rows do not contain two.
    """
    horizon = max(scored_steps)
    limit = max(1_000, MAX_CELLS // (horizon * max(targets, 1)))
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


def score(contender: Contender, held_out: HeldOut) -> Scorecard:
    """Measure a contender on all passes; only the scored pass is part of the score."""
    began = time.perf_counter()
    scored = held_out.scored
    forecasts = contender.forecast(scored.origins, scored.horizon)
    actual = actual_at(held_out, scored)
    chosen = np.array(scored.steps) - 1
    errors = (forecasts[:, chosen] - actual[:, chosen]) / held_out.scale
    left_out = int((~np.isfinite(actual[:, chosen])).sum())
    losses, rmse, mae, mse = origin_losses(errors, known=np.isfinite(actual[:, chosen]), weights=held_out.weights)
    table = _table(forecasts, actual, _thin(scored.steps, len(held_out.targets)), held_out)
    coverage = list(_coverage(contender, forecasts, actual, held_out, done=0))
    notes = []
    reached = scored.horizon
    for extra in held_out.informative:
        if contender.max_horizon is not None and extra.horizon > contender.max_horizon:
            notes.append(f"forecasts at most {contender.max_horizon} steps")
            break
        forecasts, actual = contender.forecast(extra.origins, extra.horizon), actual_at(held_out, extra)
        table += _table(forecasts, actual, extra.steps, held_out)
        coverage += _coverage(contender, forecasts, actual, held_out, done=reached)
        reached = max(reached, extra.horizon)
    return Scorecard(
        score=float(losses.mean()) if len(losses) else math.nan,
        rmse=rmse,
        mae=mae,
        mse=mse,
        losses=losses,
        left_out=left_out,
        table=tuple(table),
        coverage=tuple(coverage),
        seconds=time.perf_counter() - began,
        notes=tuple(notes),
    )


def actual_at(held_out: HeldOut, chosen: Pass) -> FloatArray:
    """Return the actual values (n, horizon, m) that a pass's forecasts are compared with."""
    rows: FloatArray = held_out.actual[chosen.origins[:, None] + np.arange(chosen.horizon)]
    return rows


def origin_losses(
    errors: FloatArray, *, known: BoolArray, weights: tuple[float, float, float]
) -> tuple[FloatArray, float, float, float]:
    """Return one loss per origin, whose mean is the score, so that the gate can test the score.

    RMSE is not a mean over origins. ``e ** 2 / (2 RMSE) + RMSE / 2`` has RMSE as its mean and is the tangent of the
    root, so differences of these losses behave like differences of scores (delta method).

    Parameters
    ----------
    errors : (n, h, m)
        Scaled; cells that ``known`` excludes are not used.
    known : (n, h, m)
        Cells with an actual value.
    weights : (3,)
        Of RMSE, MAE and MSE.

    Returns
    -------
    losses (n,), rmse, mae, mse
        The means over the steps and targets that have an actual value; the losses' mean is the weighted sum. NaN if an
        error of a known cell is not finite or no cell is known.
    """
    seen = known.sum(axis=0)
    used = seen > 0
    if not used.any():
        return np.full(len(errors), math.nan), math.nan, math.nan, math.nan
    error = np.where(known, errors, 0.0)
    count = np.maximum(seen, 1)
    mse = (error**2).sum(axis=0) / count
    mae = np.abs(error).sum(axis=0) / count
    rmse = np.sqrt(mse)
    divisor = np.where(rmse > 0, 2 * rmse, 1.0)
    by_rmse, by_mae, by_mse = weights
    cells = by_rmse * (error**2 / divisor + rmse / 2) + by_mae * np.abs(error) + by_mse * error**2
    # With this factor the mean of `losses` over all origins equals the mean over the known cells.
    share = np.where(used, len(errors) / count, 0.0)
    losses = (np.where(known, cells, 0.0) * share).sum(axis=(1, 2)) / used.sum()
    return losses, float(rmse[used].mean()), float(mae[used].mean()), float(mse[used].mean())


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


def _thin(steps: tuple[int, ...], targets: int) -> tuple[int, ...]:
    limit = max(1, MAX_TABLE_CELLS // max(targets, 1))
    if len(steps) <= limit:
        return steps
    return tuple(steps[int(at)] for at in np.unique(np.linspace(0, len(steps) - 1, limit).round()))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
