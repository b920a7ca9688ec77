"""Read the setting ``STEP``: a step in words, as reports show it (`Grid.text`).

``1 month`` leaves the day of the month to the rows, ``1 h`` the hours without rows. ``1 month, last day`` and
``1 h, all hours`` do not.
"""

from __future__ import annotations

import re
from typing import NoReturn

import numpy as np

from flts.errors import RejectedError
from flts.forecasting.grid import (
    BUSINESS_DAYS,
    DAY,
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
    phase_of_months,
)
from flts.forecasting.observed_grid import every_day, find_grid, fixed_grid, month_grid, observed_step

MOST_MONTHS = 1_200
UNIT_SECONDS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1),
    **dict.fromkeys(("min", "minute", "minutes"), MINUTE),
    **dict.fromkeys(("h", "hour", "hours"), HOUR),
    **dict.fromkeys(("d", "day", "days"), DAY),
    **dict.fromkeys(("w", "week", "weeks"), WEEK),
}
"""Seconds by name of a unit."""
UNIT_MONTHS = {
    **dict.fromkeys(("month", "months"), 1),
    **dict.fromkeys(("quarter", "quarters"), 3),
    **dict.fromkeys(("y", "year", "years"), 12),
}
"""Months by name of a unit."""
_STEP = re.compile(r"(\d+)?\s*([a-z]+(?: days?)?)")
_AT = re.compile(r"(.*?)\s*\bat (\d{1,2}:\d{2}(?::\d{2})?)")
_HOURS = re.compile(r"(\d{1,2}:\d{2}(?::\d{2})?) to (\d{1,2}:\d{2}(?::\d{2})?)")
_EXAMPLES = "10 min, 1 h, 1 day, 1 business day, 1 week, 1 month, 3 months, last day, 1 year"


def grid_of(times: IntArray, step: str, zone: str | None = None) -> Grid:
    """Return the grid of rows: the observed one, or what ``STEP`` says where it says it.

    Parameters
    ----------
    times : (n,)
        Epoch seconds of the training rows, strictly increasing.
    step : str
        ``STEP``; empty for the observed grid.
    zone : str, optional
        IANA name of the time zone of the data set.

    Raises
    ------
    RejectedError
        ``bad_setting`` with field ``STEP``; the message shows how steps are written.
    SeriesTooShortError
        If the grid has to be observed and there are fewer than two rows.
    """
    if not step.strip():
        return find_grid(times, zone)
    text, _, detail = (part.strip() for part in step.strip().lower().partition(","))
    if (at := _AT.fullmatch(text)) and at[1] in ("1 business day", "business day"):
        return _days(list(BUSINESS_DAYS), _second(at[2], step), zone)
    count, unit = count_and_unit(text) or (0, "")
    clock = FixedGrid(1, zone).clock(times)
    if is_business_day(unit) and count == 1 and not detail:
        return _days(list(BUSINESS_DAYS), 0, zone)
    if unit in UNIT_MONTHS and 1 <= count * UNIT_MONTHS[unit] <= MOST_MONTHS:
        return _month_step(clock, count * UNIT_MONTHS[unit], detail, step, zone)
    if unit not in UNIT_SECONDS or count == 0:
        _refuse(step)
    return _fixed_step(clock, count * UNIT_SECONDS[unit], detail, step, zone)


def count_and_unit(text: str) -> tuple[int, str] | None:
    """Return the number and the unit of a duration in small letters, ``14 days``; the number is 1 if it is left out.

    The unit may be an unknown word. None if the text is no duration.
    """
    match = _STEP.fullmatch(text)
    return (int(match[1] or 1), match[2]) if match else None


def is_business_day(unit: str) -> bool:
    """Return whether a unit is business days."""
    return unit in ("business day", "business days", "b")


def _month_step(clock: IntArray, months: int, detail: str, step: str, zone: str | None) -> Grid:
    if not detail:
        observed = month_grid(clock, months, zone=zone)
        if observed is None:
            msg = (
                f"STEP={step}: the rows are on no common day of the month; name the day: {step}, first day, or "
                f"{step}, last day, or {step}, day 15"
            )
            raise RejectedError(msg, code="bad_setting", field="STEP")
        return observed
    second = 0
    if at := _AT.fullmatch(detail):
        detail, second = at[1], _second(at[2], step)
    named = {"first day": "1", "last day": str(LAST_DAY)}.get(detail) or detail.removeprefix("day ")
    day = int(named) if re.fullmatch(r"\d{1,2}", named) else 0
    if not 1 <= day <= LAST_DAY:
        _refuse(step)
    first = int(clock[0].astype("datetime64[s]").astype("datetime64[M]").astype("int64"))
    return MonthGrid(months, phase_of_months(first, months), day, second, zone)


def _fixed_step(clock: IntArray, seconds: int, detail: str, step: str, zone: str | None) -> Grid:
    if detail in ("", "every day", "all hours"):
        if not detail and seconds >= observed_step(np.unique(clock)):
            return fixed_grid(clock, seconds, zone)
        return every_day(clock, seconds, zone)
    if seconds in (DAY, WEEK):
        at = _AT.fullmatch(detail)
        named = at[1] if at else detail
        days = list(range(len(WEEKDAYS))) if named == "every day" and seconds == DAY else _weekdays(named)
        if not days or (seconds == WEEK and len(days) > 1):
            _refuse(step)
        return _days(days, _second(at[2], step) if at else 0, zone)
    if seconds > DAY or DAY % seconds or seconds < MINUTE:
        _refuse(step)
    observed: list[Ranges] = [()] * len(WEEKDAYS)
    for part in re.split(r",\s*(?=\d|[a-z, ]+ \d)", detail):
        start = _HOURS.search(part)
        days = _weekdays(part[: start.start()].strip()) if start and start.start() else list(range(len(WEEKDAYS)))
        ranges = tuple((_second(first, step), _second(last, step)) for first, last in _HOURS.findall(part))
        if not days or not ranges or any(first > last or (last - first) % seconds for first, last in ranges):
            _refuse(step)
        for day in days:
            observed[day] = ranges
    return WeekGrid(seconds, tuple(observed), zone)


def _days(days: list[int], second: int, zone: str | None) -> WeekGrid:
    return WeekGrid(DAY, tuple(((second, second),) if day in days else () for day in range(len(WEEKDAYS))), zone)


def _weekdays(text: str) -> list[int]:
    """Return days of the week from their names: ``monday to saturday``, ``monday, tuesday and friday``."""
    names = [name.lower() for name in WEEKDAYS]
    if span := re.fullmatch(r"([a-z]+) to ([a-z]+)", text):
        if span[1] in names and span[2] in names:
            return list(range(names.index(span[1]), names.index(span[2]) + 1))
        return []
    parts = [part for part in re.split(r",\s*|\s+and\s+", text) if part]
    return sorted(names.index(part) for part in parts) if parts and set(parts) <= set(names) else []


def _second(clock: str, step: str) -> int:
    hours, minutes, *seconds = (int(part) for part in clock.split(":"))
    second = hours * HOUR + minutes * MINUTE + sum(seconds)
    if second >= DAY:
        _refuse(step)
    return second


def _refuse(step: str) -> NoReturn:
    msg = f"STEP={step[:80]!r} is no step; steps are written as in a report: {_EXAMPLES}"
    raise RejectedError(msg, code="bad_setting", field="STEP")
