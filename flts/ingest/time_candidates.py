"""The forms that the time cells of a file may have, with the times of each form."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

import numpy as np

from flts.forecasting.series import BoolArray, IntArray
from flts.ingest.time_cells import TimeCells
from flts.times.fields import Characters, civil, read_fields, shift_century, two_digit_years
from flts.times.format import TimeFormat, in_range
from flts.times.numbers import LIKELY, read_numbers
from flts.times.pattern import (
    Fields,
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
from flts.times.score import COMPACT_YEARS, YEARS

LATEST_SHORT_YEAR = 2039
"""Two-digit years end in this year at the latest."""
YEARS_BEFORE = 80
"""Years. Of the 100 years that two digits stand for, so many are before the last year of the file."""
NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")
_ISO = parse_pattern("YYYY-MM-DD")
_YEAR = parse_pattern("YYYY")


@dataclass(slots=True, eq=False)
class Candidate:
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
    padded: set[str] = field(default_factory=set)
    """Fields that a cell wrote with a leading zero."""
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
            if found is not None and in_range(np.array([found[0].min(), found[0].max()])).all():
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
            self._note_widths(characters, fields)
            self._keep_style(styled(form, characters[0].tobytes().decode("ascii"), fields))
        if bad < len(block):
            return bad
        self.micros.append(micros)
        self.naive.append(bool(naive[0]) if (naive == naive[0]).all() else naive)
        return None

    def _note_widths(self, characters: Characters, fields: Fields) -> None:
        for kind in ("day", "month", "hour"):
            start, stop = fields.spans.get(kind, (0, 0))
            if stop - start == 1:
                self.narrow.add(kind)
            elif stop > start and kind not in self.padded and (characters[:, start] == ord("0")).any():
                self.padded.add(kind)

    def _keep_style(self, style: Pattern) -> None:
        if self.style is None or _fields(style) > _fields(self.style):
            self.style = style


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """The times of a file in one of the forms that its cells may have."""

    micros: IntArray
    naive: bool | BoolArray
    format: TimeFormat
    setting: str
    """The value of ``TIME_FORMAT`` that chooses this reading."""

    @classmethod
    def of(cls, candidate: Candidate, zone: str | None) -> Reading:
        """Return the reading of a form that all cells have; the candidate gives up its blocks of times."""
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
        pattern = _with_widths(candidate.style or candidate.form, candidate)
        offsets = candidate.offsets
        offset = next(iter(offsets)) if len(offsets) == 1 else None
        made = TimeFormat(text_of(pattern), zone, offset_seconds=offset or 0)
        if has(pattern, "year2"):
            made = replace(made, first_year=_first_year(two_digit_years(micros)))
            micros = shift_century(micros, made.first_year)
        return cls(micros, naive, made, text_of(without_clock(candidate.form)))


def candidates_of(cell: str) -> list[Candidate]:
    """Return the forms that the first cell of a file has."""
    shape = shape_of(cell)
    patterns = patterns_of(shape) if shape.isascii() else ()
    if not NUMBER.fullmatch(cell):
        return [Candidate(pattern) for pattern in patterns]
    candidates = [Candidate(pattern, *COMPACT_YEARS) for pattern in patterns]
    if shape == "0000":
        candidates.append(Candidate(_YEAR, *YEARS))
    if re.match("0[0-9]", cell):
        return candidates  # numbers have no leading zero
    return candidates + [Candidate(unit, *bounds) for unit, bounds in LIKELY.items()]


def without_clock(pattern: Pattern) -> Pattern:
    """Return the tokens of the date, if it comes first: any time of day may follow it."""
    return date_part(pattern) if is_date_first(pattern) else pattern


def is_like(one: TimeFormat, other: TimeFormat) -> bool:
    """Return whether the fields of the date have the same order and the same separators."""
    if one.is_number or other.is_number:
        return one.pattern == other.pattern
    dates = [without_clock(parse_pattern(form.pattern)) for form in (one, other)]
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


def _with_widths(pattern: Pattern, candidate: Candidate) -> Pattern:
    """Return a pattern whose days, months and hours have one digit if any cell wrote them so.

    A field whose cells all have two digits without a leading zero is written as the day or the month is.
    """
    narrow = candidate.narrow
    if narrow & {"day", "month"} and has(pattern, "month"):
        narrow = narrow | ({"day", "month", "hour"} - candidate.padded)
    return tuple(
        replace(token, text=token.text[0]) if token.kind in narrow and len(token.text) > 1 else token
        for token in pattern
    )


def _fields(pattern: Pattern) -> int:
    """Return the number of fields of a pattern; a full month name counts more than its abbreviation."""
    return sum(token.kind != "literal" for token in pattern) * 20 + sum(
        len(token.text) for token in pattern if token.kind in {"fraction", "month_name"}
    )


def _offset_seconds(text: str) -> int:
    if text in {"Z", "z"}:
        return 0
    digits = text[1:].replace(":", "").ljust(4, "0")
    seconds = int(digits[:2]) * 3600 + int(digits[2:]) * 60
    return -seconds if text[0] == "-" else seconds
