"""Convert time cells to epoch seconds. A cell is ISO 8601 (UTC if it has no offset) or epoch seconds."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flts.errors import RejectedError
from flts.forecasting.series import BoolArray, IntArray
from flts.ingest.arrow import whole_numbers

EARLIEST_SECONDS = -62_135_596_800  # 0001-01-01, the first day of Python's datetime
LOOKS_LIKE_MILLISECONDS = 100_000_000_000  # a larger number is in milliseconds: as seconds it is after the year 5138
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_COMPACT_DATE = re.compile(r"(\d{4})(\d{2})(\d{2})")
_OFFSET = re.compile(r"(?:[zZ]|[+-]\d{2}(?::?\d{2})?)$")


def parse_times(cells: pa.Array[Any], *, column: str, first_row: int) -> IntArray:
    """Return epoch seconds of a block of time cells.

    Parameters
    ----------
    cells : (n,)
        Strings; null where the cell was empty.
    first_row
        Number of the block's first row in the file's data, counted from 1, for the message.

    Raises
    ------
    RejectedError
        ``missing_time`` or ``bad_time``; the message names the row and the column.
    """
    if cells.null_count:
        row = first_row + int(np.flatnonzero(cells.is_null().to_numpy(zero_copy_only=False))[0])
        msg = f"row {row} has no time in column {column}"
        raise RejectedError(msg, code="missing_time", field=column)
    if len(cells) == 0:
        return np.empty(0, np.int64)
    cells = pc.utf8_trim_whitespace(cells)
    parsed = _parse_iso_block(cells)
    if parsed is not None:
        return parsed
    return np.array([_parse_one(cell.as_py(), column, first_row + at) for at, cell in enumerate(cells)], np.int64)


def _parse_iso_block(cells: pa.Array[Any]) -> IntArray | None:
    """Return the seconds of a block whose cells have one common form, or None: the caller then parses each cell."""
    first = cells[0].as_py()
    if _NUMBER.fullmatch(first):
        return _parse_epoch_block(cells)
    # Arrow's timestamp type has a zone if the cells have an offset, and none otherwise; the first cell decides. If a
    # block has cells of both kinds, the cast fails and the caller parses each cell.
    zone = "UTC" if _OFFSET.search(first[len("2024-01-31") :]) else None
    try:
        microseconds = whole_numbers(pc.cast(cells, pa.timestamp("us", tz=zone)))
    except pa.ArrowInvalid:
        return None
    if (microseconds % 1_000_000).any():
        return None
    seconds: IntArray = microseconds // 1_000_000
    return seconds


def _parse_epoch_block(cells: pa.Array[Any]) -> IntArray | None:
    try:
        seconds = whole_numbers(pc.cast(cells, pa.int64()))
    except pa.ArrowInvalid:
        return None
    if not _is_plausible(seconds).all() or _is_compact_date(cells[0].as_py()):
        return None
    return seconds


def _parse_one(cell: str, column: str, row: int) -> int:
    where = f"row {row}, column {column}: {cell[:60]!r}"
    if _NUMBER.fullmatch(cell):
        return _parse_epoch(cell, where, column)
    try:
        moment = datetime.fromisoformat(cell)
    except ValueError:
        msg = f"{where} is not a time: write ISO 8601 (2024-01-31T12:00:00Z) or epoch seconds"
        raise RejectedError(msg, code="bad_time", field=column) from None
    if moment.microsecond:
        msg = f"{where} has fractions of a second; times are whole seconds"
        raise RejectedError(msg, code="bad_time", field=column)
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return int(moment.timestamp())


def _parse_epoch(cell: str, where: str, column: str) -> int:
    if _is_compact_date(cell):
        msg = f"{where} looks like a date without dashes: write 2024-01-31"
    elif not float(cell).is_integer():
        msg = f"{where} has fractions of a second; times are whole seconds"
    elif not _is_plausible(np.array(float(cell))).all():
        msg = f"{where} is out of the range of epoch seconds; milliseconds must be divided by 1,000"
    else:
        return int(float(cell))
    raise RejectedError(msg, code="bad_time", field=column)


def _is_plausible(seconds: NDArray[Any]) -> BoolArray:
    plausible: BoolArray = (seconds >= EARLIEST_SECONDS) & (seconds < LOOKS_LIKE_MILLISECONDS)
    return plausible


def _is_compact_date(cell: str) -> bool:
    """Return whether digits such as 20240131 are a date; as epoch seconds they would be in August 1970."""
    match = _COMPACT_DATE.fullmatch(cell)
    if match is None or not 1900 <= int(match[1]) <= 2100:  # noqa: PLR2004 - years of plausible measurements
        return False
    try:
        date(int(match[1]), int(match[2]), int(match[3]))
    except ValueError:
        return False
    return True
