"""Find the grid of a data set from the times of its training rows.

Months are tried first, then a week with closed days or hours, then a fixed step. A day or an hour counts as closed if
it has (nearly) no rows and if it is too unlikely that so many rows were lost there by chance.
"""

from __future__ import annotations

import math

import numpy as np

from flts.errors import SeriesTooShortError
from flts.forecasting.grid import (
    DAY,
    EPOCH_WEEKDAY,
    HOUR,
    LAST_DAY,
    MINUTE,
    WEEK,
    WEEKDAYS,
    FixedGrid,
    Grid,
    IntArray,
    MonthGrid,
    Ranges,
    WeekGrid,
    days_of_months,
    phase_of_months,
)
from flts.times.numbers import FIRST_SECOND, LAST_SECOND

LEAST_MONTH_SECONDS = 27 * DAY
"""Seconds between two rows of different months, at least: a row may be a day early or late in February."""
NEAR_SHARE = 0.1
"""Share of a step; rows that are closer to their grid time are at it."""
USUAL_STEPS = (
    *(1, 2, 5, 10, 15, 20, 30),
    *(MINUTE * count for count in (1, 2, 3, 5, 10, 12, 15, 20, 30)),
    *(HOUR * count for count in (1, 2, 3, 4, 6, 8, 12, 24)),
    WEEK,
)
"""Seconds of the steps that loggers are set to."""
MOST = 0.5
"""Share of the differences that have to be at a step."""
NEARLY_ALL = 0.9
"""Share of the rows that have to be near the multiples of a usual step."""
LEAST_WEEKS, LEAST_DAYS = 2, 3
"""Weeks that a week with closed days needs at least, and days that a day with closed hours needs."""
RARE_SHARE = 0.1
"""A day or an hour with rows on a smaller share of its dates is closed, and its rows are left out."""
CHANCE = 1e-3
"""Probability of losing all rows of an open day or hour by chance, below which it is closed."""


def observed_step(times: IntArray) -> int:
    """Return the usual difference between neighbouring times in seconds.

    It is the most common one, of equally common ones the smallest. If the times stay within `NEAR_SHARE` of a usual
    step (`USUAL_STEPS`) around its multiples, it is that step.

    Raises
    ------
    SeriesTooShortError
        With fewer than two rows.
    """
    if len(times) < 2:  # noqa: PLR2004 - a difference needs two times
        msg = f"a step needs at least 2 rows; there are {len(times)}"
        raise SeriesTooShortError(msg, field="train")
    differences = np.diff(times)
    if (differences == differences[0]).all():
        return int(differences[0])
    step = most_common(differences)
    for usual in () if step in USUAL_STEPS else USUAL_STEPS:
        near = NEAR_SHARE * usual
        shifts = (times - times[0] + usual // 2) % usual - usual // 2
        if (np.abs(differences - usual) < near).mean() >= MOST and (np.abs(shifts) < near).mean() >= NEARLY_ALL:
            return usual
    return step


def snapped(times: IntArray, grid: Grid, *, phase: int | None = None) -> IntArray:
    """Return times with those that are less than `NEAR_SHARE` of a step from a grid time moved to it, (n,).

    Times stay as they are if two of them would become equal, or if one would leave the years 1 to 9999.

    Parameters
    ----------
    times : (n,)
        Epoch seconds, strictly increasing.
    grid : Grid
    phase : int, optional
        Remainder of the rows on a fixed grid, by default the most common one.
    """
    positions, remainders = grid.split(times)
    usual = 0 if grid.is_calendar else remainders[:1] if phase is None else phase
    if (remainders == usual).all():
        return times
    if grid.is_calendar:
        before, after = grid.at(positions), grid.at(positions + 1)
    else:
        offset = (remainders - (most_common(remainders) if phase is None else phase)) % grid.step_seconds
        before, after = times - offset, times - offset + grid.step_seconds
    near = NEAR_SHARE * grid.step_seconds
    moved = np.where(times - before < near, before, np.where(after - times < near, after, times))
    is_possible = moved[0] >= FIRST_SECOND and moved[-1] <= LAST_SECOND and (np.diff(moved) > 0).all()
    return moved if is_possible else times


def find_grid(times: IntArray, zone: str | None = None) -> Grid:
    """Return the grid of times.

    Parameters
    ----------
    times : (n,)
        Epoch seconds, strictly increasing.
    zone : str, optional
        IANA name of the time zone of the data set.

    Raises
    ------
    SeriesTooShortError
        With fewer than two rows.
    """
    step = observed_step(times)
    clock = FixedGrid(1, zone).clock(times)
    return month_grid(clock, zone=zone) or fixed_grid(clock, step, zone)


def fixed_grid(clock: IntArray, step: int, zone: str | None = None) -> Grid:
    """Return the grid of rows at a step, with the days and hours that they lack left out.

    In a zone, rows more than an hour apart are at the same clock times in summer and winter.

    Parameters
    ----------
    clock : (n,)
        Seconds on the clock of the data set.
    step : int
        Seconds.
    zone : str, optional
    """
    ordered = np.unique(clock) if zone else clock  # the clock repeats an hour in autumn
    return week_grid(snapped(ordered, FixedGrid(step)), step, zone=zone) or every_day(ordered, step, zone)


def every_day(clock: IntArray, step: int, zone: str | None = None) -> Grid:
    """Return the grid of rows at a step at all days and hours; parameters as in `fixed_grid`."""
    base = DAY if step == WEEK else step
    if zone is None or base <= HOUR or DAY % base:
        return FixedGrid(step, zone)
    phase = most_common(clock % base)
    ranges = ((phase, phase + DAY - base),)
    day = most_common(_weekday(clock // DAY)) if step == WEEK else None
    return WeekGrid(base, tuple(ranges if day in (None, at) else () for at in range(len(WEEKDAYS))), zone)


def month_grid(clock: IntArray, step: int | None = None, *, zone: str | None = None) -> MonthGrid | None:
    """Return the grid of rows of which each is in another month and at the same day, or None.

    Parameters
    ----------
    clock : (n,)
        Seconds on the clock of the data set, strictly increasing.
    step : int, optional
        Months between two rows; by default the greatest that all rows share.
    """
    if len(clock) > 1 and np.diff(clock).min() < LEAST_MONTH_SECONDS:
        return None
    days, seconds = np.divmod(clock, DAY)
    months = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    apart = np.diff(months)
    step = step or math.gcd(*apart.tolist())
    if (apart < 1).any() or step < 1:
        return None
    in_month = days - months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) + 1
    lengths = days_of_months(months)
    second = most_common(seconds)
    near = int(NEAR_SHARE * MonthGrid(step).step_seconds)
    # The exact day comes first, then the days that people mean by rows of varying days.
    for day, within in ((int(in_month.max()), 0), (LAST_DAY, near), (1, near), (int(np.median(in_month)), near)):
        late = (in_month - np.minimum(day, lengths)) * DAY + seconds - second
        if (np.abs(late) <= within).all():
            return MonthGrid(step, phase_of_months(int(months[0]), step), day, second, zone)
    return None


def week_grid(clock: IntArray, step: int, *, zone: str | None = None) -> WeekGrid | None:
    """Return the grid of rows that lack days or hours of every week, or None.

    Parameters
    ----------
    clock : (n,)
        Seconds on the clock of the data set, strictly increasing.
    step : int
        Seconds between two rows.
    """
    if (np.diff(clock) == step).all():
        return None
    base = DAY if step % DAY == 0 and step < WEEK else step
    if DAY % base or base < MINUTE:
        return None
    phase = most_common(clock % base)
    rows = clock[clock % base == phase] - phase
    days, slots = np.divmod(rows, DAY)
    slots //= base
    dates = np.unique(days)
    open_days = _open_days(dates)
    if open_days is None:
        return None
    ranges = _open_slots(days, slots, dates, open_days, DAY // base)
    if ranges is None:
        return None
    full = len(open_days) == len(WEEKDAYS) and all(runs == ((0, DAY // base - 1),) for runs in ranges.values())
    if full:
        return None
    seconds = {
        day: tuple((phase + first * base, phase + last * base) for first, last in runs) for day, runs in ranges.items()
    }
    return WeekGrid(base, tuple(seconds.get(day, ()) for day in range(len(WEEKDAYS))), zone)


def _open_days(dates: IntArray) -> list[int] | None:
    """Return the open days of the week, or None if rows are too few or too sparse to know them."""
    span = np.arange(dates[0], dates[-1] + 1)
    had = np.bincount(_weekday(dates), minlength=7)
    could = np.bincount(_weekday(span), minlength=7)
    if len(span) < LEAST_WEEKS * len(WEEKDAYS):
        return list(range(len(WEEKDAYS))) if len(span) >= LEAST_DAYS else None
    shares = had / could
    usual = shares >= RARE_SHARE
    rate = had[usual].sum() / could[usual].sum()
    closed = (shares < RARE_SHARE) & ((1 - rate) ** could < CHANCE)
    return np.flatnonzero(~closed).tolist()


def _open_slots(
    days: IntArray, slots: IntArray, dates: IntArray, open_days: list[int], per_day: int
) -> dict[int, Ranges] | None:
    """Return the ranges of open slots of each open day, or None if a day would have none."""
    weekdays = _weekday(days)
    kept = np.isin(weekdays, open_days)
    counts = np.zeros((len(WEEKDAYS), per_day), dtype=np.int64)
    np.add.at(counts, (weekdays[kept], slots[kept]), 1)
    had = np.bincount(_weekday(dates), minlength=7) * np.isin(np.arange(7), open_days)
    total = int(had.sum())
    shares = counts.sum(axis=0) / total
    usual = shares >= RARE_SHARE
    if not usual.any():
        return None
    rate = float(shares[usual].mean())
    if total < LEAST_DAYS or (1 - rate) ** total >= CHANCE:
        usual[:] = True
    ranges: dict[int, Ranges] = {}
    for day in open_days:
        own = counts[day] / max(int(had[day]), 1)
        # A day of the week may close earlier than the others, but only if enough weeks show it.
        closes = (own < RARE_SHARE) & ((1 - rate) ** had[day] < CHANCE) & (had[day] >= LEAST_DAYS)
        ranges[day] = _runs(usual & ~closes)
        if not ranges[day]:
            return None
    return ranges


def _runs(marks: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Ranges:
    """Return the first and last index of each run of true marks."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marks, [False]]).astype(np.int8)))
    return tuple((int(start), int(stop) - 1) for start, stop in edges.reshape(-1, 2))


def _weekday(days: IntArray) -> IntArray:
    weekdays: IntArray = (days + EPOCH_WEEKDAY) % 7
    return weekdays


def most_common(values: IntArray) -> int:
    """Return the most common of values, (n,); of equally common ones, the smallest."""
    found, counts = np.unique(values, return_counts=True)
    return int(found[np.argmax(counts)])
