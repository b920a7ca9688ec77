"""Bounds for clipping, offset and scale of one column, fitted on training values."""

from __future__ import annotations

from typing import Literal

import numpy as np

from flts.errors import RejectedError
from flts.forecasting.series import FloatArray

ClipMethod = Literal["iqr", "percentile", "sigma"]
Scaler = Literal["MinMaxScaler", "StandardScaler", "RobustScaler", "MaxAbsScaler", "none"]

UNBOUNDED = float(np.finfo(np.float64).max)
"""Bound that clips nothing; a finite number, because JSON has no infinity."""


def clip_bounds(values: FloatArray, method: ClipMethod, factor: float) -> tuple[float, float]:
    """Return the bounds outside which a value counts as an outlier.

    ``iqr``: quartiles -+ factor x interquartile range; ``sigma``: mean -+ factor x standard deviation; ``percentile``:
    ``factor`` per cent cut off each side. A column whose two bounds are equal (more than half of the values are equal)
    is not clipped, because clipping would make it constant.

    Parameters
    ----------
    values : (n,)
        The observed training values of a column.

    Raises
    ------
    RejectedError
        If ``percentile`` would cut off all values.
    """
    if method == "percentile":
        if factor >= 50:  # noqa: PLR2004 - per cent cut off each of two sides
            msg = f"CLIP_FACTOR {factor:g} with CLIP_METHOD percentile cuts everything off; it must be below 50"
            raise RejectedError(msg, code="bad_setting", field="CLIP_FACTOR")
        lower, upper = np.percentile(values, [factor, 100 - factor])
    elif method == "sigma":
        lower = values.mean() - factor * values.std()
        upper = values.mean() + factor * values.std()
    else:
        first, third = np.percentile(values, [25, 75])
        lower = first - factor * (third - first)
        upper = third + factor * (third - first)
    if lower >= upper:
        return -UNBOUNDED, UNBOUNDED
    return float(lower), float(upper)


def offset_and_scale(values: FloatArray, scaler: Scaler) -> tuple[float, float]:
    """Return offset and scale of ``(x - offset) / scale``, as scikit-learn's scalers of these names compute them.

    A constant column gets its constant as offset and 1 as scale (with ``none``: 0 and 1). If the interquartile range of
    a varying column is zero, ``RobustScaler`` divides by the standard deviation here. scikit-learn would divide by 1,
    which leaves the column in raw units.

    Parameters
    ----------
    values : (n,)
        The observed training values of a column, after clipping.
    """
    lowest, highest = float(values.min()), float(values.max())
    if scaler == "none":
        return 0.0, 1.0
    if lowest == highest:
        return lowest, 1.0
    if scaler == "MinMaxScaler":
        return lowest, highest - lowest
    if scaler == "MaxAbsScaler":
        return 0.0, max(abs(lowest), abs(highest))
    deviation = float(values.std())
    if scaler == "StandardScaler":
        return float(values.mean()), deviation
    first, median, third = (float(number) for number in np.percentile(values, [25, 50, 75]))
    return median, third - first or deviation
