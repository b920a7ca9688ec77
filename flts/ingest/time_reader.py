"""Read the time column of a file block by block: find the form of its times, and convert them to UTC.

The reader keeps the forms that all cells so far have, and the times of each. Most files have one form from the first
cell on. Two forms remain as long as no cell shows which of two numbers is the day.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from flts.errors import RejectedError
from flts.forecasting.series import BoolArray, IntArray
from flts.ingest.time_cells import TimeCells
from flts.times.fields import SECOND, civil, read_fields, shift_century, two_digit_years
from flts.times.format import TimeFormat, in_range
from flts.times.numbers import LIKELY, NUMBERS, read_numbers
from flts.times.pattern import (
    Pattern,
    date_part,
    fields_in,
    has,
    is_date_first,
    parse_pattern,
    patterns_of,
    shape_of,
    styled,
    text_of,
)
from flts.times.regularity import decides, regularity
from flts.times.score import COMPACT_YEARS, YEARS
from flts.times.summer_time import (
    looks_like_end_of_summer_time,
    looks_like_start_of_summer_time,
    zone_of_autumn,
    zone_of_spring,
)
from flts.times.zones import to_utc, zone_of

LATEST_SHORT_YEAR = 2039
"""Two-digit years end in this year at the latest."""
YEARS_BEFORE = 80
"""Years. Of the 100 years that two digits stand for, so many are before the last year of the file."""
SHOWN_CHARACTERS = 60
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")
_ISO = parse_pattern("YYYY-MM-DD")
_YEAR = parse_pattern("YYYY")
_UNIT_NAMES = {"epoch": "seconds", "epoch ms": "milliseconds", "epoch us": "microseconds"}
_FULL_NAMES = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
               "November", "December")  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class ReadTimes:
    """The times of a file."""

    times: IntArray
    """(n,) microseconds since 1970, UTC, in the file's order."""
    format: TimeFormat
    """The form in which the file writes them."""
    notes: tuple[str, ...] = ()
    """One sentence for each assumption, with the setting that decides otherwise."""


class TimeReader:
    """Reads the cells of one time column.

    Parameters
    ----------
    column
        Name of the column, for messages.
    time_format
        The setting ``TIME_FORMAT``; None to find the form.
    time_zone
        The setting ``TIME_ZONE``, the zone of times without an offset; None is UTC.
    like
        The form of another file of the same data set. It decides if this file's cells have several forms.

    Raises
    ------
    RejectedError
        ``bad_setting`` for ``TIME_FORMAT`` or ``TIME_ZONE``.
    """

    def __init__(
        self,
        column: str,
        *,
        time_format: str | None = None,
        time_zone: str | None = None,
        like: TimeFormat | None = None,
    ) -> None:
        self._like = like
        self._column = column
        self._zone = time_zone or None
        self._candidates: list[_Candidate] = []
        self._setting = time_format or ""
        self._is_set = bool(time_format)
        self._first_cell = ""
        self._rows = 0
        self._first_row = 1
        if self._zone is not None:
            zone_of(self._zone)
        if time_format:
            pattern = TimeFormat.of_setting(time_format).pattern
            self._candidates = [_Candidate(pattern if pattern in NUMBERS else _without_clock(parse_pattern(pattern)))]

    def feed(self, cells: pa.Array[Any], *, first_row: int) -> None:
        """Read the cells of the next block, whose first row has this number in the file's data, counted from 1.

        Raises
        ------
        RejectedError
            ``missing_time``, ``bad_time`` or ``ambiguous_time``; the message names the row and the column.
        """
        if len(cells) == 0:
            return
        block = TimeCells(cells)
        empty = block.first_empty()
        if empty is not None:
            msg = f"row {first_row + empty} has no time in column {self._column}"
            raise RejectedError(msg, code="missing_time", field=self._column)
        if self._rows == 0:
            self._first_cell = block.text(0)
            self._first_row = first_row
            if not self._is_set:
                self._candidates = _candidates_of(self._first_cell)
        failures = [(candidate, candidate.read(block)) for candidate in self._candidates]
        remaining = [candidate for candidate, row in failures if row is None]
        if not remaining:
            row = max((row for _, row in failures if row is not None), default=0)
            raise self._no_form(
                block.text(row), first_row + row, [candidate for candidate, at in failures if at == row]
            )
        self._candidates = remaining
        self._rows += len(cells)

    def finish(self) -> ReadTimes:
        """Decide on the form, and return the times.

        Raises
        ------
        RejectedError
            ``ambiguous_time`` if two forms are possible; ``no_such_time`` or ``repeated_local_hour`` at a clock
            change; the message names the setting that decides.
        """
        if self._rows == 0:
            return ReadTimes(np.empty(0, np.int64), TimeFormat("YYYY-MM-DDTHH:mm:ss", self._zone))
        notes: list[str] = []
        readings = [_Reading.of(candidate, self._zone) for candidate in self._without_numbers()]
        self._candidates = []
        chosen = self._choose(readings, notes)
        del readings
        notes.extend(self._number_notes(chosen))
        if chosen.format.pattern == "YYYY" and not self._is_set:
            self._check_years(chosen)
        micros = self._in_utc(chosen, notes)
        if not in_range(micros).all():
            row = int(np.argmin(in_range(micros)))
            msg = f"row {row + self._first_row}, column {self._column}: the time is outside of the years 1 to 9999"
            raise RejectedError(msg, code="bad_time", field=self._column)
        return ReadTimes(micros, chosen.format, tuple(notes))

    def _without_numbers(self) -> list[_Candidate]:
        """Return the candidates; digits that are all compact dates are no epoch seconds."""
        patterns = [candidate for candidate in self._candidates if not isinstance(candidate.form, str)]
        return patterns or self._candidates

    def _choose(self, readings: list[_Reading], notes: list[str]) -> _Reading:
        different = [readings[0]]
        for reading in readings[1:]:
            if not any(np.array_equal(reading.micros, other.micros) for other in different):
                different.append(reading)
        if len(different) == 1:
            return different[0]
        for reading in different:
            if self._like is not None and _is_like(reading.format, self._like):
                return reading
        at = decides([regularity(reading.micros) for reading in different])
        if at is None:
            raise self._ambiguous(different)
        others = " or ".join(f"TIME_FORMAT={reading.setting}" for reading in different if reading is not different[at])
        notes.append(
            f"column {self._column}: times are read as {different[at].setting}, because only this order of day and "
            f"month gives even steps; {others} decides otherwise"
        )
        return different[at]

    def _ambiguous(self, readings: list[_Reading]) -> RejectedError:
        row = int(np.flatnonzero(readings[0].micros != readings[1].micros)[0])
        cell = (
            str(readings[0].format.write(readings[0].micros[row : row + 1] // SECOND)[0]) if row else self._first_cell
        )
        one, other = (_day(int(reading.micros[row])) for reading in readings[:2])
        if one.split()[-1] == other.split()[-1]:
            one = one.rsplit(" ", 1)[0]
        settings = " or ".join(f"TIME_FORMAT={reading.setting}" for reading in readings)
        msg = f"row {row + self._first_row}, column {self._column}: {cell!r} may be {one} or {other}: set {settings}"
        return RejectedError(msg, code="ambiguous_time", field=self._column)

    def _no_form(self, cell: str, row: int, last: list[_Candidate]) -> RejectedError:
        where = f"row {row}, column {self._column}: {cell[:SHOWN_CHARACTERS]!r}"
        if self._is_set:
            msg = f"{where} is not a time of the form {self._setting} (TIME_FORMAT)"
            return RejectedError(msg, code="bad_time", field=self._column)
        if _NUMBER.fullmatch(cell) and (not last or any(isinstance(candidate.form, str) for candidate in last)):
            return self._which_number(where)
        if not last:
            msg = f"{where} is not a time in a known form; if it is one, TIME_FORMAT names its form (DD/MM/YYYY HH:mm)"
        else:
            forms = " or ".join(dict.fromkeys(candidate.text for candidate in last))
            msg = (
                f"{where} is not a time of the form {forms}, which the rows before have ({self._first_cell!r}); "
                "TIME_FORMAT names the form"
            )
            if self._rows == 0 and row == self._first_row:
                msg = f"{where} is not a time: there is no such day or time of day"
        return RejectedError(msg, code="bad_time", field=self._column)

    def _which_number(self, where: str) -> RejectedError:
        msg = (
            f"{where} is a number that may be seconds since 1970, an Excel day number or a year: set TIME_FORMAT to "
            "epoch, epoch ms, epoch us, excel, year or a pattern such as YYYYMMDD"
        )
        return RejectedError(msg, code="ambiguous_time", field=self._column)

    def _check_years(self, chosen: _Reading) -> None:
        steps = np.diff(chosen.micros)
        if not ((steps > 0).all() or (steps < 0).all()):
            where = f"row {self._first_row}, column {self._column}: {self._first_cell!r}"
            raise self._which_number(where)

    def _number_notes(self, chosen: _Reading) -> Iterator[str]:
        form = chosen.format
        if has_short_years(form):
            years = civil(chosen.micros)[0]
            yield (
                f"column {self._column}: years of two digits are read as {int(years.min())} to {int(years.max())}, "
                f"the latest that end by {LATEST_SHORT_YEAR}"
            )
        if self._is_set:
            return
        if form.pattern == "excel":
            yield (
                f"column {self._column}: {self._first_cell} is read as an Excel day number, "
                f"{_day(int(chosen.micros[0]))}; TIME_FORMAT=epoch decides otherwise"
            )
        elif form.pattern in _UNIT_NAMES and form.pattern != "epoch":
            yield f"column {self._column}: numbers are read as {_UNIT_NAMES[form.pattern]} since 1970 (TIME_FORMAT)"
        elif form.pattern == "YYYY":
            yield f"column {self._column}: numbers are read as years; TIME_FORMAT=epoch decides otherwise"

    def _in_utc(self, chosen: _Reading, notes: list[str]) -> IntArray:
        naive, micros = chosen.naive, chosen.micros
        if isinstance(naive, bool):
            rows: IntArray | None = None
            if not naive:
                return micros
        else:
            rows = np.flatnonzero(naive)
            if len(rows) == 0:
                return micros
        local = micros if rows is None else micros[rows]
        if self._zone is None:
            self._check_summer_time(local, rows, notes)
            return micros
        converted = to_utc(local, self._zone, whole_days=chosen.format.is_whole_days, field=self._column)
        if converted.guessed:
            at = converted.guessed[0]
            notes.append(
                f"column {self._column}: {len(converted.guessed)} times of an hour that the clocks of {self._zone} "
                f"show twice occur once, the first in row {self._row(at, rows)}; they are read as summer time"
            )
        if rows is None:
            return converted.micros
        micros[rows] = converted.micros
        return micros

    def _check_summer_time(self, local: IntArray, rows: IntArray | None, notes: list[str]) -> None:
        autumn = looks_like_end_of_summer_time(local)
        if autumn is not None:
            hour = int(min(local[autumn], local[autumn - 1]))
            msg = (
                f"row {self._row(autumn, rows)}, column {self._column}: the hour from {_moment(hour)} on occurs twice, "
                "as at the end of summer time: set TIME_ZONE to the zone of the times, "
                f"e.g. TIME_ZONE={zone_of_autumn(hour)}"
            )
            raise RejectedError(msg, code="repeated_local_hour", field="TIME_ZONE")
        spring = looks_like_start_of_summer_time(local)
        if spring is not None:
            step = abs(int(local[spring] - local[spring - 1]))
            hour = int(min(local[spring], local[spring - 1])) + step - 3_600 * SECOND
            notes.append(
                f"column {self._column}: the hour from {_moment(hour)} on is missing before row "
                f"{self._row(spring, rows)}, as at the beginning of summer time; if the times are local, "
                f"set TIME_ZONE={zone_of_spring(hour)}"
            )

    def _row(self, at: int, rows: IntArray | None) -> int:
        return self._first_row + (at if rows is None else int(rows[at]))


def has_short_years(form: TimeFormat) -> bool:
    """Return whether years have two digits."""
    return not form.is_number and has(parse_pattern(form.pattern), "year2")


@dataclass(slots=True, eq=False)
class _Candidate:
    """A form that all cells so far have: a pattern, or the unit of numbers."""

    form: Pattern | str
    lowest: float = -np.inf
    highest: float = np.inf
    """Range of numbers, or of years, outside of which cells do not have this form."""
    micros: list[IntArray] = field(default_factory=list)
    naive: list[bool | BoolArray] = field(default_factory=list)
    style: Pattern | None = None
    """The form as the cell with the most fields writes it."""
    narrow: set[str] = field(default_factory=set)
    """Fields that a cell wrote with one digit."""
    clocks: set[bool] = field(default_factory=set)
    """Whether the times of day have AM or PM."""
    offsets: set[int | None] = field(default_factory=set)
    is_float: bool = False

    @property
    def text(self) -> str:
        """The pattern, or the unit."""
        return self.form if isinstance(self.form, str) else text_of(self.style or self.form)

    def read(self, block: TimeCells) -> int | None:
        """Keep a block's times; return the first row that does not have this form, or None."""
        if isinstance(self.form, str):
            return self._read_numbers(block, self.form)
        if self.form == _ISO:
            found = block.iso()
            if found is not None and in_range(found[0]).all():
                self._keep_iso(block, *found)
                return None
        return self._read_pattern(block, self.form)

    def _read_numbers(self, block: TimeCells, unit: str) -> int | None:
        numbers = block.numbers()
        micros, valid = read_numbers(numbers, unit)
        valid &= (numbers >= self.lowest) & (numbers < self.highest)
        if not valid.all():
            return int(np.argmin(valid))
        self.is_float = self.is_float or (not self.micros and "." in block.text(0))
        self.micros.append(micros)
        self.naive.append(unit == "excel")
        return None

    def _keep_iso(self, block: TimeCells, micros: IntArray, has_offset: bool, offset: str) -> None:
        cell = block.longest()
        fields = fields_in(_ISO, shape_of(cell))
        if fields is not None:
            self._keep_style(styled(_ISO, cell, fields))
        self.micros.append(micros)
        self.naive.append(not has_offset)
        if has_offset:
            self.offsets.add(_offset_seconds(offset) if offset else None)

    def _read_pattern(self, block: TimeCells, form: Pattern) -> int | None:
        micros = np.zeros(len(block), np.int64)
        naive = np.ones(len(block), np.bool_)
        bad = len(block)
        for rows, shape, characters in block.groups():
            fields = fields_in(form, shape) if shape.isascii() else None
            if fields is None:
                bad = min(bad, int(rows[0]))
                break
            moments = read_fields(characters, fields)
            valid = moments.valid & in_range(moments.micros)
            if self.lowest > -np.inf:
                years = civil(moments.micros)[0]
                valid &= (years >= self.lowest) & (years <= self.highest)
            if "hour" in fields.spans:
                self.clocks.add("am" in fields.spans)
            if len(self.clocks) > 1:
                valid[:] = False
            if not valid.all():
                bad = min(bad, int(rows[np.argmin(valid)]))
                continue
            micros[rows], naive[rows] = moments.micros, not moments.has_offset
            if moments.has_offset:
                self.offsets.add(moments.offset_seconds)
            self.narrow.update(kind for kind in ("day", "month", "hour") if _width(fields.spans.get(kind, (0, 2))) == 1)
            self._keep_style(styled(form, characters[0].tobytes().decode("ascii"), fields))
        if bad < len(block):
            return bad
        self.micros.append(micros)
        self.naive.append(bool(naive[0]) if (naive == naive[0]).all() else naive)
        return None

    def _keep_style(self, style: Pattern) -> None:
        if self.style is None or _fields(style) > _fields(self.style):
            self.style = style


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """The times of a file in one of the forms that its cells may have."""

    micros: IntArray
    naive: bool | BoolArray
    format: TimeFormat
    setting: str
    """The value of ``TIME_FORMAT`` that chooses this reading."""

    @classmethod
    def of(cls, candidate: _Candidate, zone: str | None) -> _Reading:
        parts = candidate.naive
        naive: bool | BoolArray = True
        if all(isinstance(part, bool) for part in parts) and len({bool(part) for part in parts}) == 1:
            naive = bool(parts[0])
        else:
            naive = np.concatenate(
                [np.broadcast_to(part, len(block)) for part, block in zip(parts, candidate.micros, strict=True)]
            )
        micros = _joined(candidate.micros)
        if isinstance(candidate.form, str):
            return cls(micros, naive, TimeFormat(candidate.form, zone, is_float=candidate.is_float), candidate.form)
        pattern = _with_widths(candidate.style or candidate.form, candidate.narrow)
        offsets = candidate.offsets
        offset = next(iter(offsets)) if len(offsets) == 1 else None
        made = TimeFormat(text_of(pattern), zone, offset_seconds=offset or 0)
        if has(pattern, "year2"):
            made = replace(made, first_year=_first_year(two_digit_years(micros)))
            micros = shift_century(micros, made.first_year)
        return cls(micros, naive, made, text_of(_without_clock(candidate.form)))


def _candidates_of(cell: str) -> list[_Candidate]:
    """Return the forms that the first cell of a file has."""
    shape = shape_of(cell)
    patterns = patterns_of(shape) if shape.isascii() else ()
    if not _NUMBER.fullmatch(cell):
        return [_Candidate(pattern) for pattern in patterns]
    candidates = [_Candidate(pattern, *COMPACT_YEARS) for pattern in patterns]
    if shape == "0000":
        candidates.append(_Candidate(_YEAR, *YEARS))
    return candidates + [_Candidate(unit, *bounds) for unit, bounds in LIKELY.items()]


def _without_clock(pattern: Pattern) -> Pattern:
    """Return the tokens of the date, if it comes first: any time of day may follow it."""
    return date_part(pattern) if is_date_first(pattern) else pattern


def _is_like(one: TimeFormat, other: TimeFormat) -> bool:
    """Return whether the fields of the date have the same order and the same separators."""
    if one.is_number or other.is_number:
        return one.pattern == other.pattern
    dates = [_without_clock(parse_pattern(form.pattern)) for form in (one, other)]
    first, second = ([(token.kind, token.kind == "literal" and token.text) for token in date] for date in dates)
    return first == second


def _joined(blocks: list[IntArray]) -> IntArray:
    """Copy the blocks into one array and free each copied block, so that memory holds the times about once."""
    times = np.empty(sum(len(block) for block in blocks), np.int64)
    at = len(times)
    while blocks:
        block = blocks.pop()
        at -= len(block)
        times[at : at + len(block)] = block
    return times


def _first_year(years: IntArray) -> int:
    """Return the first of the 100 years that two digits stand for.

    The longest gap between the numbers, taken as a circle, is before the first year of the file: 98, 99, 00, 01 begin
    with 98. The last year is at most `LATEST_SHORT_YEAR`.
    """
    gaps = np.diff(np.append(years, years[0] + 100))
    last = int(years[gaps.argmax()])
    first = int(years[(gaps.argmax() + 1) % len(years)])
    span = (last - first) % 100
    last_year = LATEST_SHORT_YEAR - (LATEST_SHORT_YEAR - last) % 100
    return max(1901, min(last_year - span, last_year - YEARS_BEFORE))


def _with_widths(pattern: Pattern, narrow: set[str]) -> Pattern:
    """Return a pattern whose days, months and hours have one digit if any cell wrote them so."""
    return tuple(
        replace(token, text=token.text[0]) if token.kind in narrow and len(token.text) > 1 else token
        for token in pattern
    )


def _fields(pattern: Pattern) -> int:
    """Return the number of fields of a pattern; a full month name counts more than its abbreviation."""
    return sum(token.kind != "literal" for token in pattern) * 20 + sum(
        len(token.text) for token in pattern if token.kind in {"fraction", "month_name"}
    )


def _width(span: tuple[int, int]) -> int:
    return span[1] - span[0]


def _offset_seconds(text: str) -> int:
    if text in {"Z", "z"}:
        return 0
    digits = text[1:].replace(":", "").ljust(4, "0")
    seconds = int(digits[:2]) * 3600 + int(digits[2:]) * 60
    return -seconds if text[0] == "-" else seconds


def _day(micros: int) -> str:
    year, month, day = (int(part[0]) for part in civil(np.array([micros])))
    return f"{day} {_FULL_NAMES[month - 1]} {year}"


def _moment(micros: int) -> str:
    return str(np.datetime64(micros // SECOND, "s")).replace("T", " ")[:16]
