"""Read the last rows of a CSV as a body for /predict, without pandas and pyarrow."""

from __future__ import annotations

import gzip
import io
import itertools
import math
import re
import zlib
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flts.errors import RejectedError
from flts.ingest.dialect import split_row
from flts.ingest.encoding import guess_encoding
from flts.ingest.lines import TAIL_LINES, without_tail
from flts.ingest.magic import format_of
from flts.ingest.problems import Problems
from flts.ingest.understanding import Understanding, understand
from flts.recipe_settings import ReadSettings

HEAD_BYTES = 1 << 20  # bytes that show the encoding
HEAD_LINES = 200  # lines that show how the file is written
MOST_COLUMNS = 10_000
EPOCH = re.compile(r"-?\d+")


def body_from_csv(path: Path, *, rows: int, ignore: Sequence[str] = ()) -> dict[str, Any]:
    """Return ``{"index_col", "data"}`` of a file's last rows, which are understood as at upload.

    Raises
    ------
    RejectedError
        If the file is not a CSV, has no rows, unequal rows or not one time column, or a cell is not a number (``field``
        is its column).
    OSError
        If the file cannot be read.
    """
    settings = ReadSettings.model_construct(ignore_columns=tuple(ignore))
    problems = Problems()
    try:
        encoding, head, last = _ends(path, rows)
        found = understand(head, last, settings, problems, encoding=encoding, max_columns=MOST_COLUMNS, name="csv")
    except (UnicodeDecodeError, zlib.error, EOFError, gzip.BadGzipFile) as error:
        msg = f"{path} is no CSV that can be read: {error}"
        raise RejectedError(msg, code="not_csv", field="csv") from error
    problems.raise_any()
    lines = [*head, *last][found.dialect.lines_above :]
    return _body(path, lines, found, rows)


def _ends(path: Path, rows: int) -> tuple[str, list[str], list[str]]:
    """Return the encoding, the first lines and the last of the other lines of a file."""
    with path.open("rb") as file:
        opened = gzip.GzipFile(fileobj=file) if (kind := format_of(file.read(8), "csv")) == "gzip" else file
        if kind not in {"gzip", "text"}:
            msg = f"{path} is a {kind} file; --csv reads CSV, also in gzip"
            raise RejectedError(msg, code="not_csv", field="csv")
        file.seek(0)
        encoding = guess_encoding(opened.read(HEAD_BYTES))
        opened.seek(0)
        errors = "replace" if encoding == "windows-1252" else "strict"
        text = io.TextIOWrapper(opened, {"utf-8": "utf-8-sig"}.get(encoding, encoding), errors=errors)
        lines = (line.rstrip("\n") for line in text)
        head = list(itertools.islice(lines, HEAD_LINES))
        if not head:
            msg = f"{path} is empty"
            raise RejectedError(msg, code="empty_file", field="csv")
        head[0] = head[0].removeprefix("\ufeff")
        return encoding, head, list(deque(lines, maxlen=rows + TAIL_LINES))


def _body(path: Path, lines: list[str], found: Understanding, rows: int) -> dict[str, Any]:
    columns, separator, meaning = found.columns, found.dialect.separator, found.dialect.cells
    block, _ = without_tail("\n".join(lines).encode(), columns, separator)
    last = deque((cells for line in block.decode().split("\n") if (cells := split_row(line, separator))), maxlen=rows)
    if not last:
        msg = f"{path} has no rows"
        raise RejectedError(msg, code="no_rows", field="csv")
    if any(len(cells) != len(columns.names) for cells in last):
        msg = f"{path} has rows with another number of cells than its header names"
        raise RejectedError(msg, code="ragged_rows", field="csv")
    # Rows at the end without a value are the future; the forecast begins at the first of them.
    while len(last) > 1 and all(meaning.is_missing(last[-1][at]) for at in columns.numeric):
        last.pop()
    times = [" ".join(cells[at].strip() for at in columns.times) for cells in last]
    data: dict[str, list[Any]] = {columns.time_column: [int(t) if EPOCH.fullmatch(t) else t for t in times]}
    for at in columns.numeric:
        column = columns.names[at]
        data[column] = [_number(meaning.number(cells[at]), cells[at], column) for cells in last]
    return {"index_col": columns.time_column, "data": data}


def _number(value: float | None, cell: str, column: str) -> float | None:
    if value is None or math.isinf(value):
        msg = f"column {column} holds {cell[:40]!r}, which is not a number; leave the column out with --ignore {column}"
        raise RejectedError(msg, code="not_a_number", field=column)
    return None if math.isnan(value) else value
