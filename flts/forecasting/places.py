"""The calendar as inputs of a model: places in seasons, and turns of the day, the week and the year.

Both follow the local clock of the data set, so that a profile of the day keeps its hours when the clock changes.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from flts.forecasting.grid import DAY, EPOCH_WEEKDAY, WEEK, WEEKDAYS, YEAR_MONTHS, FixedGrid, Grid, MonthGrid, WeekGrid

if TYPE_CHECKING:
    from collections.abc import Callable

    from flts.forecasting.series import FloatArray, IntArray

TURNS = 3
"""Day, week and year."""
YEAR_DAYS, YEAR_WEEKS = 365, 52
"""Places of a year of daily rows and of a year of weekly rows."""
LEAP_DAY = 59  # 29 February, counted from 0 on 1 January
BELOW_ONE = float(np.nextafter(np.float32(1), np.float32(0)))
"""Largest turn, so that a turn stays below 1 in float32."""


def season_places(grid: Grid, times: IntArray, seasons: tuple[int, ...]) -> IntArray:
    """Return the place of each time in each season, (..., s), from 0 to the length of the season less 1.

    A day and a week of fixed steps begin at midnight and on Monday of the local clock: a clock change skips or repeats
    places. A year of daily rows has 365 places; 29 February has the place of the 28th. A year of weekly rows has 52
    places: the last days of December have the place of the week before them. Months and quarters are counted from
    January. In a calendar with closed days or hours, places count the open slots from Monday on. In any other season
    a place is the position on the grid modulo the length of the season.

    Parameters
    ----------
    times : (...)
        Epoch seconds of rows of the grid.
    seasons : tuple of s ints
        Lengths in rows.
    """
    places = np.empty((*np.shape(times), len(seasons)), dtype=np.int64)
    for at, rows in enumerate(seasons):
        places[..., at] = _season(grid, rows)(times)
    return places


def clock_turns(grid: Grid, times: IntArray) -> FloatArray:
    """Return how much of the local day, week and year has passed at each time, (..., 3), in [0, 1).

    Parameters
    ----------
    times : (...)
        Epoch seconds.
    """
    clock = grid.clock(times)
    starts, lengths = _years(clock)
    turns = np.empty((*np.shape(times), TURNS))
    turns[..., 0] = (clock % DAY) / DAY
    turns[..., 1] = ((clock + EPOCH_WEEKDAY * DAY) % WEEK) / WEEK
    turns[..., 2] = (clock - starts) / lengths
    return np.minimum(turns, BELOW_ONE)


def _season(grid: Grid, rows: int) -> Callable[[IntArray], IntArray]:
    """Return the function that computes the places of times in a season of so many rows."""
    step = _fixed_step(grid)
    if step in {DAY, WEEK} and rows == {DAY: YEAR_DAYS, WEEK: YEAR_WEEKS}[step]:
        return partial(_year_places, grid, step)
    if isinstance(grid, FixedGrid) and rows * grid.seconds in {DAY, WEEK}:
        return partial(_clock_places, grid, rows)
    if isinstance(grid, MonthGrid) and rows * grid.months == YEAR_MONTHS:
        return partial(_month_places, grid)
    return lambda times: grid.split(times)[0] % rows


def _fixed_step(grid: Grid) -> int | None:
    """Return the seconds between two rows if they are always the same number of days or seconds, else None."""
    if isinstance(grid, FixedGrid):
        return grid.seconds
    if isinstance(grid, WeekGrid) and grid.step == DAY:
        # One observed day is a row a week, seven are a row a day.
        return {1: WEEK, len(WEEKDAYS): DAY}.get(sum(bool(ranges) for ranges in grid.days))
    return None


def _clock_places(grid: FixedGrid, rows: int, times: IntArray) -> IntArray:
    length = rows * grid.seconds
    first = EPOCH_WEEKDAY * DAY if length == WEEK else 0
    return ((grid.clock(times) + first) % length) // grid.seconds


def _year_places(grid: Grid, step: int, times: IntArray) -> IntArray:
    clock = grid.clock(times)
    starts, lengths = _years(clock)
    days = (clock - starts) // DAY
    days -= (days >= LEAP_DAY) & (lengths > YEAR_DAYS * DAY)
    return days if step == DAY else np.minimum(days * DAY // WEEK, YEAR_WEEKS - 1)


def _month_places(grid: MonthGrid, times: IntArray) -> IntArray:
    months = grid.clock(times).astype("datetime64[s]").astype("datetime64[M]").astype(np.int64)
    places: IntArray = months % YEAR_MONTHS // grid.months
    return places


def _years(clock: IntArray) -> tuple[IntArray, IntArray]:
    """Return the start of the year and its length, both in seconds and (...), at times of a local clock."""
    years = np.asarray(clock).astype("datetime64[s]").astype("datetime64[Y]")
    starts = years.astype("datetime64[s]").astype(np.int64)
    ends = (years + 1).astype("datetime64[s]").astype(np.int64)
    return starts, ends - starts
