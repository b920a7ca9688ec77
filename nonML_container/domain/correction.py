"""A decaying correction of Prophet's forecasts by its last residuals.

Prophet's forecast depends on the time alone. Its residuals are autocorrelated, so the last ones forecast the next ones.
The correction of a step is a weighted sum of the means of the last 1, 4, 16 and 64 residuals. Ridge regression finds
the weights on rows that the forecasts were not fitted on, because residuals of the fit are too small. A block of steps
has no correction unless it lowers the error in folds that the weights were not found on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from flts.forecasting.linear.choice import block_edges
from flts.forecasting.linear.model import spread
from flts.forecasting.series import BoolArray, FloatArray, IntArray

SPANS = (1, 4, 16, 64)
"""Numbers of last residuals whose means correct a forecast."""
ROWS_PER_SPAN_ROW = 20
"""A span is used if the first fold is fitted on this many rows per row of it."""
EDGES = (0.55, 0.7, 0.85, 1.0)
"""Shares of the rows: a fold is fitted on the rows before an edge and forecasts the rows up to the next."""
RIDGE = 1e-3
"""Penalty of a weight, as a share of the mean square of the means."""
LEAST_GAIN = 0.01
"""Share of the squared error that the correction of a block of steps saves at least; less is often chance."""
MOST_PATHS = 2_048
"""Paths of a fold that are used at most, evenly spread."""


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """The residuals of a forecast at and before the rows that it was not fitted on.

    Parameters
    ----------
    residuals : (n,)
        Filled values less forecast.
    known : (n,)
        False where the value was missing.
    unbroken : (n,)
        Rows without a gap that end with each row, itself included.
    first : int
        First row that the forecast was not fitted on.
    """

    residuals: FloatArray
    known: BoolArray
    unbroken: IntArray
    first: int


@dataclass(frozen=True, slots=True, eq=False)
class _Paths:
    """Means of the last residuals (p, s), and the residuals of the steps after them (p, H); NaN where unknown."""

    means: FloatArray
    ahead: FloatArray


def correction_weights(folds: Sequence[Held], spans: tuple[int, ...], horizon: int) -> FloatArray:
    """Return the weights of the means of the last residuals at each step, (s, H); zeros where they do not help."""
    paths = [made for made in (_paths(fold, spans, horizon) for fold in folds) if len(made.means)]
    if len(paths) < 2:  # noqa: PLR2004 - one to fit on and one to judge by
        return np.zeros((len(spans), horizon))
    moments = [_moments(each) for each in paths]
    gram, cross = (sum(parts) for parts in zip(*moments, strict=True))
    free, corrected = np.zeros((2, horizon))
    for own, (own_gram, own_cross) in zip(paths, moments, strict=True):
        errors = own.ahead - own.means @ _solved(gram - own_gram, cross - own_cross)
        free += np.nansum(own.ahead**2, axis=0)
        corrected += np.nansum(errors**2, axis=0)
    weights = _solved(gram, cross)
    for start, stop in pairwise(block_edges(horizon)):
        if not corrected[start:stop].sum() < (1 - LEAST_GAIN) * free[start:stop].sum():
            weights[:, start:stop] = 0.0
    return weights


def corrected_errors(held: Held, spans: tuple[int, ...], weights: FloatArray) -> FloatArray:
    """Return the errors of the corrected forecasts from the rows of a fold, (p, H); NaN where unknown."""
    paths = _paths(held, spans, weights.shape[1])
    return paths.ahead - paths.means @ weights


def spans_within(rows: int) -> tuple[int, ...]:
    """Return the spans for so many rows."""
    return tuple(span for span in SPANS if span * ROWS_PER_SPAN_ROW <= rows * EDGES[0])


def span_means(spans: tuple[int, ...]) -> FloatArray:
    """Return the matrix (L, s) that makes means of the last residuals, oldest first; L is the longest span."""
    back = np.arange(spans[-1], 0, -1)[:, None]
    return np.where(back <= spans, 1.0 / np.array(spans), 0.0)


def _paths(held: Held, spans: tuple[int, ...], horizon: int) -> _Paths:
    residuals, longest = held.residuals, spans[-1]
    last = np.arange(held.first - 1, len(residuals) - 1)
    last = spread(last[held.unbroken[last] >= longest], 0, MOST_PATHS)
    windows = residuals[last[:, None] + np.arange(1 - longest, 1)]
    means = windows @ span_means(spans)
    steps = np.arange(1, horizon + 1)
    ahead = np.minimum(last[:, None] + steps, len(residuals) - 1)
    inside = (last[:, None] + steps < len(residuals)) & (held.unbroken[ahead] > steps) & held.known[ahead]
    return _Paths(means, np.where(inside, residuals[ahead], np.nan))


def _moments(paths: _Paths) -> tuple[FloatArray, FloatArray]:
    """Return the products of the means with themselves (H, s, s) and with the steps (H, s), over known steps."""
    known = np.isfinite(paths.ahead).astype(np.float64)
    squares = paths.means[:, :, None] * paths.means[:, None, :]
    gram: FloatArray = np.tensordot(known, squares, axes=(0, 0))
    cross: FloatArray = np.where(known > 0, paths.ahead, 0.0).T @ paths.means
    return gram, cross


def _solved(gram: FloatArray, cross: FloatArray) -> FloatArray:
    """Return the ridge weights (s, H) of products (H, s, s) and (H, s)."""
    size = gram.shape[1]
    penalty = RIDGE * np.trace(gram, axis1=1, axis2=2) / size
    ready = gram + np.maximum(penalty, np.finfo(np.float64).tiny)[:, None, None] * np.eye(size)
    weights: FloatArray = np.linalg.solve(ready, cross[..., None])[..., 0].T
    return weights
