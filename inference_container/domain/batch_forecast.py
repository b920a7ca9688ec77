"""Forecast a run's test rows as they would have been served, and score the forecasts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flts.errors import RejectedError, SeriesTooShortError
from flts.forecasting.series import FloatArray, IntArray, Series
from inference_container.domain.champion import Champion

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class BatchForecast:
    """One-step forecasts of every test row that has a whole window before it, and one long forecast."""

    table: Series
    """Raw units by time: per target ``<t>``, ``<t>_lower``, ``<t>_upper``, ``<t>_actual`` for one step, and
    ``<t>_long``, ``<t>_long_lower``, ``<t>_long_upper`` for the long forecast; NaN where there is no value."""
    metrics: dict[str, dict[str, dict[str, float | int | None]]]
    """``{target: {steps: {rmse, mae, coverage, rows}}}`` in raw units; rows without an actual are left out."""
    long_steps: int
    left_out_rows: int
    """Number of test rows that were left out at the start, because there were more than ``max_rows``."""


def forecast_test_rows(
    champion: Champion, series: Series, *, context_rows: int, max_rows: int, long_steps: int
) -> BatchForecast:
    """Forecast test rows with a champion, through its own recipe.

    Parameters
    ----------
    champion : Champion
    series : Series
        Raw units; the first ``context_rows`` rows are context and are not forecast.
    context_rows, max_rows, long_steps : int

    Raises
    ------
    RejectedError
        ``wrong_step``, ``not_finite``, or a column of the recipe is missing.
    SeriesTooShortError
        If no test row has a whole window before it.
    """
    needs, forecaster = champion.needs, champion.forecaster
    if series.grid != needs.grid:
        msg = f"the test rows are at steps of {series.grid.text}, the champion forecasts steps of {needs.grid.text}"
        raise RejectedError(msg, code="wrong_step", field="step_seconds")
    left_out = max(0, len(series) - context_rows - max_rows)
    origins = forecaster.valid_origins(series, max(context_rows + left_out, needs.rows_required))
    if len(origins) == 0:
        msg = f"no test row has the {needs.rows_required} rows before it that the champion needs"
        raise SeriesTooShortError(msg)
    start = int(origins[0])
    segment = next(part for part in series.segments() if part.start <= start < part.stop)
    steps = min(long_steps, needs.max_horizon_steps, segment.stop - start)
    short = forecaster.forecast_origins(series, origins, 1)[:, 0]
    long = forecaster.forecast_origins(series, origins[:1], steps)[0]
    if not (np.isfinite(short).all() and np.isfinite(long).all()):
        msg = "the champion's forecasts of these rows are not finite"
        raise RejectedError(msg, code="not_finite")
    rows = np.union1d(origins, np.arange(start, start + steps))
    one_step = _Forecasts(origins, short, *_bounds(champion, short, slice(0, 1)))
    rolled = _Forecasts(np.arange(start, start + steps), long, *_bounds(champion, long, slice(0, steps)))
    actual = series.select(champion.targets).values
    return BatchForecast(
        table=_table(champion, series, rows, actual, short=one_step, long=rolled),
        metrics=_measure(champion, {1: one_step, steps: rolled} if steps > 1 else {1: one_step}, actual),
        long_steps=steps,
        left_out_rows=left_out,
    )


@dataclass(frozen=True, slots=True)
class _Forecasts:
    rows: IntArray
    """(n,) index in the series of each forecast row."""
    mean: FloatArray
    """(n, M)"""
    lower: FloatArray
    """(n, M), NaN where there were too few residuals."""
    upper: FloatArray


def _bounds(champion: Champion, mean: FloatArray, steps: slice) -> tuple[FloatArray, FloatArray]:
    limited = champion.limited(mean[:, :, None] + champion.offsets[steps, :, 1:])
    return limited[..., 0], limited[..., 1]


def _table(
    champion: Champion, series: Series, rows: IntArray, actual: FloatArray, *, short: _Forecasts, long: _Forecasts
) -> Series:
    names: list[str] = []
    columns: list[FloatArray] = []

    def add(name: str, of: _Forecasts, values: FloatArray, target: int) -> None:
        column = np.full(len(rows), np.nan)
        column[np.searchsorted(rows, of.rows)] = values[:, target]
        names.append(name)
        columns.append(column)

    for target, name in enumerate(champion.targets):
        for suffix, values in (("", short.mean), ("_lower", short.lower), ("_upper", short.upper)):
            add(f"{name}{suffix}", short, values, target)
        names.append(f"{name}_actual")
        columns.append(actual[rows, target])
        for suffix, values in (("_long", long.mean), ("_long_lower", long.lower), ("_long_upper", long.upper)):
            add(f"{name}{suffix}", long, values, target)
    return Series(series.times[rows], tuple(names), np.column_stack(columns), series.grid)


def _measure(
    champion: Champion, forecasts: dict[int, _Forecasts], actual: FloatArray
) -> dict[str, dict[str, dict[str, float | int | None]]]:
    return {
        name: {str(steps): _scores(of, actual[of.rows, target], target) for steps, of in forecasts.items()}
        for target, name in enumerate(champion.targets)
    }


def _scores(of: _Forecasts, actual: FloatArray, target: int) -> dict[str, float | int | None]:
    known: BoolArray = ~np.isnan(actual)
    if not known.any():
        return {"rmse": None, "mae": None, "coverage": None, "rows": 0}
    errors = actual[known] - of.mean[known, target]
    lower, upper = of.lower[known, target], of.upper[known, target]
    inside = ((lower <= actual[known]) & (actual[known] <= upper)).mean()
    # The square of a value above 1e154 overflows to infinity. The warning is suppressed, because the result is then
    # None.
    with np.errstate(over="ignore"):
        rmse, mae = float(np.sqrt(np.mean(errors**2))), float(np.mean(np.abs(errors)))
    return {
        "rmse": rmse if np.isfinite(rmse) else None,
        "mae": mae if np.isfinite(mae) else None,
        "coverage": None if np.isnan(lower).any() else float(inside),
        "rows": int(known.sum()),
    }
