"""Signs of summer time in times without a zone: an hour that occurs twice in autumn, or is missing in spring."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]

SECOND = 1_000_000
HOUR = 3_600 * SECOND
STEPS_SEEN = 100_000
"""Rows from which the usual step is found."""
MOST_HOURS_NAMED = 400
"""Repeated or missing hours that are looked at: one a year and series, of several hundred series."""
_SUNDAY = 6
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The hour that a clock shows when summer time ends or begins, and an example of a zone in which it does.
_EUROPE = {1: "Europe/London", 2: "Europe/Berlin", 3: "Europe/Helsinki"}
_ELSEWHERE = {1: "America/New_York", 2: "Australia/Sydney"}


def looks_like_end_of_summer_time(times: IntArray) -> int | None:
    """Return the position of the first row that repeats an hour, if all repeats of the file are ends of summer time.

    Parameters
    ----------
    times : (n,)
        Microseconds without a zone, ascending or descending, in the file's order.
    """
    step, sign = _usual_step(times)
    if step == 0 or step > HOUR:
        return None
    back = np.flatnonzero(times[1:] <= times[:-1] if sign > 0 else times[1:] >= times[:-1]) + 1
    if len(back) == 0 or len(back) > MOST_HOURS_NAMED * (HOUR // step):
        return None
    if not all(zone_of_autumn(int(min(times[row], times[row - 1]))) for row in back.tolist()):
        return None
    # Either the whole hour occurs twice, one pass after the other, or each of its times does, sorted by the clock.
    passes = times[back] - times[back - 1] == sign * (step - HOUR)
    pairs = times[back] == times[back - 1]
    hours = np.unique(times[back] // HOUR)
    sorted_by_clock = bool(pairs.all()) and len(back) == len(hours) * (HOUR // step)
    return int(back[0]) if bool(passes.all()) or sorted_by_clock else None


def looks_like_start_of_summer_time(times: IntArray) -> int | None:
    """Return the position of the first row after an hour that is missing as at the beginning of summer time."""
    step, sign = _usual_step(times)
    if step == 0 or step > HOUR:
        return None
    rows = np.flatnonzero(np.diff(times) == sign * (step + HOUR)) + 1
    for row in rows[:MOST_HOURS_NAMED].tolist():
        before = int(min(times[row], times[row - 1])) + step
        if before % HOUR == 0 and zone_of_spring(before):
            return int(row)
    return None


def zone_of_autumn(micros: int) -> str | None:
    """Return an example of a zone whose summer time ends with the hour of this local time, or None."""
    moment = _EPOCH + timedelta(microseconds=micros)
    if moment.weekday() != _SUNDAY:
        return None
    last_of_october = moment.month == 10 and moment.day >= 25  # noqa: PLR2004 - the last Sunday of October
    if last_of_october and moment.hour in _EUROPE:
        return _EUROPE[moment.hour]
    first_week = moment.day <= 7  # noqa: PLR2004 - the first Sunday of a month
    if moment.month == 11 and first_week and moment.hour == 1:  # noqa: PLR2004 - November
        return _ELSEWHERE[1]
    if moment.month == 4 and first_week and moment.hour == 2:  # noqa: PLR2004 - 2 o'clock in April
        return _ELSEWHERE[2]
    return None


def zone_of_spring(micros: int) -> str | None:
    """Return an example of a zone whose summer time begins with the hour of this local time, or None."""
    moment = _EPOCH + timedelta(microseconds=micros)
    if moment.weekday() != _SUNDAY:
        return None
    last_of_march = moment.month == 3 and moment.day >= 25  # noqa: PLR2004 - the last Sunday of March
    if last_of_march and moment.hour in _EUROPE:
        return _EUROPE[moment.hour]
    second_of_march = moment.month == 3 and 8 <= moment.day <= 14  # noqa: PLR2004 - the second Sunday of March
    if second_of_march and moment.hour == 2:  # noqa: PLR2004 - 2 o'clock
        return _ELSEWHERE[1]
    first_of_october = moment.month == 10 and moment.day <= 7  # noqa: PLR2004 - the first Sunday of October
    return _ELSEWHERE[2] if first_of_october and moment.hour == 2 else None  # noqa: PLR2004 - 2 o'clock


def _usual_step(times: IntArray) -> tuple[int, int]:
    """Return the most common step, and 1 for ascending or -1 for descending times."""
    steps = np.diff(times[:STEPS_SEEN])
    values, counts = np.unique(steps[steps != 0], return_counts=True)
    if len(values) == 0:
        return 0, 1
    step = int(values[counts.argmax()])
    return abs(step), 1 if step > 0 else -1
