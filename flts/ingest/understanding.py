"""Understand a text file by its first lines: how it is written and the use of its columns. Imports no pyarrow."""

from __future__ import annotations

from dataclasses import dataclass

from flts.ingest.columns import ALL_TIME_NAMES, Columns, find_columns
from flts.ingest.dialect import Dialect, find_shape
from flts.ingest.marks import guess_marks
from flts.ingest.problems import Problems
from flts.recipe_settings import ReadSettings


@dataclass(frozen=True, slots=True)
class Understanding:
    """How a file is written, the use of its columns, and what to say about both."""

    dialect: Dialect
    columns: Columns
    notes: tuple[str, ...]


def understand(
    first: list[str],
    last: list[str],
    settings: ReadSettings,
    problems: Problems,
    *,
    encoding: str,
    max_columns: int,
    name: str,
) -> Understanding:
    """Return how a file is written, by lines from the start and from the end of its head.

    Raises
    ------
    RejectedError
        By `guess_marks` and `find_columns`; further problems are added to ``problems``.
    """
    shape = find_shape(first, last, time_names=ALL_TIME_NAMES, skip_rows=settings.skip_rows)
    if shape.widest > max_columns:
        msg = f"the file has more than {max_columns:,} columns (MAX_UPLOAD_COLUMNS)"
        problems.refuse(msg, code="too_many_columns", field=name)
    if shape.header is None and shape.skip_rows > (settings.skip_rows or 0):
        msg = (
            f"line {shape.skip_rows}, above the first row, is no header of {shape.columns} names: "
            f"{first[shape.skip_rows - 1][:60]!r}; SKIP_ROWS is the number of lines above the header"
        )
        problems.refuse(msg, code="bad_header", field=name)
    decimal, thousands = guess_marks(
        shape.cells_without_times(),
        separator=shape.separator,
        decimal=settings.decimal or None,
        thousands=settings.thousands or None,
        field=name,
    )
    dialect = Dialect(
        encoding=encoding,
        skip_rows=shape.skip_rows,
        separator=shape.separator,
        has_header=shape.header is not None,
        units_rows=shape.units_rows,
        decimal=decimal,
        thousands=thousands,
        missing=settings.missing,
    )
    columns = find_columns(shape, dialect.cells, settings, problems, name=name)
    return Understanding(dialect, columns, (*_describe(dialect, first), *columns.notes))


def _describe(dialect: Dialect, lines: list[str]) -> list[str]:
    notes = []
    if dialect.separator != ",":
        shown = {";": "semicolon", "\t": "tab", "|": "vertical bar", " ": "spaces"}[dialect.separator]
        notes.append(f"separator: {shown}")
    if dialect.skip_rows:
        above = " | ".join(line[:60] for line in lines[: dialect.skip_rows] if line.strip())
        notes.append(f"{dialect.skip_rows} line(s) above the header are left out (SKIP_ROWS): {above[:200]}")
    if dialect.units_rows:
        below = " | ".join(line[:60] for line in lines[dialect.skip_rows + 1 :][: dialect.units_rows])
        notes.append(f"{dialect.units_rows} line(s) below the header, without numbers, are left out: {below[:200]}")
    if dialect.decimal != ".":
        notes.append("decimal mark: comma (DECIMAL)")
    if dialect.thousands not in {"", "none"}:
        notes.append(f"thousands mark: {dialect.thousands} (THOUSANDS)")
    return notes
