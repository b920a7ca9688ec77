"""Parse the first line of a CSV: column names and separator."""

from __future__ import annotations

import csv
import re
from collections import Counter
from dataclasses import dataclass

from flts.errors import RejectedError
from flts.ingest.times import find_time_column

MAX_NAME_CHARACTERS = 200
RESERVED_SUFFIXES = ("_lower", "_upper")
RESERVED_NAMES = frozenset(
    f"{feature}_{wave}" for feature in ("min_of_day", "day_of_week", "day_of_year") for wave in ("sin", "cos")
)
DELIMITERS = (",", ";", "\t")
# First bytes, name and advice of the formats that are uploaded by mistake as CSV.
MAGIC = (
    (b"\x1f\x8b", "gzip file", "unpack it first"),
    (b"PAR1", "Parquet file", "export it as CSV first"),
    (b"PK\x03\x04", "zip or Excel file", "unpack it, or save the sheet as CSV"),
    (b"\x28\xb5\x2f\xfd", "zstd file", "unpack it first"),
    (b"BZh", "bzip2 file", "unpack it first"),
    (b"\xfd7zXZ\x00", "xz file", "unpack it first"),
    (b"\xd0\xcf\x11\xe0", "old Excel file", "save the sheet as CSV"),
)
_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class Header:
    """The column names of a file, by use: times, numbers, ignored."""

    names: tuple[str, ...]
    delimiter: str
    time_column: str
    numeric: tuple[str, ...]
    ignored: tuple[str, ...]


def refuse_other_formats(start: bytes, name: str) -> None:
    """Refuse a file whose first bytes show another format than UTF-8 text.

    Raises
    ------
    RejectedError
        ``not_csv`` or ``wrong_encoding``; the message names the format.
    """
    for magic, what, remedy in MAGIC:
        if start.startswith(magic):
            msg = f"this is a {what}, not a CSV: {remedy}"
            raise RejectedError(msg, code="not_csv", field=name)
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        msg = "the file is UTF-16: save it as UTF-8"
        raise RejectedError(msg, code="wrong_encoding", field=name)


def read_header(block: bytes, *, ignore_columns: tuple[str, ...], max_columns: int, name: str) -> tuple[Header, bytes]:
    """Return the parsed first line, and the rest of the block.

    Raises
    ------
    RejectedError
        For names that are missing, repeated or reserved, no or two time columns, too many columns.
    """
    start = len(block) - len(block.lstrip(b"\r\n"))
    end = _LINE_END.search(block, start)
    line = block[start : end.start() if end else len(block)]
    rest = block[end.end() :] if end else b""
    if not line.strip():
        msg = "the file has no header: the first line names the columns"
        raise RejectedError(msg, code="empty_file", field=name)
    delimiter = max(DELIMITERS, key=lambda mark: line.count(mark.encode()))
    if line.count(delimiter.encode()) >= max_columns:
        msg = f"the file has more than {max_columns:,} columns (MAX_UPLOAD_COLUMNS)"
        raise RejectedError(msg, code="too_many_columns", field=name)
    names = _split_names(line, delimiter, name)
    _check_names(names, ignore_columns, name)
    time_at = find_time_column(names, ignored=frozenset(ignore_columns), field=name)
    numeric = tuple(column for at, column in enumerate(names) if at != time_at and column not in ignore_columns)
    if not numeric:
        msg = f"there is no column of numbers beside {names[time_at]}"
        raise RejectedError(msg, code="no_numeric_column", field=name)
    _refuse_reserved(numeric)
    ignored = tuple(column for at, column in enumerate(names) if at != time_at and column in ignore_columns)
    return Header(tuple(names), delimiter, names[time_at], numeric, ignored), rest


def _split_names(line: bytes, delimiter: str, name: str) -> list[str]:
    try:
        cells = next(csv.reader([line.decode("utf-8")], delimiter=delimiter, strict=True))
    except csv.Error:
        msg = "the header has unbalanced quotes or a name that is far too long"
        raise RejectedError(msg, code="bad_header", field=name) from None
    return [cell.strip() for cell in cells]


def _check_names(names: list[str], ignore_columns: tuple[str, ...], name: str) -> None:
    for position, column in enumerate(names, start=1):
        if not column:
            msg = f"column {position} has no name in the header"
            raise RejectedError(msg, code="bad_column_name", field=name)
        if len(column) > MAX_NAME_CHARACTERS or not column.isprintable():
            msg = f"the name of column {position} is longer than {MAX_NAME_CHARACTERS} characters or not printable"
            raise RejectedError(msg, code="bad_column_name", field=name)
    for column, times in Counter(names).items():
        if times > 1 and column not in ignore_columns:
            msg = f"{times} columns are called {column}"
            raise RejectedError(msg, code="duplicate_column", field=column)


def _refuse_reserved(columns: tuple[str, ...]) -> None:
    for column in columns:
        lag_of = re.fullmatch(r"(.+)_lag_\d+", column)
        if (
            column.endswith(RESERVED_SUFFIXES)
            or column in RESERVED_NAMES
            or (lag_of is not None and lag_of[1] in columns)
        ):
            msg = (
                f"the column name {column} is reserved for what FLTS adds (bounds, time features, lags): "
                "rename it, or name it in IGNORE_COLUMNS"
            )
            raise RejectedError(msg, code="reserved_name", field=column)
