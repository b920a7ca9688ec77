"""The recursion of exponential smoothing with a damped trend, and the weights that it gives to the rows of a window.

Gardner and McKenzie (1985), as in Hyndman and Athanasopoulos, Forecasting: Principles and Practice, section 8.2::

    level_t = alpha y_t + (1 - alpha) (level_{t-1} + phi trend_{t-1})
    trend_t = beta (level_t - level_{t-1}) + (1 - beta) phi trend_{t-1}
    forecast h steps ahead = level_t + (phi + phi^2 + ... + phi^h) trend_t

With beta = 0 and phi = 1 the trend stays as it began, which is simple exponential smoothing with drift. For fixed
parameters level and trend are linear in the rows and in the first level and trend.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from flts.forecasting.series import FloatArray


def smooth(rows: Iterable[FloatArray], parameters: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return level and trend, (...) each, after rows of values (...), oldest first.

    The first row is the first level, and the first trend is 0.

    Parameters
    ----------
    rows : arrays (...)
    parameters : (..., 3)
        Alpha, beta, phi.
    """
    remaining = iter(rows)
    level = next(remaining)
    trend = np.zeros_like(level)
    for value in remaining:
        level, trend = _step(level, trend, value, parameters)
    return level, trend


def damping(parameters: FloatArray, horizon_steps: int) -> FloatArray:
    """Return the factor of the trend at each step ahead, (m, horizon_steps), for parameters (m, 3)."""
    total: FloatArray = np.cumsum(parameters[:, [2]] ** np.arange(1, horizon_steps + 1), axis=1)
    return total


def responses(parameters: FloatArray, rows: int) -> tuple[FloatArray, FloatArray]:
    """Return the weights of rows in the last level and in the last trend, (c, rows) each, for parameters (c, 3).

    A row's weight depends only on its distance from the last row. Level and trend are 0 before the first row.
    """
    of_level, of_trend = np.zeros((2, len(parameters), rows))
    level, trend = np.zeros((2, len(parameters)))
    for row in range(rows - 1, -1, -1):
        level, trend = _step(level, trend, 1.0 if row == rows - 1 else 0.0, parameters)
        of_level[:, row], of_trend[:, row] = level, trend
    return of_level, of_trend


def remainders(parameters: FloatArray, rows: int) -> FloatArray:
    """Return the weights of the level and the trend before the first row in the last ones, (c, 2, 2).

    ``[:, 0]`` is the last level and ``[:, 1]`` the last trend; the last axis is the first level and trend.
    """
    level, trend = np.broadcast_to(np.eye(2)[:, None], (2, len(parameters), 2)).transpose(0, 2, 1)
    for _ in range(rows):
        level, trend = _step(level, trend, 0.0, parameters)
    return np.stack([level, trend]).transpose(2, 0, 1)


def _step(
    level: FloatArray, trend: FloatArray, value: FloatArray | float, parameters: FloatArray
) -> tuple[FloatArray, FloatArray]:
    alpha, beta, phi = np.moveaxis(parameters, -1, 0)
    damped = phi * trend
    after = level + damped + alpha * (value - level - damped)
    return after, beta * (after - level) + (1 - beta) * damped
