"""Intervals of a bundle, widened by the errors of its forecasts of rows after those that it was fitted on."""

from __future__ import annotations

import numpy as np

from flts.bundle.forecaster import Forecaster
from flts.forecasting.intervals import Intervals
from flts.forecasting.matured import MATURED_HORIZONS, widened
from flts.forecasting.series import FloatArray, Series, paths_from, segment_starts

MOST_ORIGINS = 256
"""Forecasts that are compared at most, evenly spread."""


def widened_by(forecaster: Forecaster, series: Series, *, most: int = MOST_ORIGINS) -> Intervals | None:
    """Return a bundle's intervals as they are served after the rows of a series, or None if they stay as they are.

    They stay if no forecast has matured: none of the rows after the fit's last row has the rows before it that the
    model needs. A bundle of format 1 does not state its last row.

    Parameters
    ----------
    forecaster : Forecaster
    series : Series
        Raw units, the last rows of the data set.
    most : int
        Forecasts that are compared at most.
    """
    intervals, bundle = forecaster.intervals, forecaster.bundle
    if intervals is None or intervals.values is None or bundle.format_version == 1:
        return None
    horizon = min(intervals.calibrated_steps, forecaster.max_horizon or intervals.calibrated_steps)
    since = 0 if bundle.fitted_until is None else int(np.searchsorted(series.times, bundle.fitted_until, side="right"))
    first = max(since, len(series) - MATURED_HORIZONS * horizon, 1)
    rows = forecaster.valid_origins(series, first)
    if not len(rows):
        return None
    spanned = len(series) - int(rows[0])
    if len(rows) > most:
        rows = rows[np.arange(most) * (len(rows) - 1) // (most - 1)]
    values = series.select(forecaster.recipe.varying_targets).values
    actual = paths_from(rows, horizon, values, segment_starts(series.times, series.grid))
    errors = actual - forecaster.forecast_origins(series, rows, horizon)[..., forecaster.varying]
    return widened(intervals, _padded(errors, intervals.calibrated_steps), spanned=spanned, minima=_minima(values))


def _padded(errors: FloatArray, steps: int) -> FloatArray:
    """Return errors (n, steps, m), NaN at the steps beyond a model's longest forecast."""
    beyond = np.full((len(errors), steps - errors.shape[1], errors.shape[2]), np.nan)
    return np.concatenate([errors, beyond], axis=1)


def _minima(values: FloatArray) -> FloatArray:
    """Return the share (m,) of each target's least value among its known values (n, m)."""
    known = np.isfinite(values)
    least = np.where(known, values, np.inf).min(axis=0, initial=np.inf)
    shares: FloatArray = (values == least).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return shares
