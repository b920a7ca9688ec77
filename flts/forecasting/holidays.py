"""The features of holidays at the rows of a grid, from the days that a recipe stores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from flts.forecasting.grid import DAY, LAST_DAY, Grid, MonthGrid
from flts.forecasting.series import FloatArray, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class HolidayTable:
    """The features by day, which a model file can contain.

    Parameters
    ----------
    first_day : int
        Days since 1970-01-01 of the first row of ``values``.
    values : (d, q)
        Features of the days; the first and the last row are 0 and serve all days outside of the table.
    """

    first_day: int
    values: FloatArray

    def __call__(self, clock: IntArray) -> FloatArray:
        """Return the features (..., q) at times (...) on the clock of the data set, seconds since 1970-01-01."""
        rows = np.clip(clock // DAY - self.first_day, 0, len(self.values) - 1)
        features: FloatArray = self.values[rows]
        return features


def holiday_table(days: Mapping[str, tuple[int, ...]], grid: Grid) -> HolidayTable:
    """Return the features of a recipe's holidays by day, in the order of ``days``.

    A row of up to a day has 1 on a day of the feature. A row of several days has the number of these days from its own
    day to that of the next row; a row on the last day of a month has those of its month.

    Parameters
    ----------
    days : mapping of tuples
        `FittedRecipe.holidays`: increasing days since 1970-01-01, at least one each.
    grid : Grid
    """
    listed = [np.array(each, dtype=np.int64) for each in days.values()]
    longest = max(1, -(-grid.step_seconds // DAY)) + 1
    every = np.arange(min(each[0] for each in listed) - longest, max(each[-1] for each in listed) + longest + 1)
    starts, ends = _covered(grid, every)
    values = np.stack([np.searchsorted(each, ends) - np.searchsorted(each, starts) for each in listed], axis=1)
    values[[0, -1]] = 0
    return HolidayTable(int(every[0]), values.astype(np.float64))


def _covered(grid: Grid, days: IntArray) -> tuple[IntArray, IntArray]:
    """Return the first day, and the day after the last one, that rows on these days cover, (d,) each."""
    if isinstance(grid, MonthGrid):
        months = days.astype("datetime64[D]").astype("datetime64[M]")
        first = months.astype("datetime64[D]").astype(np.int64)
        if grid.day == LAST_DAY:
            starts = (months + 1 - grid.months).astype("datetime64[D]").astype(np.int64)
            return starts, days + 1
        return days, (months + grid.months).astype("datetime64[D]").astype(np.int64) + (days - first)
    return days, days + max(1, grid.step_seconds // DAY)
