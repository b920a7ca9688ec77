"""The seasons of a series that its calendar suggests and its training rows contain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flts.forecasting.grid import Grid
from flts.forecasting.series import FloatArray, IntArray

LONGER_GAIN = 0.1
"""Share of a shorter season's error that a longer one must save."""


def seasons_within(grid: Grid, train_rows: int) -> tuple[int, ...]:
    """Return the seasons of ``grid.seasons`` that the training rows contain twice, in rows, the shortest first."""
    return tuple(steps for steps in grid.seasons if train_rows >= 2 * steps)


def best_season(
    values: FloatArray, starts: IntArray, seasons: Sequence[int], *, horizon: int, first_row: int
) -> int | None:
    """Return the season whose repetition has the least mean absolute error over a horizon.

    A longer season needs more rows before a forecast, so it must be better by more than `LONGER_GAIN`. This comparison
    is the only test: seasons that `flts.forecasting.season_tests` does not confirm take part, because their repetition
    is often the best baseline (docs/decisions/0007-seasons.md). Step h of a
    forecast repeats the row whole seasons before it, the fewest that reach the rows before the forecast.

    Parameters
    ----------
    values : (n, m)
        Scaled targets, NaN where missing.
    starts : (n,)
        First row of the segment of each row.
    seasons : sequence of ints
        Lengths in rows.
    horizon : int
    first_row : int
        Errors are measured from this row on.

    Returns
    -------
    int or None
        None if no season can be measured.
    """
    rows = np.arange(first_row, len(values))
    best, least = None, np.inf
    for steps in sorted(seasons):
        error = _error(values, rows, starts[rows], steps, horizon)
        if error < (least if best is None else (1 - LONGER_GAIN) * least):
            best, least = steps, error
    return best


def _error(values: FloatArray, rows: IntArray, starts: IntArray, steps: int, horizon: int) -> float:
    """Return the mean absolute error over the steps of the horizon; NaN if a lag has no two known cells."""
    back, counts = np.unique(steps * -(-np.arange(1, horizon + 1) // steps), return_counts=True)
    errors = np.full(len(back), np.nan)
    for at, lag in enumerate(back.tolist()):
        known = rows[rows - lag >= starts]
        changes = np.abs(values[known] - values[known - lag])
        if np.isfinite(changes).any():
            errors[at] = np.nanmean(changes)
    return float(errors @ counts) / horizon
