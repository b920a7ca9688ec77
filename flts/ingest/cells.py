"""Convert the cells of a block to numbers by Arrow; where Arrow fails, cell by cell, to report the cell."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from flts.errors import RejectedError
from flts.forecasting.series import FloatArray
from flts.ingest.arrow import doubles
from flts.ingest.header import Header

MISSING = ("", "NA", "N/A", "NaN", "nan", "NAN", "null", "NULL", "None")
MAX_CELL_CHARACTERS = 100  # characters; a float64 needs 24
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")


@dataclass(frozen=True, slots=True)
class Cells:
    """The cells of one block: times as text, other cells as float64."""

    times: pa.ChunkedArray[Any]
    values: FloatArray


class BlockReader:
    """Reads blocks of whole lines, whose columns the header names."""

    def __init__(self, header: Header, name: str) -> None:
        self._header = header
        self._name = name

    def read(self, block: bytes, *, first_row: int) -> Cells:
        """Return a block's cells.

        Raises
        ------
        RejectedError
            ``ragged_row``, ``broken_quotes``, ``not_a_number``, ``decimal_comma``, ``infinite_value`` or
            ``cell_too_long``, with column and row.
        """
        read_column: Callable[[pa.Table, str], FloatArray] = _read_fast
        try:
            table = self._parse(block, pa.float64(), first_row)
        except pa.ArrowInvalid:
            table = self._parse(block, pa.string(), first_row)
            read_column = partial(self._read_carefully, first_row=first_row)
        self._check_rows(block, table.num_rows, first_row)
        columns = [read_column(table, column) for column in self._header.numeric]
        times = table.column(self._header.time_column)
        self._check_length(times, self._header.time_column, first_row)
        values = np.column_stack(columns)
        self._check_finite(values, first_row)
        return Cells(times, values)

    def _parse(self, block: bytes, kind: pa.DataType, first_row: int) -> pa.Table:
        ragged: list[Any] = []

        def note_ragged(row: Any) -> Literal["error"]:
            ragged.append(row)
            return "error"

        header = self._header
        # Arrow refuses two columns with the same name, but ignored columns may share one. So every column that is not
        # used gets its position appended to its name.
        by_position = [
            column if column in header.numeric or column == header.time_column else f"{column}\n{at}"
            for at, column in enumerate(header.names)
        ]
        types = dict.fromkeys(header.numeric, kind) | {header.time_column: pa.string()}
        if block.startswith(_BYTE_ORDER_MARK):
            # Arrow removes a byte order mark at the start of every block. The mark of the file was removed before, so
            # these bytes belong to a cell. Another mark is put before them, and Arrow removes only the added mark.
            block = _BYTE_ORDER_MARK + block
        try:
            return csv.read_csv(
                io.BytesIO(block),
                read_options=csv.ReadOptions(column_names=by_position, use_threads=False, block_size=len(block) + 1),
                parse_options=csv.ParseOptions(delimiter=header.delimiter, invalid_row_handler=note_ragged),
                convert_options=csv.ConvertOptions(
                    column_types=types,
                    include_columns=[header.time_column, *header.numeric],
                    null_values=list(MISSING),
                    strings_can_be_null=True,
                ),
            )
        except pa.ArrowInvalid:
            if ragged:
                row = first_row + ragged[0].number - 1
                msg = (
                    f"row {row} has {ragged[0].actual_columns} cells, the header {ragged[0].expected_columns} "
                    f"(separator {header.delimiter!r}; decimals need a point)"
                )
                raise RejectedError(msg, code="ragged_row", field=self._name) from None
            raise

    def _read_carefully(self, table: pa.Table, column: str, *, first_row: int) -> FloatArray:
        cells = table.column(column)
        self._check_length(cells, column, first_row)
        return np.array([self._number(cell.as_py(), column, first_row + at) for at, cell in enumerate(cells)])

    def _number(self, cell: str | None, column: str, row: int) -> float:
        text = cell.strip() if cell is not None else ""
        if text in MISSING:
            return np.nan
        if _NUMBER.fullmatch(text) or _INFINITE.fullmatch(text):
            return float(text)
        if _DECIMAL_COMMA.fullmatch(text):
            msg = f"row {row}, column {column}: {text!r} has a decimal comma; decimals need a point"
            raise RejectedError(msg, code="decimal_comma", field=column)
        msg = (
            f"row {row}, column {column}: {text[:60]!r} is not a number; "
            f"a column that is not needed can be named in IGNORE_COLUMNS"
        )
        raise RejectedError(msg, code="not_a_number", field=column)

    def _check_rows(self, block: bytes, rows: int, first_row: int) -> None:
        """Refuse a block whose numbers of lines and rows differ, because a quoted cell contains a line break."""
        if rows == block.count(b"\n") + (not block.endswith(b"\n")):
            return
        lines = sum(1 for line in block.splitlines() if line)
        if rows != lines:
            msg = f"from row {first_row} on, a cell holds a line break or quotes are unbalanced; one row is one line"
            raise RejectedError(msg, code="broken_quotes", field=self._name)

    def _check_length(self, cells: pa.ChunkedArray[Any], column: str, first_row: int) -> None:
        lengths = pc.utf8_length(cells)
        if (pc.max(lengths).as_py() or 0) > MAX_CELL_CHARACTERS:
            row = first_row + pc.index(pc.greater(lengths, pa.scalar(MAX_CELL_CHARACTERS)), value=True).as_py()
            msg = f"row {row}, column {column}: the cell is longer than {MAX_CELL_CHARACTERS} characters"
            raise RejectedError(msg, code="cell_too_long", field=column)

    def _check_finite(self, values: FloatArray, first_row: int) -> None:
        infinite = np.isinf(values)
        if infinite.any():
            row, column = (int(index) for index in np.argwhere(infinite)[0])
            name = self._header.numeric[column]
            msg = f"row {first_row + row}, column {name}: infinite or too large for a float64"
            raise RejectedError(msg, code="infinite_value", field=name)


def _read_fast(table: pa.Table, column: str) -> FloatArray:
    return doubles(table.column(column))
