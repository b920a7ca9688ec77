"""The grid of a data set: it maps times to whole positions and back.

A grid is a fixed step, calendar months, or the slots of a week (business days, opening hours). Positions that are one
apart are neighbouring rows. Times that the calendar does not contain have no row: they are neither filled, fitted,
scored nor forecast.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flts.errors import RejectedError
from flts.times.zones import SECOND, offsets_at, to_utc, zone_of

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

MINUTE, HOUR, DAY = 60, 3_600, 86_400
WEEK = 7 * DAY
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday, day 3 where Monday is day 0
YEAR_SECONDS = 31_556_952  # the mean year of the Gregorian calendar
YEAR_MONTHS = 12
EPOCH_MONTHS = 1970 * YEAR_MONTHS  # months from January of year 0 to January 1970
LAST_DAY = 31
"""``MonthGrid.day`` of rows on the last day of the month; a day that a month lacks is its last day."""
BUSINESS_DAYS = (0, 1, 2, 3, 4)

Ranges = tuple[tuple[int, int], ...]
"""First and last second of the day of each range of slots."""


class Grid(ABC):
    """Maps epoch seconds to positions and back.

    Attributes
    ----------
    zone : str, optional
        IANA name of the time zone whose clock the calendar and the time features follow; None is UTC.
    """

    zone: str | None

    @property
    @abstractmethod
    def step_seconds(self) -> int:
        """Seconds between two rows; the mean if they vary, and inside a day if rows are not at all hours."""

    @property
    @abstractmethod
    def text(self) -> str:
        """The grid in words, as reports show it and ``STEP`` accepts it: ``1 month, first day``."""

    @property
    @abstractmethod
    def seasons(self) -> tuple[int, ...]:
        """Rows of the seasons that the calendar suggests, the shortest first."""

    @abstractmethod
    def split(self, times: IntArray) -> tuple[IntArray, IntArray]:
        """Return positions and remainders, each (...): a time is its position's time plus the remainder in seconds.

        Neighbouring rows have positions one apart and equal remainders. A remainder is never negative.
        """

    @abstractmethod
    def at(self, positions: IntArray) -> IntArray:
        """Return the times of positions, (...)."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, from which `grid_from_dict` restores the grid."""

    @property
    def is_calendar(self) -> bool:
        """Whether times exist that the grid does not contain."""
        return True

    @property
    def is_plain(self) -> bool:
        """Whether the grid is a fixed step in UTC, which ``step_seconds`` describes completely."""
        return not self.is_calendar and self.zone is None

    def clock(self, times: IntArray) -> IntArray:
        """Return what the zone's clock shows at times, (...), as seconds since 1970-01-01 00:00 on that clock."""
        if self.zone is None:
            return times
        shape = np.shape(times)
        return (np.ravel(times) + offsets_at(np.ravel(times) * SECOND, self.zone) // SECOND).reshape(shape)

    def _times(self, clock: IntArray) -> IntArray:
        """Return the times at which the zone's clock showed ``clock``; a skipped hour begins after the change."""
        if self.zone is None:
            return clock
        local = to_utc(np.ravel(clock) * SECOND, self.zone, whole_days=True).micros // SECOND
        return local.reshape(np.shape(clock))

    def _zone_values(self) -> dict[str, Any]:
        return {} if self.zone is None else {"zone": self.zone}

    def after(self, times: IntArray, steps: int) -> IntArray:
        """Return the times of the next rows, (..., steps), after each of ``times``, (...)."""
        return self.at(self.split(times)[0][..., None] + np.arange(1, steps + 1))

    def before(self, times: IntArray, steps: int) -> IntArray:
        """Return the times of the last ``steps`` rows up to each of ``times``, itself included, (..., steps)."""
        return self.at(self.split(times)[0][..., None] + np.arange(1 - steps, 1))

    def breaks(self, times: IntArray) -> BoolArray:
        """Return whether each row but the first is not exactly one step after the row before it, (n - 1,)."""
        positions, remainders = self.split(times)
        broken: BoolArray = (np.diff(positions) != 1) | (np.diff(remainders) != 0)
        return broken


@dataclass(frozen=True)
class FixedGrid(Grid):
    """Rows a fixed number of seconds apart."""

    seconds: int
    zone: str | None = None

    @property
    def step_seconds(self) -> int:
        """See `Grid`."""
        return self.seconds

    @property
    def is_calendar(self) -> bool:
        """See `Grid`."""
        return False

    @property
    def text(self) -> str:
        """See `Grid`."""
        return step_text(self.seconds)

    @cached_property
    def seasons(self) -> tuple[int, ...]:
        """See `Grid`: a day and a week; for steps of a day and more also a year."""
        whole = [length // self.seconds for length in (DAY, WEEK) if length % self.seconds == 0]
        year = round(YEAR_SECONDS / self.seconds) if self.seconds in (DAY, WEEK) else 0
        return tuple(steps for steps in (*whole, year) if steps > 1)

    def split(self, times: IntArray) -> tuple[IntArray, IntArray]:
        """See `Grid`; the remainder is the phase of the time."""
        return np.divmod(times, self.seconds)

    def at(self, positions: IntArray) -> IntArray:
        """See `Grid`."""
        return positions * self.seconds

    def after(self, times: IntArray, steps: int) -> IntArray:
        """See `Grid`."""
        return times[..., None] + self.seconds * np.arange(1, steps + 1)

    def before(self, times: IntArray, steps: int) -> IntArray:
        """See `Grid`."""
        return times[..., None] + self.seconds * np.arange(1 - steps, 1)

    def breaks(self, times: IntArray) -> BoolArray:
        """See `Grid`."""
        broken: BoolArray = np.diff(times) != self.seconds
        return broken

    def to_dict(self) -> dict[str, Any]:
        """See `Grid`."""
        return {"kind": "fixed", "step_seconds": self.seconds, **self._zone_values()}


@dataclass(frozen=True)
class MonthGrid(Grid):
    """One row every so many calendar months, on one day of the month at one time of the day.

    Parameters
    ----------
    months : int
        1 for months, 3 for quarters, 12 for years.
    phase : int
        Month of the rows: the count of months since January of year 0, modulo ``months``.
    day : int
        1 to 31; a month that lacks the day has its row on its last day.
    second : int
        Second of the day.
    """

    months: int
    phase: int = 0
    day: int = 1
    second: int = 0
    zone: str | None = None

    @property
    def step_seconds(self) -> int:
        """See `Grid`."""
        return self.months * YEAR_SECONDS // YEAR_MONTHS

    @property
    def text(self) -> str:
        """See `Grid`."""
        years, rest = divmod(self.months, YEAR_MONTHS)
        step = _counted(self.months, "month") if rest else _counted(years, "year")
        day = {1: "first day", LAST_DAY: "last day"}.get(self.day, f"day {self.day}")
        return f"{step}, {day}" + (f" at {_clock(self.second)}" if self.second else "")

    @property
    def seasons(self) -> tuple[int, ...]:
        """See `Grid`: a year."""
        rows, rest = divmod(YEAR_MONTHS, self.months)
        return (rows,) if rest == 0 and rows > 1 else ()

    def split(self, times: IntArray) -> tuple[IntArray, IntArray]:
        """See `Grid`."""
        months = self.clock(times).astype("datetime64[s]").astype("datetime64[M]").astype(np.int64)
        positions = (months - self._first) // self.months
        positions -= self.at(positions) > times
        return positions, times - self.at(positions)

    def at(self, positions: IntArray) -> IntArray:
        """See `Grid`."""
        months = positions * self.months + self._first
        starts = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
        return self._times((starts + np.minimum(self.day, days_of_months(months)) - 1) * DAY + self.second)

    def to_dict(self) -> dict[str, Any]:
        """See `Grid`."""
        own = {"months": self.months, "phase": self.phase, "day": self.day, "second": self.second}
        return {"kind": "months", **own, **self._zone_values()}

    @property
    def _first(self) -> int:
        """Month of position 0, counted from January 1970."""
        return (self.phase - EPOCH_MONTHS) % self.months


@dataclass(frozen=True)
class WeekGrid(Grid):
    """Rows at the same times of every week: business days, opening hours.

    Parameters
    ----------
    step : int
        Seconds between two rows of a range.
    days : 7 tuples of ranges
        From Monday on: first and last second of the day of each range; empty for a day without rows.
    """

    step: int
    days: tuple[Ranges, ...]
    zone: str | None = None

    @property
    def step_seconds(self) -> int:
        """See `Grid`."""
        return WEEK if len(self._slots) == 1 else self.step

    @property
    def text(self) -> str:
        """See `Grid`."""
        observed = [at for at, ranges in enumerate(self.days) if ranges]
        if self.step == DAY:
            [second] = {ranges[0][0] for ranges in self.days if ranges}
            at = f" at {_clock(second)}" if second else ""
            if len(observed) == len(WEEKDAYS):
                return f"1 day, every day{at}" if at else "1 day"
            if len(observed) == 1:
                return f"1 week, {WEEKDAYS[observed[0]]}{at}"
            if tuple(observed) == BUSINESS_DAYS:
                return f"1 business day{at}"
            return f"1 day, {days_text(observed)}{at}"
        groups: dict[Ranges, list[int]] = {}
        for day in observed:
            groups.setdefault(self.days[day], []).append(day)
        parts = []
        for ranges, days in groups.items():
            hours = " and ".join(f"{_clock(first)} to {_clock(last)}" for first, last in ranges)
            parts.append(hours if len(days) == len(WEEKDAYS) else f"{days_text(days)} {hours}")
        return ", ".join([step_text(self.step), *parts])

    @cached_property
    def seasons(self) -> tuple[int, ...]:
        """See `Grid`: a day, if all observed days have the same slots, and a week; for a row a day also a year."""
        if len(self._slots) in (1, len(WEEKDAYS)) and self.step == DAY:
            return FixedGrid(WEEK // len(self._slots)).seasons
        observed = {ranges for ranges in self.days if ranges}
        day = _slots_of(next(iter(observed)), self.step) if len(observed) == 1 else ()
        return tuple(dict.fromkeys(rows for rows in (len(day), len(self._slots)) if rows > 1))

    def split(self, times: IntArray) -> tuple[IntArray, IntArray]:
        """See `Grid`."""
        weeks, seconds = np.divmod(self.clock(times) + EPOCH_WEEKDAY * DAY, WEEK)
        ranks = np.searchsorted(self._slots, seconds, side="right") - 1
        positions = weeks * len(self._slots) + ranks
        # In the second pass of a repeated hour the clock shows a slot whose time was in the first pass.
        return positions, times - self.at(positions)

    def at(self, positions: IntArray) -> IntArray:
        """See `Grid`."""
        weeks, ranks = np.divmod(positions, len(self._slots))
        return self._times(weeks * WEEK + self._slots[ranks] - EPOCH_WEEKDAY * DAY)

    def to_dict(self) -> dict[str, Any]:
        """See `Grid`."""
        days = [[list(bounds) for bounds in ranges] for ranges in self.days]
        return {"kind": "week", "step_seconds": self.step, "days": days, **self._zone_values()}

    @cached_property
    def _slots(self) -> IntArray:
        """Seconds since Monday 00:00 of the slots of a week, increasing."""
        slots = [at * DAY + second for at, ranges in enumerate(self.days) for second in _slots_of(ranges, self.step)]
        return np.array(slots, dtype=np.int64)


def grid_from_dict(values: Mapping[str, Any], *, field: str = "grid") -> Grid:
    """Read a grid that ``to_dict`` wrote.

    Raises
    ------
    RejectedError
        ``bad_recipe`` with the given field.
    """
    try:
        return _READERS[values["kind"]](values)
    except (KeyError, TypeError, ValueError, AttributeError, RejectedError) as error:
        msg = f"the grid is not what it should be: {values!r:.200}"
        raise RejectedError(msg, code="bad_recipe", field=field) from error


def phase_of_months(month: int, step: int) -> int:
    """Return ``MonthGrid.phase`` of a grid with a row in a month, counted from January 1970."""
    return (month + EPOCH_MONTHS) % step


def days_of_months(months: IntArray) -> IntArray:
    """Return the number of days of months, (...), counted from January 1970."""
    starts = np.asarray(months).astype("datetime64[M]").astype("datetime64[D]")
    ends = (np.asarray(months) + 1).astype("datetime64[M]").astype("datetime64[D]")
    days: IntArray = (ends - starts).astype(np.int64)
    return days


def step_text(seconds: int) -> str:
    """Return a number of seconds in its largest whole unit: ``10 min``, ``1 h``, ``2 weeks``."""
    for unit, name in ((WEEK, "week"), (DAY, "day"), (HOUR, "h"), (MINUTE, "min")):
        if seconds % unit == 0:
            count = seconds // unit
            return f"{count} {name}" if name in ("h", "min") else _counted(count, name)
    return f"{seconds} s"


def days_text(days: list[int]) -> str:
    """Return days of the week in words, a sequence of three and more as ``Monday to Saturday``."""
    if len(days) > 2 and days == list(range(days[0], days[-1] + 1)):  # noqa: PLR2004 - "Monday to Tuesday" is odd
        return f"{WEEKDAYS[days[0]]} to {WEEKDAYS[days[-1]]}"
    names = [WEEKDAYS[day] for day in days]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _counted(count: int, unit: str) -> str:
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"


def _clock(second: int) -> str:
    text = f"{second // HOUR:02d}:{second % HOUR // MINUTE:02d}"
    return f"{text}:{second % MINUTE:02d}" if second % MINUTE else text


def _slots_of(ranges: Ranges, step: int) -> tuple[int, ...]:
    return tuple(second for first, last in ranges for second in range(first, last + 1, step))


def _whole(value: object, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError
    return value


def _read_fixed(values: Mapping[str, Any]) -> Grid:
    return FixedGrid(_whole(values["step_seconds"], 1, 2**53), _read_zone(values))


def _read_months(values: Mapping[str, Any]) -> Grid:
    months = _whole(values["months"], 1, 1_200)
    phase = _whole(values["phase"], 0, months - 1)
    day, second = _whole(values["day"], 1, LAST_DAY), _whole(values["second"], 0, DAY - 1)
    return MonthGrid(months, phase, day, second, _read_zone(values))


def _read_week(values: Mapping[str, Any]) -> Grid:
    step = _whole(values["step_seconds"], MINUTE, DAY)
    days = tuple(_read_ranges(ranges, step) for ranges in values["days"])
    if len(days) != len(WEEKDAYS) or not any(days):
        raise ValueError
    if step == DAY and len({ranges[0] for ranges in days if ranges}) > 1:
        raise ValueError
    return WeekGrid(step, days, _read_zone(values))


def _read_zone(values: Mapping[str, Any]) -> str | None:
    zone = values.get("zone")
    if zone is not None:
        zone_of(str(zone))
    return None if zone is None else str(zone)


def _read_ranges(ranges: list[list[int]], step: int) -> Ranges:
    read = []
    free = 0
    for first, last in ranges:
        start = _whole(first, free, DAY - 1)
        end = _whole(last, start, DAY - 1)
        if (end - start) % step:
            raise ValueError
        read.append((start, end))
        free = end + 1
    return tuple(read)


_READERS = {"fixed": _read_fixed, "months": _read_months, "week": _read_week}
