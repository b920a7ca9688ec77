"""Read an uploaded file: from bytes to a table of numbers, or a refusal that names all problems of the file.

Limits are checked while the bytes arrive, so a hostile file needs at most a few blocks more memory than a valid file.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from flts.errors import RejectedError
from flts.forecasting.by_column import chunks_of
from flts.forecasting.series import FloatArray, IntArray
from flts.ingest.cells import BlockReader, Cells
from flts.ingest.columns import Columns
from flts.ingest.dialect import Dialect, lines_of
from flts.ingest.encoding import ToUtf8, guess_encoding
from flts.ingest.formats import text_of
from flts.ingest.gathering import Gathered
from flts.ingest.lines import after_lines, whole_lines, within_limit, without_tail
from flts.ingest.problems import Problems
from flts.ingest.rows import in_order, whole_seconds
from flts.ingest.series_column import SeriesColumn
from flts.ingest.table import RawTable
from flts.ingest.time_reader import ReadTimes, TimeReader
from flts.ingest.understanding import understand
from flts.recipe_settings import ReadSettings
from flts.settings import UploadLimits
from flts.times import TimeFormat

SHOWN_ROWS, SHOWN_COLUMNS = 3, 6
SAMPLE_CELLS = 600  # cells of the head that decide about marks of numbers and the use of columns


def read_table(
    source: Path | str | BinaryIO,
    *,
    limits: UploadLimits,
    settings: ReadSettings,
    like: TimeFormat | None = None,
    name: str = "file",
    scratch: Path | None = None,
) -> RawTable:
    """Read a file with a time column and columns of numbers.

    Parameters
    ----------
    source
        A path, or a binary stream that is read once and not closed.
    like
        Form of the times of another file of the data set, which decides between the forms that this file may have.
    name
        Value of ``field`` in errors about the whole file: ``file``, ``train``, ``test``.
    scratch
        Folder on a disk. The values of a large file are then a mapping of a temporary file in it, not memory.

    Raises
    ------
    RejectedError
        With code and field (the column, the setting or ``name``) of the first problem. The message lists all problems
        and names the row of a cell; data rows count from 1.
    """
    if isinstance(source, str | Path):
        with Path(source).open("rb") as stream:
            return _Reading(limits, settings, like, name, scratch).read(stream)
    return _Reading(limits, settings, like, name, scratch).read(source)


class _Reading:
    """The reading of one file."""

    def __init__(
        self, limits: UploadLimits, settings: ReadSettings, like: TimeFormat | None, name: str, scratch: Path | None
    ) -> None:
        self._limits = limits
        self._settings = settings
        self._like = like
        self._name = name
        self._scratch = scratch
        self._problems = Problems()
        self._notes: list[str] = []
        self._series: SeriesColumn | None = None

    def read(self, stream: BinaryIO) -> RawTable:
        try:
            return self._read(stream)
        except RejectedError as error:
            self._problems.raise_with(error)

    def _read(self, stream: BinaryIO) -> RawTable:
        limit = self._limits.max_upload_bytes
        text = text_of(stream, limit=limit, notes=self._notes, name=self._name)
        chunks = within_limit(text, max_bytes=limit, name=self._name)
        first = next(chunks, b"")
        given = self._settings.encoding
        decoder = ToUtf8(given or guess_encoding(first), guessed=not given, name=self._name)
        blocks = whole_lines(_decoded(decoder, first, chunks), self._name)
        head = next(blocks)
        dialect, columns = self._understand(head, decoder.encoding)
        body = self._rows(after_lines(head, dialect.lines_above), blocks, columns, dialect.separator)
        found, values = self._numbers(body, columns, dialect)
        if decoder.encoding != "utf-8":
            self._notes.insert(0, f"encoding: {decoder.encoding} (ENCODING)")
        return self._table(found, values, columns, dataclasses.replace(dialect, encoding=decoder.encoding))

    def _understand(self, head: bytes, encoding: str) -> tuple[Dialect, Columns]:
        """Return how the file is written and the use of its columns, by its first lines."""
        if not head.strip():
            msg = "the file has no header and no rows"
            raise RejectedError(msg, code="empty_file", field=self._name)
        first, last = _sample(head)
        found = understand(
            first,
            last,
            self._settings,
            self._problems,
            encoding=encoding,
            max_columns=self._limits.max_upload_columns,
            name=self._name,
        )
        self._notes.extend(found.notes)
        return found.dialect, found.columns

    def _rows(self, first: bytes, others: Iterator[bytes], columns: Columns, separator: str) -> Iterator[bytes]:
        """Yield the blocks of rows in a form that Arrow reads, without remarks and totals at the end."""
        blocks = itertools.chain([first], others)
        block = next(blocks)
        for following in itertools.chain(blocks, [None]):
            if following is None:
                block, remarks = without_tail(block, columns, separator)
                if remarks:
                    shown = " | ".join(line[:60] for line in remarks)
                    self._notes.append(f"left out at the end, {len(remarks)} line(s) that are no rows: {shown}")
            if separator == " ":
                block = re.sub(rb" +", b"\t", re.sub(rb"(?m)^ +| +(?=\r?$)", b"", block))
            if block and not block.isspace():
                yield block
            block = following or b""

    def _numbers(self, blocks: Iterator[bytes], columns: Columns, dialect: Dialect) -> tuple[ReadTimes, FloatArray]:
        separator = "\t" if dialect.separator == " " else dialect.separator
        reader = BlockReader(columns, separator, dialect.cells, self._problems, self._name)
        settings = self._settings
        times: TimeReader | None = TimeReader(
            columns.time_column, time_format=settings.time_format, time_zone=settings.time_zone, like=self._like
        )
        if (at := reader.series) is not None:
            self._series = SeriesColumn(columns.names[at], is_given=at == columns.series)
        values = Gathered(len(columns.numeric), self._scratch)
        for block in blocks:
            cells = reader.read(block, first_row=values.rows + 1)
            if cells is None:
                continue
            if times is not None:
                times = self._feed(times, cells, first_row=values.rows + 1)
            values.add(cells.values)
            self._check_size(values.rows, len(columns.names))
            if self._series is not None and cells.series is not None:
                self._series.feed(cells.series, cells.wrong)
        if values.rows == 0:
            msg = "the file has a header and no rows"
            self._problems.add(msg, code="no_rows", field=self._name)
        self._problems.raise_any()
        assert times is not None  # or else there is a problem
        if reader.inexact:
            names = ", ".join(sorted(reader.inexact)[:8])
            self._notes.append(f"numbers above 2**53 lose their last digits: {names}")
        return times.finish(), values.values()

    def _feed(self, times: TimeReader, cells: Cells, *, first_row: int) -> TimeReader | None:
        """Read the times of a block; after the first wrong time, no further times are read."""
        try:
            times.feed(cells.times, first_row=first_row)
        except RejectedError as error:
            self._problems.add_error(error)
            return None
        return times

    def _table(self, found: ReadTimes, values: FloatArray, columns: Columns, dialect: Dialect) -> RawTable:
        column = columns.time_column
        times, rounded = whole_seconds(found, column)
        was_in_order = bool((times[1:] >= times[:-1]).all())
        names = tuple(columns.names[at] for at in columns.numeric)
        duplicates = self._settings.duplicates
        if self._series is not None and self._series.is_given:
            times, names, values, notes = self._series.spread(times, names, values, duplicates)
        else:
            if self._series is not None:
                self._series.refuse_series(times)
            times, values, notes = in_order(times, values, duplicates=duplicates, column=column)
        return RawTable(
            times=times,
            columns=names,
            values=values,
            time_column=column,
            ignored=columns.ignored,
            time_format=found.format,
            notes=(*self._notes, *rounded, *notes),
            understood=(f"times: column {column} (TIME_COLUMN)", *_as_understood(times, values, names)),
            dialect=dialect,
            was_in_order=was_in_order,
        )

    def _check_size(self, rows: int, columns: int) -> None:
        limits = self._limits
        if rows > limits.max_upload_rows:
            msg = f"the file has more than {limits.max_upload_rows:,} rows (MAX_UPLOAD_ROWS)"
            raise RejectedError(msg, code="too_many_rows", field=self._name)
        if rows * columns > limits.max_upload_cells:
            msg = f"the file has more than {limits.max_upload_cells:,} cells (MAX_UPLOAD_CELLS)"
            raise RejectedError(msg, code="too_many_cells", field=self._name)


def _decoded(decoder: ToUtf8, first: bytes, others: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in itertools.chain([first], others):
        yield decoder.convert(chunk)
    if rest := decoder.convert(b"", final=True):
        yield rest


def _sample(head: bytes) -> tuple[list[str], list[str]]:
    """Return lines from the start and from the end of the head, as many as have about `SAMPLE_CELLS` cells."""
    width = max(1, max(map(head[:50_000].count, (b",", b";", b"\t", b"|"))) // max(1, head[:50_000].count(b"\n")))
    count = min(max(SAMPLE_CELLS // width // 2, 12), 100)
    at = 0
    for _ in range(count):
        end = head.find(b"\n", at) + 1
        if end == 0:
            return lines_of(head.decode()), []
        at = end
    back = len(head) - head.endswith(b"\n")
    for _ in range(count):
        back = head.rfind(b"\n", at - 1, back)
        if back < at:
            return lines_of(head.decode()), []
    return lines_of(head[:at].decode()), lines_of(head[back + 1 :].decode())


def _as_understood(times: IntArray, values: FloatArray, names: tuple[str, ...]) -> list[str]:
    """Return the first rows as they were understood, and the number of missing cells."""
    said = []
    for row, moment in enumerate(np.datetime_as_string(times[:SHOWN_ROWS].astype("datetime64[s]"))):
        cells = ", ".join(f"{name}={values[row, at]:.12g}" for at, name in enumerate(names[:SHOWN_COLUMNS]))
        said.append(f"row {row + 1}: {moment}Z, {cells}")
    missing = sum(int(np.count_nonzero(np.isnan(values[rows]))) for rows in chunks_of(values))
    return [*said, f"missing cells: {missing:,} (MISSING)"] if missing else said
