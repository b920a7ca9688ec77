"""Quantiles of a forecast at every step, from those of the residuals at the calibrated steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from flts.forecasting.intervals import MEDIAN, SAME_LEVEL, Intervals, at_steps, bounds, edges_of
from flts.forecasting.series import FloatArray, IntArray

Point = Literal["mean", "median"]
"""The forecast of a target: the model's own, or that moved by the median residual."""


def quantiles(intervals: Intervals, horizon_steps: int, levels: Sequence[float]) -> FloatArray | None:
    """Return quantiles of residuals at every step of a forecast, or None if nothing was calibrated.

    Those of the two ends of the nominal interval are the offsets of `bounds`. Between the probabilities of the
    intervals the quantiles are interpolated linearly. Beyond the last calibrated step they continue as the bounds do,
    and the median stays as it is; a quantile that would cross one that is nearer to an end of the nominal interval
    becomes equal to it.

    Parameters
    ----------
    intervals : Intervals
    horizon_steps : int
        h.
    levels : sequence of q probabilities
        Within the range of ``intervals.probabilities``.

    Returns
    -------
    (h, m, q)
        Raw units, to be added to the forecast; they do not decrease with the probability.
    """
    if intervals.values is None:
        return None
    edges = bounds(intervals, np.zeros((horizon_steps, intervals.values.shape[2])))
    assert edges is not None
    ahead = np.arange(1, horizon_steps + 1, dtype=np.float64)
    known = np.array(intervals.probabilities)
    at = [
        at_steps(ahead, intervals.steps, values, float(np.sign(level - MEDIAN)))
        for level, values in zip(intervals.probabilities, intervals.values, strict=True)
    ]
    low, high = (int(np.argmin(np.abs(known - edge))) for edge in edges_of(intervals.nominal))
    at[low], at[high] = edges
    # The slopes beyond the last calibrated step differ between probabilities, so quantiles could cross there.
    for inner in range(low + 1, high):
        at[inner] = np.clip(at[inner], at[inner - 1], at[high])
    for outer in range(low - 1, -1, -1):
        at[outer] = np.minimum(at[outer], at[outer + 1])
    for outer in range(high + 1, len(at)):
        at[outer] = np.maximum(at[outer], at[outer - 1])
    return np.stack([_between(known, at, level) for level in levels], axis=-1)


def median_offsets(intervals: Intervals, ahead: IntArray) -> FloatArray | None:
    """Return the median residual (h, m) at steps ahead (h,), or None if it was not calibrated.

    Between calibrated steps it is interpolated. After the last one it stays as it is, since neither of its sides is
    outward.
    """
    known = intervals.at_level(MEDIAN)
    return None if known is None else at_steps(ahead.astype(np.float64), intervals.steps, known, 0.0)


def _between(known: FloatArray, at: Sequence[FloatArray], level: float) -> FloatArray:
    """Return the quantiles (h, m) of a probability, interpolated between those of the known probabilities."""
    right = min(int(np.searchsorted(known, level - SAME_LEVEL)), len(known) - 1)
    if right == 0 or abs(known[right] - level) <= SAME_LEVEL:
        return at[right]
    share = (level - known[right - 1]) / (known[right] - known[right - 1])
    between: FloatArray = at[right - 1] + share * (at[right] - at[right - 1])
    return np.minimum(between, at[right], out=between)  # rounding could exceed it
