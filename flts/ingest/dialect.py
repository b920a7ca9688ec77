"""Guess how a text file is written, by its first lines: separator, header, units row, marks of numbers.

The separator is the mark that divides the lines into the same number of cells, most of which are times, numbers or
missing. The header is the line above the first line with a time.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from flts.ingest.cell import THOUSANDS_MARKS, TRUTH, CellFormat
from flts.ingest.timelike import is_time, is_time_of_day

SEPARATORS = (",", ";", "\t", "|", " ")
SAMPLE_LINES = 16  # lines that decide about the separator, half from the start and half from the end of the head
TEST_LINES = 16  # lines that decide which columns have times and numbers
# Each part has one end, so that a cell of many digits that is no number is refused in linear time.
_NUMBER_LIKE = re.compile(r"[+-]?(?:[\d.,]*['\u2019 \u00a0\u202f])*[.,]*\d[\d.,]*(?:[eE][+-]?\d+)?")
_OTHER_SEPARATOR = re.compile(r"[,;\t|]")
_LINE_END = re.compile(r"\r\n|\n|\r")
_PLAIN = CellFormat()


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a text file is written. `as_dict` is its JSON.

    Parameters
    ----------
    skip_rows
        Lines above the header, blank lines included.
    separator
        One character; a space means one or more spaces.
    """

    encoding: str = "utf-8"
    skip_rows: int = 0
    separator: str = ","
    has_header: bool = True
    units_rows: int = 0
    decimal: str = "."
    thousands: str = ""
    missing: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.separator not in SEPARATORS or self.decimal not in {".", ","} or self.skip_rows < 0:
            msg = f"not a dialect: {asdict(self)}"
            raise ValueError(msg)
        if self.thousands not in THOUSANDS_MARKS or self.thousands == self.decimal:
            msg = f"not a thousands mark beside {self.decimal!r}: {self.thousands!r}"
            raise ValueError(msg)

    @property
    def cells(self) -> CellFormat:
        """The meaning of its cells."""
        return CellFormat(self.decimal, self.thousands, self.missing)

    @property
    def lines_above(self) -> int:
        """Lines above the first row."""
        return self.skip_rows + self.has_header + self.units_rows

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "missing": list(self.missing)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Dialect:
        """Return the dialect of `as_dict`; unknown fields are ignored."""
        known = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        return cls(**{**known, "missing": tuple(known.get("missing", ()))})


@dataclass(frozen=True, slots=True)
class Shape:
    """Where the table begins, and its first cells."""

    separator: str
    skip_rows: int
    header: list[str] | None
    units_rows: int
    """Lines below the header without any number or time, blank lines included."""
    rows: list[list[str]]
    """Cells of the first rows and of the last rows of the head."""
    columns: int
    widest: int
    """Cells of the longest line, which may be none of the rows."""

    def cells_without_times(self) -> Iterator[str]:
        """Return the cells of all columns but those with times."""
        rows = [row for row in self.rows if len(row) == self.columns]
        for column in zip(*rows, strict=True):
            if not any(map(is_time, column[:TEST_LINES])):
                yield from column


def lines_of(text: str) -> list[str]:
    """Return the lines of a text without their ends."""
    lines = _LINE_END.split(text)
    return lines[:-1] if lines[-1] == "" else lines


def split_row(line: str, separator: str) -> list[str]:
    """Return the cells of a line; none if it is blank, the line itself if a quote is not closed."""
    if separator == " ":
        line = re.sub(" +", " ", line.strip(" "))
    if '"' not in line:
        return line.split(separator) if line.strip(" ") else []
    try:
        return next(csv.reader([line], delimiter=separator, strict=True), [])
    except csv.Error:
        return [line]


def find_shape(first: list[str], last: list[str], *, time_names: frozenset[str], skip_rows: int | None) -> Shape:
    """Return the separator, the header and the first rows of a file.

    Parameters
    ----------
    first, last
        Lines from the start and from the end of the head.
    time_names
        Names of time columns, in small letters.
    skip_rows
        Lines above the header, if a setting says so.
    """
    start = skip_rows or 0
    lines = [line for line in [*first[start:], *last] if line.strip(" ")]
    half = SAMPLE_LINES // 2
    separator = guess_separator(lines if len(lines) <= SAMPLE_LINES else [*lines[:half], *lines[-half:]])
    cells = [split_row(line, separator) for line in first[start:]]
    tail = [split_row(line, separator) for line in last]
    filled = [row for row in [*cells, *tail] if row]
    counts = Counter(map(len, filled))
    columns = max(counts, key=lambda count: (counts[count], count == len(filled[0]), count), default=0)
    widest = max(map(len, filled), default=0)
    rows = _RowTest([row for row in [*cells, *tail] if len(row) == columns], columns)
    begins = next((at for at, row in enumerate(cells) if rows.test(row)), len(cells))
    header_at = _header_at(
        cells[:begins], columns, time_names, any_row=begins < len(cells), given=skip_rows is not None
    )
    if header_at is None:
        return Shape(separator, start + begins, None, 0, [*cells[begins:], *tail], columns, widest)
    below = cells[header_at + 1 : begins]
    units = len(below) if begins < len(cells) and all(_are_units(row, columns) for row in below) else 0
    first_row = header_at + 1 + units
    return Shape(separator, start + header_at, cells[header_at], units, [*cells[first_row:], *tail], columns, widest)


def guess_separator(lines: list[str]) -> str:
    """Return the separator with the most lines of equal length and the most cells that are times or numbers."""
    scores = {separator: _score(lines, separator) for separator in SEPARATORS}
    return max(SEPARATORS, key=lambda separator: scores[separator])


def _score(lines: list[str], separator: str) -> float:
    with_it = sum(separator in line for line in lines)
    if 2 * with_it < len(lines):
        return 0.0
    rows = [split_row(line, separator) for line in lines]
    if not rows:
        return 0.0
    counts = Counter(len(row) for row in rows[1:] or rows)
    columns = max(counts, key=lambda count: (counts[count], count))
    if columns < 2:  # noqa: PLR2004 - a separator makes at least two cells
        return 0.0
    same = [row for row in rows if len(row) == columns]
    known = sum(map(_weight, itertools.chain.from_iterable(same)))
    return len(same) / len(rows) * known / (len(same) * columns)


def _weight(cell: str) -> float:
    text = cell.strip()
    if _NUMBER_LIKE.fullmatch(text) or is_time(text) or is_time_of_day(text) or text.lower() in TRUTH:
        return 1.0
    if _PLAIN.is_missing(text):
        return 0.9
    return 0.0 if _OTHER_SEPARATOR.search(text) else 0.4


class _RowTest:
    """Tests whether a line is a row of data.

    The time cell of a row is a time. If no column has times, a cell is a number where most rows have numbers.
    """

    def __init__(self, lines: list[list[str]], columns: int) -> None:
        later = lines[len(lines) // 2 :][-TEST_LINES:]
        self._columns = columns
        self._time_at = next((at for at in range(columns) if _most(later, at, is_time)), None)
        self._numbers = [at for at in range(columns) if _most(later, at, _is_number)]

    def test(self, row: list[str]) -> bool:
        if len(row) != self._columns:
            return False
        if self._time_at is not None and row[self._time_at].strip():
            return is_time(row[self._time_at])
        return any(_is_number(row[at]) for at in self._numbers)


def _most(lines: list[list[str]], at: int, test: Callable[[str], bool]) -> bool:
    return 2 * sum(1 for row in lines if test(row[at])) >= max(len(lines), 1)


def _header_at(
    above: list[list[str]], columns: int, time_names: frozenset[str], *, any_row: bool, given: bool
) -> int | None:
    """Return the header's position among the lines above the first row: the last one that names a time column."""
    likely = [at for at, row in enumerate(above) if _can_be_header(row, columns)]
    if not likely:
        return None
    if given or not any_row:
        return likely[0]
    named = [at for at in likely if any(cell.strip().lower() in time_names for cell in above[at])]
    if named:
        return named[-1]
    complete = [at for at in likely if all(cell.strip() for cell in above[at])]
    return complete[-1] if complete and likely[-1] - complete[-1] == 1 else likely[-1]


def _can_be_header(row: list[str], columns: int) -> bool:
    """Return whether a line has as many cells as the rows, apart from empty ones at the end or a nameless first one."""
    named = len(row)
    while named and not row[named - 1].strip():
        named -= 1
    return columns - 1 <= len(row) and 0 < named <= columns


def _are_units(row: list[str], columns: int) -> bool:
    return len(row) in {0, columns} and not any(_is_number(cell) or is_time(cell) for cell in row)


def _is_number(cell: str) -> bool:
    return _NUMBER_LIKE.fullmatch(cell.strip()) is not None
