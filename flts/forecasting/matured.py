"""Widen intervals by the errors of forecasts that have matured since the model was fitted.

The quantiles of a bundle are those of earlier rows. If the series has become harder or easier to forecast since, the
root mean square of the matured errors at a step, over that of the quantiles, shows by how much.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flts.forecasting.intervals import Intervals, nearest_steps
from flts.forecasting.series import FloatArray

MATURED_HORIZONS = 20
"""Horizons of last rows whose forecasts are compared: enough for stable errors, few enough to be recent."""
LEAST_FACTOR, MOST_FACTOR = 0.8, 2.5
"""Bounds of the factor: recent errors are few, so intervals become little narrower and not arbitrarily wide."""
OWN_WINDOWS = 10
"""Matured forecasts without a common row that weigh as much as the quantiles of the bundle themselves."""
LARGEST_ERROR = 4.0
"""Errors count up to this multiple of the root mean square of the quantiles, so that one outlier decides nothing."""
MOST_MINIMA = 0.2
"""Share of equal least values among the rows above which the factor is at least 1. A series of zeros and some demand
has calm spans by chance."""


def widened(intervals: Intervals, errors: FloatArray, *, spanned: int, minima: FloatArray) -> Intervals | None:
    """Return intervals with the quantiles of each step multiplied by its factor; None without a matured forecast.

    The squared factor is the mean of the squared errors of the steps that are nearer to this calibrated step than to
    another, over the mean square of its quantiles. It is averaged with 1, by the number of forecasts without a common
    row on the one side and `OWN_WINDOWS` on the other.

    Parameters
    ----------
    intervals : Intervals
        With quantiles, (p, s, m).
    errors : (n, H, m)
        Actual minus forecast in raw units, H the longest calibrated step; NaN where the actual is not known yet.
    spanned : int
        Rows from the first forecast's first step to the last known row.
    minima : (m,)
        Share of the least value among the known values of each target.
    """
    if intervals.values is None or not np.isfinite(errors).any():
        return None
    own = mean_squares(intervals)
    least = np.where(minima > MOST_MINIMA, 1.0, LEAST_FACTOR)
    factors = np.ones_like(own)
    for at, near in enumerate(nearest_steps(intervals.steps)):
        block = np.clip(errors[:, near], *(sign * LARGEST_ERROR * np.sqrt(own[at]) for sign in (-1, 1)))
        squares = np.square(block).reshape(-1, own.shape[1])
        known = np.isfinite(squares)
        counts = known.sum(axis=0)
        middle = (near.start + 1 + near.stop) / 2
        windows = max(spanned - middle + 1, 0) / middle * (counts > 0)
        recent = np.where(known, squares, 0).sum(axis=0) / np.maximum(counts, 1)
        ratio = np.where(own[at] > 0, recent / np.where(own[at] > 0, own[at], 1), 1)
        factors[at] = np.sqrt((windows * ratio + OWN_WINDOWS) / (windows + OWN_WINDOWS))
    return replace(intervals, values=intervals.values * np.clip(factors, least, MOST_FACTOR))


def mean_squares(intervals: Intervals) -> FloatArray:
    """Return the mean squares (s, m) of distributions with these quantiles, linear between them and constant beyond."""
    assert intervals.values is not None
    levels, values = np.array(intervals.probabilities), intervals.values
    lower, upper = values[:-1], values[1:]
    between = np.diff(levels)[:, None, None] * (lower**2 + lower * upper + upper**2) / 3
    squares: FloatArray = between.sum(axis=0) + levels[0] * values[0] ** 2 + (1 - levels[-1]) * values[-1] ** 2
    return squares
