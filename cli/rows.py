"""Read the last rows of a CSV as a body for /predict, without pandas."""

from __future__ import annotations

import csv
import math
import re
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flts.contracts.columns import TIME_COLUMNS
from flts.errors import RejectedError

MISSING = frozenset({"", "na", "nan", "null", "none"})
EPOCH = re.compile(r"-?\d+")


def body_from_csv(path: Path, *, rows: int, ignore: Sequence[str] = ()) -> dict[str, Any]:
    """Return ``{"index_col", "data"}`` of a file's last rows.

    Raises
    ------
    RejectedError
        If the file is not a CSV, has no rows, unequal rows or not one time column (``field`` is ``csv``), or a cell
        is not a number (``field`` is its column).
    OSError
        If the file cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            separator = next((mark for mark in (",", ";", "\t") if mark in first), ",")
            names = [name.strip() for name in next(csv.reader([first], delimiter=separator), [])]
            last = deque((row for row in csv.reader(file, delimiter=separator) if row), maxlen=rows)
    except (UnicodeDecodeError, csv.Error) as error:
        msg = f"{path} is no CSV in UTF-8: {error}"
        raise RejectedError(msg, code="not_csv", field="csv") from error
    times = [name for name in names if name.lower() in TIME_COLUMNS and name not in ignore]
    if len(times) != 1:
        msg = f"{path} needs one column named {', '.join(TIME_COLUMNS[:-1])} or {TIME_COLUMNS[-1]}; it has {names[:8]}"
        raise RejectedError(msg, code="no_time_column", field="csv")
    if not last:
        msg = f"{path} has no rows"
        raise RejectedError(msg, code="no_rows", field="csv")
    if any(len(row) != len(names) for row in last):
        msg = f"{path} has rows with another number of cells than its first line names"
        raise RejectedError(msg, code="ragged_rows", field="csv")
    data: dict[str, list[Any]] = {}
    for at, name in enumerate(names):
        if name in ignore:
            continue
        cells = [row[at].strip() for row in last]
        data[name] = [_time(cell) for cell in cells] if name == times[0] else [_number(cell, name) for cell in cells]
    return {"index_col": times[0], "data": data}


def _time(cell: str) -> str | int:
    return int(cell) if EPOCH.fullmatch(cell) else cell


def _number(cell: str, column: str) -> float | None:
    if cell.lower() in MISSING:
        return None
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        msg = f"column {column} holds {cell[:40]!r}, which is not a number; leave the column out with --ignore {column}"
        raise RejectedError(msg, code="not_a_number", field=column)
    return value
