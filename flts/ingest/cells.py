"""Convert the cells of a block to numbers by Arrow. The meaning of a cell is that of `flts.ingest.cell`."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from flts.errors import RejectedError
from flts.forecasting.series import BoolArray, FloatArray
from flts.ingest.arrow import doubles, truths
from flts.ingest.cell import MISSING, THOUSANDS_MARKS, CellFormat
from flts.ingest.columns import Columns
from flts.ingest.problems import Problems

MAX_CELL_CHARACTERS = 100  # characters; a float64 needs 24
COMMON_MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")
LARGEST_EXACT = 2.0**53  # above it, float64 has no odd integers
_LINE_END = ord("\n")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_TRUE, _FALSE = (
    sorted({form for word in words for form in (word, word.upper(), word.title())})
    for words in (("true", "yes"), ("false", "no"))
)
_YES, _NO = "true|yes", "false|no"
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")


@dataclass(frozen=True, slots=True, eq=False)
class Wrong:
    """The cells of a column, in one block, that are no numbers."""

    rows: BoolArray
    problem: Callable[[int], RejectedError]
    """Describes the cell in a row of the block."""


@dataclass(frozen=True, slots=True)
class Cells:
    """The cells of one block: times as text, other cells as float64."""

    times: pa.Array[Any]
    values: FloatArray
    series: pa.Array[Any] | None
    """The column that names the series of a row, or the first column of text, which may name it."""
    wrong: tuple[Wrong, ...] = ()
    """Wrong cells of a file whose series are known; those of other files are problems of the file."""


class BlockReader:
    """Reads blocks of whole lines in UTF-8.

    Parameters
    ----------
    separator
        One character that Arrow can split by.
    """

    def __init__(self, columns: Columns, separator: str, meaning: CellFormat, problems: Problems, name: str) -> None:
        self._columns = columns
        self.series = next((at for at in (columns.series, *columns.texts) if at is not None), None)
        self._separator = separator
        self._meaning = meaning
        self._problems = problems
        self._name = name
        self._null_values = list(COMMON_MISSING)
        self._refused: set[int] = set()
        self._wrong: list[Wrong] = []
        self.inexact: set[str] = set()
        """Columns with integers that a float64 cannot hold exactly."""

    def read(self, block: bytes, *, first_row: int) -> Cells | None:
        """Return a block's cells, or None if its lines are not rows.

        Problems: ``ragged_row``, ``broken_quotes``, ``not_a_number``, ``decimal_comma``, ``infinite_value``,
        ``cell_too_long``, with column and row.
        """
        numbers = self._fast
        try:
            table = self._parse(block, first_row, as_text=False)
        except pa.ArrowInvalid:
            # With a long list of marks Arrow is slower by a fifth, so it gets all marks at the first other cell.
            self._null_values = self._all_null_values
            try:
                table = self._parse(block, first_row, as_text=False)
            except pa.ArrowInvalid:
                table = self._parse(block, first_row, as_text=True)
                numbers = self._careful
        if table is None:
            return None
        self._wrong = []
        values = np.column_stack([numbers(table, at, first_row) for at in self._columns.numeric])
        self._check_range(values, first_row)
        parts = [self._text(table, at, first_row) for at in self._columns.times]
        times = parts[0] if len(parts) == 1 else _joined(parts, self._columns.time_marks)
        series: Any = None
        if self.series is not None:
            series = pc.utf8_slice_codeunits(
                pa.concat_arrays(table.column(str(self.series)).chunks), 0, MAX_CELL_CHARACTERS
            )
        return Cells(times, values, series, tuple(self._wrong))

    def _parse(self, block: bytes, first_row: int, *, as_text: bool) -> pa.Table | None:
        ragged: list[tuple[int, int, int]] = []

        def note_ragged(row: Any) -> Literal["skip"]:
            ragged.append((row.number, row.actual_columns, row.expected_columns))
            return "skip"

        columns = self._columns
        # Arrow refuses two columns with the same name, so every column is called by its position.
        types = {str(at): pa.string() if as_text else self._type(at) for at in columns.numeric}
        types |= {str(at): pa.string() for at in columns.times}
        if self.series is not None:
            types[str(self.series)] = pa.string()
        if block.startswith(_BYTE_ORDER_MARK):
            # Arrow removes a byte order mark at the start of every block. The mark of the file was removed before, so
            # these bytes belong to a cell. Another mark is put before them, and Arrow removes only the added mark.
            block = _BYTE_ORDER_MARK + block
        table = csv.read_csv(
            io.BytesIO(block),
            read_options=csv.ReadOptions(
                column_names=[str(at) for at in range(len(columns.names))], use_threads=False, block_size=len(block) + 1
            ),
            parse_options=csv.ParseOptions(delimiter=self._separator, invalid_row_handler=note_ragged),
            convert_options=csv.ConvertOptions(
                column_types=types,
                include_columns=list(types),
                null_values=self._null_values,
                true_values=_TRUE,
                false_values=_FALSE,
                strings_can_be_null=True,
                decimal_point=self._meaning.decimal,
            ),
        )
        if ragged:
            number, actual, expected = ragged[0]
            more = f" (and {len(ragged) - 1:,} more rows)" if len(ragged) > 1 else ""
            row = first_row + number - 1
            msg = f"row {row} has {actual} cells, the header {expected}{more}; separator {self._separator!r}"
            self._problems.add(msg, code="ragged_row", field=self._name)
            return None
        return table if self._is_one_row_a_line(block, table.num_rows, first_row) else None

    def _type(self, at: int) -> pa.DataType:
        if self._meaning.thousands not in {"", "none"}:
            return pa.string()
        return pa.bool_() if at in self._columns.truth else pa.float64()

    @cached_property
    def _all_null_values(self) -> list[str]:
        forms = {form for mark in MISSING for form in (mark, mark.lower(), mark.upper(), mark.title())}
        return sorted(forms | set(self._meaning.missing))

    def _fast(self, table: pa.Table, at: int, first_row: int) -> FloatArray:
        column = table.column(str(at))
        if pa.types.is_string(column.type):
            return self._careful(table, at, first_row)
        return doubles(column if at not in self._columns.truth else column.cast(pa.float64()))

    def _careful(self, table: pa.Table, at: int, first_row: int) -> FloatArray:
        """Convert a column as `CellFormat.number` does, and note the first cell that is not a number."""
        # Functions of Arrow with a scalar or a list import pandas if it is installed, so that only patterns are used.
        text: Any = pc.utf8_trim_whitespace(self._text(table, at, first_row))
        is_number = pc.match_substring_regex(text, f"^{self._meaning.pattern}$")
        is_true, is_false = (truths(pc.match_substring_regex(text, f"(?i)^({words})$")) for words in (_YES, _NO))
        is_missing = truths(pc.match_substring_regex(text, self._missing))
        wrong = truths(text.is_valid()) & ~(truths(is_number) | is_true | is_false | is_missing)
        if wrong.any():
            count = int(wrong.sum())
            self._note(at, Wrong(wrong, lambda row: self._no_number(at, first_row + row, str(text[row]), count)))
        for mark in THOUSANDS_MARKS[self._meaning.thousands]:
            text = pc.replace_substring(text, mark, "")
        if self._meaning.decimal == ",":
            text = pc.replace_substring(text, ",", ".")
        numbers: Any = pc.cast(pc.if_else(is_number, text, pa.nulls(len(text), pa.string())), pa.float64())
        return np.where(is_true, 1.0, np.where(is_false, 0.0, doubles(pa.chunked_array([numbers]))))

    @cached_property
    def _missing(self) -> str:
        known, added = (
            "|".join(re.escape(mark) for mark in marks) or "$^" for marks in (MISSING, self._meaning.missing)
        )
        return f"^(?:(?i:{known})|(?:{added}))$"

    def _no_number(self, at: int, row: int, cell: str, count: int) -> RejectedError:
        column = self._columns.names[at]
        more = f" (and {count - 1:,} more cells)" if count > 1 else ""
        if _DECIMAL_COMMA.fullmatch(cell) and self._meaning.decimal == ".":
            msg = (
                f"row {row}, column {column}: {cell!r} has a decimal comma, others have a point{more}; DECIMAL decides"
            )
            return RejectedError(msg, code="decimal_comma", field=column)
        msg = (
            f"row {row}, column {column}: {cell[:60]!r} is not a number{more}; "
            f"MISSING reads such cells as missing, IGNORE_COLUMNS={column[:60]} leaves the column out"
        )
        return RejectedError(msg, code="not_a_number", field=column)

    def _note(self, at: int, wrong: Wrong) -> None:
        """Note the first wrong cell of a column; in a file of several series, those of each block."""
        if self._columns.series is not None:
            self._wrong.append(wrong)
        elif at not in self._refused:
            self._refused.add(at)
            self._problems.add_error(wrong.problem(int(np.argmax(wrong.rows))))

    def _is_one_row_a_line(self, block: bytes, rows: int, first_row: int) -> bool:
        """Note a block whose numbers of lines and rows differ, because a quoted cell contains a line break."""
        ends = int(np.count_nonzero(np.frombuffer(block, np.uint8) == _LINE_END))  # faster than `bytes.count`
        if rows == ends + (not block.endswith(b"\n")):
            return True
        if rows == sum(1 for line in block.splitlines() if line):
            return True
        msg = f"from row {first_row} on, a cell holds a line break or quotes are unbalanced; one row is one line"
        return self._problems.refuse(msg, code="broken_quotes", field=self._name)

    def _text(self, table: pa.Table, at: int, first_row: int) -> Any:
        cells: Any = pa.concat_arrays(table.column(str(at)).chunks)
        lengths = pc.utf8_length(cells)
        if (pc.max(lengths).as_py() or 0) > MAX_CELL_CHARACTERS:
            row = first_row + pc.index(pc.greater(lengths, pa.scalar(MAX_CELL_CHARACTERS)), value=True).as_py()
            column = self._columns.names[at]
            msg = f"row {row}, column {column}: the cell is longer than {MAX_CELL_CHARACTERS} characters"
            self._problems.refuse(msg, code="cell_too_long", field=column)
        return cells

    def _check_range(self, values: FloatArray, first_row: int) -> None:
        if not ((values > LARGEST_EXACT) | (values < -LARGEST_EXACT)).any():
            return
        largest = np.fmax.reduce(np.abs(values), axis=0)
        for column in np.flatnonzero(largest > LARGEST_EXACT):
            at = self._columns.numeric[column]
            name = self._columns.names[at]
            if np.isfinite(largest[column]):
                self.inexact.add(name)
            else:
                self._note(at, Wrong(np.isinf(values[:, column]), partial(_infinite, name, first_row)))


def _infinite(column: str, first_row: int, row: int) -> RejectedError:
    msg = f"row {first_row + row}, column {column}: infinite or too large for a float64; MISSING reads it as missing"
    return RejectedError(msg, code="infinite_value", field=column)


def _joined(parts: list[Any], marks: tuple[str, ...]) -> Any:
    """Return the cells of the parts of a time with a mark before each further part."""
    joined, *others = map(pc.utf8_trim_whitespace, parts)
    for mark, part in zip(marks, others, strict=True):
        padded = pc.utf8_lpad(part, 2, "0") if mark == ":" else part
        # Functions of Arrow with a scalar import pandas if it is installed, so the mark is made of a column.
        joined = pc.binary_join_element_wise(joined, padded, pc.replace_substring_regex(joined, "(?s)^.*$", mark))
    return joined
