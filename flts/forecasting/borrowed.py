"""Intervals of a model that is too slow to fit on folds: LINEAR's, where its errors are like LINEAR's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from flts.forecasting.expanding import FoldResiduals, calibrated_steps
from flts.forecasting.intervals import Intervals, nearest_steps
from flts.forecasting.series import FloatArray

ALIKE = 0.9
"""Least correlation of the errors on the tail, mean over blocks and targets, of a model that borrows LINEAR's folds.
Below it the model's own tail gives better intervals (docs/decisions/0008-intervals.md)."""


def borrowed_folds(own: FloatArray, linear: FloatArray, folds: Sequence[FoldResiduals]) -> list[FoldResiduals] | None:
    """Return LINEAR's folds with the size of a model's errors, or None if its errors are not like LINEAR's.

    Parameters
    ----------
    own, linear
        See `error_ratios`.
    folds : sequence
        Of LINEAR.
    """
    ratios = error_ratios(own, linear)
    return None if ratios is None else [replace(fold, residuals=fold.residuals * ratios) for fold in folds]


def borrowed_intervals(own: FloatArray, linear: FloatArray, intervals: Intervals) -> Intervals | None:
    """Return LINEAR's intervals with the size of a model's errors, or None if its errors are not like LINEAR's.

    Parameters
    ----------
    own, linear
        See `error_ratios`.
    intervals : Intervals
        Of LINEAR, (p, s, m), at most H steps.
    """
    ratios = error_ratios(own, linear)
    if ratios is None or intervals.values is None:
        return None
    return replace(intervals, values=intervals.values * ratios[np.array(intervals.steps) - 1])


def error_ratios(own: FloatArray, linear: FloatArray) -> FloatArray | None:
    """Return the root mean square of a model's errors over that of LINEAR's, (H, m), if the errors are alike.

    Both are means over the cells of a block of steps that both know. A model without an error, or without a known
    actual, in some block is not alike.

    Parameters
    ----------
    own, linear : (n, H, m)
        Errors of the model and of LINEAR from the same origins, in rows that neither was fitted on.
    """
    known = np.isfinite(own) & np.isfinite(linear)
    mine, theirs = np.where(known, own, 0.0), np.where(known, linear, 0.0)
    ratios, products = np.ones(own.shape[1:]), []
    for block in nearest_steps(calibrated_steps(own.shape[1])):
        sizes = [np.sqrt(np.square(each[:, block]).sum(axis=(0, 1))) for each in (mine, theirs)]
        if not all(size.all() for size in sizes):
            return None
        ratios[block] = sizes[0] / sizes[1]
        # Correlations around 0, since a bias is an error too.
        products.append((mine[:, block] * theirs[:, block]).sum(axis=(0, 1)) / (sizes[0] * sizes[1]))
    return ratios if np.mean(products) >= ALIKE else None
