"""Convert the characters of cells of one shape to microseconds, all cells at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flts.times.pattern import Fields

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
Characters = NDArray[np.uint8]
"""ASCII codes, (n cells, n characters)."""

SECOND = 1_000_000
DAY = 86_400 * SECOND
UNKNOWN_CENTURY = 2000
"""Two-digit years are read as 2000 to 2099 at first. `shift_century` moves them."""
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
FULL_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
_LAST_YEAR = 9999
_ONE_BASED = 1  # the table begins with month 1 of year 1


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """The times of cells."""

    micros: IntArray
    """(n,) microseconds since 1970 on the clock that the cells show; UTC where the cells have an offset."""
    valid: BoolArray
    """(n,) whether the cell is a time at all."""
    offset_seconds: int | None = None
    """The offset of all cells; None if they have none, or not one in common."""
    has_offset: bool = False


def read_fields(cells: Characters, fields: Fields) -> Moments:
    """Return the times of cells of one shape; a cell with an impossible date or letter is not valid.

    Parameters
    ----------
    cells : (n, m)
        ASCII codes of n cells with m characters.
    fields
        The positions that `flts.times.pattern.fields_in` returned for a pattern and the cells' shape.
    """
    reader = _Reader(cells, fields)
    months = reader.months()
    days = reader.days(months)
    micros = days * DAY + reader.clock()
    offsets = reader.offsets()
    if offsets is None:
        return Moments(micros, reader.valid)
    micros -= offsets * SECOND
    same = len(offsets) > 0 and bool((offsets == offsets[0]).all())
    return Moments(micros, reader.valid, int(offsets[0]) if same else None, has_offset=True)


def read_clock(cells: Characters, fields: Fields) -> BoolArray:
    """Return which cells of one shape are a time of day."""
    reader = _Reader(cells, fields)
    reader.clock()
    return reader.valid


def shift_century(micros: IntArray, first_year: int) -> IntArray:
    """Move times of 2000 to 2099 by whole centuries into the 100 years from ``first_year`` on, 1901 at the earliest.

    A century from March 1900 to February 2100 has 36,525 days, so that one shift is right for all of them.
    """
    years = _years(micros)
    centuries = np.ceil((first_year - years) / 100).astype(np.int64)
    return micros + centuries * 36_525 * DAY


def two_digit_years(micros: IntArray) -> IntArray:
    """Return the sorted different last two digits of the years."""
    return np.unique(_years(micros) % 100)


def civil(micros: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Return years, months (1 to 12) and days (1 to 31)."""
    days = np.floor_divide(micros, DAY)
    month = np.searchsorted(_first_days(), days, side="right") - 1
    day = days - _first_days()[month] + 1
    return (month // 12 + 1).astype(np.int64), (month % 12 + 1).astype(np.int64), day.astype(np.int64)


def first_of_month(months: IntArray) -> IntArray:
    """Return the day number, counted from 1970, of the first day of months, counted from January of year 1."""
    return _first_days()[months].astype(np.int64)


class _Reader:
    def __init__(self, cells: Characters, fields: Fields) -> None:
        self._cells = cells
        self._fields = fields
        self.valid: BoolArray = np.ones(len(cells), np.bool_)
        for name, letter in fields.letters.items():
            self.valid &= self._lower(fields.spans[name][0]) == ord(letter)
        if fields.gap is not None and fields.gap[1] - fields.gap[0] == 1:
            gap = self._lower(fields.gap[0])
            self.valid &= (gap == ord("t")) | (gap < ord("a")) | (gap == ord("_"))

    def months(self) -> IntArray:
        """Return months counted from January of year 1."""
        year = self._number("year2") + UNKNOWN_CENTURY if self._has("year2") else self._number("year")
        month: Any = _ONE_BASED
        if self._has("month"):
            month = self._number("month")
        elif self._has("month_name"):
            month = self._month_name()
        elif self._has("quarter"):
            start = self._fields.spans["quarter"][0]
            quarter = self._digits(start + 1, start + 2)
            self.valid &= (self._lower(start) == ord("q")) & (quarter >= 1) & (quarter <= 4)  # noqa: PLR2004 - quarters
            month = quarter * 3 - 2
        self.valid &= (year >= 1) & (month >= 1) & (month <= 12)  # noqa: PLR2004 - months
        months: IntArray = np.where(self.valid, (year - 1) * 12 + month - 1, 0)
        return months

    def days(self, months: IntArray) -> IntArray:
        """Return days since 1970."""
        first = first_of_month(months)
        if self._has("week"):
            return self._week_days(months)
        if not self._has("day"):
            return first
        day = self._number("day")
        self.valid &= (day >= 1) & (day <= first_of_month(months + 1) - first)
        return first + day - 1

    def clock(self) -> IntArray:
        """Return microseconds since midnight."""
        if not self._has("hour"):
            return np.zeros(len(self._cells), np.int64)
        hour = self._number("hour")
        if self._has("am"):
            start = self._fields.spans["am"][0]
            half = self._lower(start)
            self.valid &= ((half == ord("a")) | (half == ord("p"))) & (self._lower(start + 1) == ord("m"))
            self.valid &= (hour >= 1) & (hour <= 12)  # noqa: PLR2004 - hours of half a day
            hour = hour % 12 + 12 * (half == ord("p"))
        seconds = hour * 3600
        for kind, factor in (("minute", 60), ("second", 1)):
            if self._has(kind):
                number = self._number(kind)
                self.valid &= number <= 59  # noqa: PLR2004 - minutes and seconds
                seconds = seconds + number * factor
        micros = seconds * SECOND
        if self._has("fraction"):
            start, stop = self._fields.spans["fraction"]
            micros = micros + np.rint(self._number("fraction") * 10.0 ** (6 - (stop - start))).astype(np.int64)
        self.valid &= micros <= DAY  # 24:00 is the end of the day
        return micros

    def offsets(self) -> IntArray | None:
        """Return the seconds by which the cells' clocks are before UTC, or None if the cells have no offset."""
        if not self._has("offset"):
            return None
        start, stop = self._fields.spans["offset"]
        width = stop - start
        zero = np.zeros(len(self._cells), np.int64)
        if width == len("Z"):
            self.valid &= self._lower(start) == ord("z")
            return zero
        if width == len("UTC"):
            names = [self._is_text(start, name) for name in ("utc", "gmt")]
            self.valid &= names[0] | names[1]
            return zero
        hours = self._digits(start + 1, start + 3)
        minutes = self._digits(stop - 2, stop) if width > len("+00") else zero
        self.valid &= (hours <= 23) & (minutes <= 59)  # noqa: PLR2004 - as in datetime.timezone
        sign = np.where(self._cells[:, start] == ord("-"), -1, 1)
        seconds: IntArray = sign * (hours * 3600 + minutes * 60)
        return seconds

    def _week_days(self, months: IntArray) -> IntArray:
        start, stop = self._fields.spans["week"]
        week = self._digits(start + 1, stop)
        weekday = self._number("weekday") if self._has("weekday") else _ONE_BASED
        january = months - months % 12
        monday = _first_monday(january)
        day = monday + (week - 1) * 7
        last_year = january >= (_LAST_YEAR - 1) * 12
        next_monday = np.where(last_year, monday + 364, _first_monday(np.where(last_year, january, january + 12)))
        self.valid &= (self._lower(start) == ord("w")) & (week >= 1) & (day < next_monday)
        self.valid &= (weekday >= 1) & (weekday <= 7)  # noqa: PLR2004 - days of a week
        days: IntArray = day + weekday - 1
        return days

    def _month_name(self) -> IntArray:
        start, stop = self._fields.spans["month_name"]
        month = np.zeros(len(self._cells), np.int64)
        for at, (name, full) in enumerate(zip(MONTHS, FULL_MONTHS, strict=True), start=1):
            for text in {name, full, "sept"} if name == "sep" else {name, full}:
                if len(text) == stop - start:
                    month[self._is_text(start, text)] = at
        return month

    def _is_text(self, start: int, text: str) -> BoolArray:
        same: BoolArray = np.ones(len(self._cells), np.bool_)
        for at, letter in enumerate(text):
            same &= self._lower(start + at) == ord(letter)
        return same

    def _has(self, kind: str) -> bool:
        return kind in self._fields.spans

    def _number(self, kind: str) -> IntArray:
        return self._digits(*self._fields.spans[kind])

    def _digits(self, start: int, stop: int) -> IntArray:
        number = self._cells[:, start].astype(np.int64) - ord("0")
        for at in range(start + 1, stop):
            number *= 10
            number += self._cells[:, at]
            number -= ord("0")
        return number

    def _lower(self, at: int) -> Characters:
        code = self._cells[:, at]
        return np.where((code >= ord("A")) & (code <= ord("Z")), code + 32, code).astype(np.uint8)


@lru_cache(maxsize=1)
def _first_days() -> NDArray[np.int32]:
    months = np.arange("0001-01", "10000-02", dtype="datetime64[M]")
    return months.astype("datetime64[D]").astype(np.int32)


def _first_monday(januaries: IntArray) -> IntArray:
    """Return the Monday of the ISO week 1, which contains 4 January."""
    fourth = first_of_month(januaries) + 3
    return fourth - (fourth + 3) % 7  # day 0, 1 January 1970, was a Thursday


def _years(micros: IntArray) -> IntArray:
    return civil(micros)[0]
