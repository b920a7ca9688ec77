"""Forecasts that need no fit: the last value and the last season, repeated."""

from __future__ import annotations

import numpy as np

from flts.forecasting.series import FloatArray, IntArray


def persistence(values: FloatArray, origins: IntArray, horizon_steps: int) -> FloatArray:
    """Repeat the last value before each origin.

    Parameters
    ----------
    values : (n, m)
        Missing cells filled (`imputed_rows`).
    origins : (b,)
        Rows of the first forecast.

    Returns
    -------
    (b, horizon_steps, m)
    """
    return np.repeat(values[origins - 1][:, None], horizon_steps, axis=1)


def seasonal_naive(
    values: FloatArray,
    times: IntArray,
    origins: IntArray,
    horizon_steps: int,
    *,
    season_steps: int,
    step_seconds: int,
) -> FloatArray:
    """Repeat the last season before each origin; where its row is not there, the last value.

    Rows are found by time, so that a cut in the series shifts nothing.

    Parameters
    ----------
    values : (n, m)
        Missing cells filled.
    times : (n,)
        Epoch seconds.
    origins : (b,)
        Rows of the first forecast.

    Returns
    -------
    (b, horizon_steps, m)
    """
    ahead = np.arange(1, horizon_steps + 1)
    seasons_back = -(-ahead // season_steps)
    offsets = (ahead - seasons_back * season_steps) * step_seconds
    wanted = times[origins - 1][:, None] + offsets
    rows = np.minimum(np.searchsorted(times, wanted), len(times) - 1)
    there = times[rows] == wanted
    return np.where(there[..., None], values[rows], persistence(values, origins, horizon_steps))
