"""Read the time column of a file block by block: find the form of its times, and convert them to UTC.

The reader keeps the forms that all cells so far have, and the times of each. Most files have one form from the first
cell on. Two forms remain as long as no cell shows which of two numbers is the day.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from flts.errors import RejectedError
from flts.forecasting.series import IntArray
from flts.ingest.time_candidates import (
    LATEST_SHORT_YEAR,
    NUMBER,
    Candidate,
    Reading,
    candidates_of,
    is_like,
    without_clock,
)
from flts.ingest.time_cells import TimeCells
from flts.times.fields import SECOND, civil
from flts.times.format import TimeFormat, in_range
from flts.times.numbers import NUMBERS
from flts.times.pattern import has, parse_pattern
from flts.times.regularity import decides, regularity
from flts.times.summer_time import (
    looks_like_end_of_summer_time,
    looks_like_start_of_summer_time,
    zone_of_autumn,
    zone_of_spring,
)
from flts.times.zones import to_utc, zone_of

SHOWN_CHARACTERS = 60
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
        self._zone = (time_zone or "").strip() or None
        self._candidates: list[Candidate] = []
        self._setting = time_format or ""
        self._is_set = bool(time_format)
        self._first_cell = ""
        self._rows = 0
        self._first_row = 1
        if self._zone is not None:
            zone_of(self._zone)
        if time_format:
            pattern = TimeFormat.of_setting(time_format).pattern
            self._candidates = [Candidate(pattern if pattern in NUMBERS else without_clock(parse_pattern(pattern)))]

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
                self._candidates = candidates_of(self._first_cell)
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
        readings = [Reading.of(candidate, self._zone) for candidate in self._without_numbers()]
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

    def _without_numbers(self) -> list[Candidate]:
        """Return the candidates; digits that are all compact dates are no epoch seconds."""
        patterns = [candidate for candidate in self._candidates if not isinstance(candidate.form, str)]
        return patterns or self._candidates

    def _choose(self, readings: list[Reading], notes: list[str]) -> Reading:
        different = [readings[0]]
        for reading in readings[1:]:
            if not any(np.array_equal(reading.micros, other.micros) for other in different):
                different.append(reading)
        if len(different) == 1:
            return different[0]
        for reading in different:
            if self._like is not None and is_like(reading.format, self._like):
                return reading
        at = decides([regularity(reading.micros) for reading in different])
        if at is None:
            raise self._ambiguous(different)
        others = " or ".join(f"TIME_FORMAT={reading.setting}" for reading in different if reading is not different[at])
        notes.append(
            f"column {self._column}: times are read as {different[at].setting}, because only this form gives "
            f"even steps; {others} decides otherwise"
        )
        return different[at]

    def _ambiguous(self, readings: list[Reading]) -> RejectedError:
        row = int(np.flatnonzero(readings[0].micros != readings[1].micros)[0])
        # The times are not in UTC yet, so that the zone and the offset must not move them again.
        form = replace(readings[0].format, zone=None, offset_seconds=0)
        shown = form.write(readings[0].micros[row : row + 1] // SECOND)[0]
        cell = str(shown) if row else self._first_cell
        one, other = (_day(int(reading.micros[row])) for reading in readings[:2])
        if one.split()[-1] == other.split()[-1]:
            one = one.rsplit(" ", 1)[0]
        settings = " or ".join(f"TIME_FORMAT={reading.setting}" for reading in readings)
        msg = f"row {row + self._first_row}, column {self._column}: {cell!r} may be {one} or {other}: set {settings}"
        return RejectedError(msg, code="ambiguous_time", field=self._column)

    def _no_form(self, cell: str, row: int, last: list[Candidate]) -> RejectedError:
        where = f"row {row}, column {self._column}: {cell[:SHOWN_CHARACTERS]!r}"
        if self._is_set:
            msg = f"{where} is not a time of the form {self._setting} (TIME_FORMAT)"
            return RejectedError(msg, code="bad_time", field=self._column)
        is_first = self._rows == 0 and row == self._first_row
        is_unit = not last or any(isinstance(candidate.form, str) for candidate in last)
        if NUMBER.fullmatch(cell) and (is_first or is_unit):
            return self._which_number(where)
        if not last:
            msg = f"{where} is not a time in a known form; if it is one, TIME_FORMAT names its form (DD/MM/YYYY HH:mm)"
        else:
            forms = " or ".join(dict.fromkeys(candidate.text for candidate in last))
            msg = (
                f"{where} is not a time of the form {forms}, which the rows before have ({self._first_cell!r}); "
                "TIME_FORMAT names the form"
            )
            if is_first:
                msg = f"{where} is not a time: there is no such day or time of day"
        return RejectedError(msg, code="bad_time", field=self._column)

    def _which_number(self, where: str) -> RejectedError:
        msg = (
            f"{where} is a number that may be seconds since 1970, an Excel day number or a year: set TIME_FORMAT to "
            "epoch, epoch ms, epoch us, excel, year or a pattern such as YYYYMMDD"
        )
        return RejectedError(msg, code="ambiguous_time", field=self._column)

    def _check_years(self, chosen: Reading) -> None:
        steps = np.diff(chosen.micros)
        if not ((steps > 0).all() or (steps < 0).all()):
            where = f"row {self._first_row}, column {self._column}: {self._first_cell!r}"
            raise self._which_number(where)

    def _number_notes(self, chosen: Reading) -> Iterator[str]:
        form = chosen.format
        if _has_short_years(form):
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

    def _in_utc(self, chosen: Reading, notes: list[str]) -> IntArray:
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


def _has_short_years(form: TimeFormat) -> bool:
    """Return whether years have two digits."""
    return not form.is_number and has(parse_pattern(form.pattern), "year2")


def _day(micros: int) -> str:
    year, month, day = (int(part[0]) for part in civil(np.array([micros])))
    return f"{day} {_FULL_NAMES[month - 1]} {year}"


def _moment(micros: int) -> str:
    return str(np.datetime64(micros // SECOND, "s")).replace("T", " ")[:16]
