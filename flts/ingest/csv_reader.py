"""Read an uploaded CSV block by block, and refuse a file that is not a CSV with the reason.

Limits are checked while the bytes arrive, so a hostile file needs at most one block more memory than a valid file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from flts.errors import RejectedError
from flts.forecasting.series import FloatArray, IntArray
from flts.ingest.cells import BlockReader
from flts.ingest.guard import refuse_long_line, refuse_nul
from flts.ingest.header import read_header, refuse_other_formats
from flts.ingest.table import RawTable
from flts.ingest.time_reader import ReadTimes, TimeReader
from flts.settings import UploadLimits
from flts.times import TimeFormat, to_seconds

BLOCK_BYTES = 1 << 20
MICROSECONDS = 1_000_000
"""Microseconds of a second."""
CHUNK_ROWS = 1 << 20
"""Times that are looked at together, so that intermediate arrays stay small."""


def read_csv(
    source: Path | str | BinaryIO,
    *,
    limits: UploadLimits,
    ignore_columns: tuple[str, ...] = (),
    time_format: str = "",
    time_zone: str = "",
    like: TimeFormat | None = None,
    name: str = "file",
) -> RawTable:
    """Read a CSV with one time column, whose other columns are numbers.

    Times have any form that `flts.ingest.time_reader` finds.

    UTF-8 (a byte order mark is accepted), separated by commas, semicolons or tabs, decimals with a point. Empty cells,
    ``NA``, ``NaN`` and ``null`` are missing.

    Parameters
    ----------
    source
        A path, or a binary stream that is read once and not closed.
    ignore_columns
        Columns to leave out; their cells are not checked.
    time_format, time_zone
        ``TIME_FORMAT`` and ``TIME_ZONE``; empty if the form is to be found and times without an offset are UTC.
    like
        Form of the times of another file of the data set, which decides between the forms that this file may have.
    name
        Value of ``field`` in errors about the whole file: ``file``, ``train``, ``test``.

    Raises
    ------
    RejectedError
        With code and field (the column, or ``name``). The message names the row of a cell; data rows count from 1.
    """
    times = partial(TimeReader, time_format=time_format, time_zone=time_zone, like=like)
    if isinstance(source, str | Path):
        with Path(source).open("rb") as stream:
            return _read(stream, limits, ignore_columns, times, name)
    return _read(source, limits, ignore_columns, times, name)


def _read(
    stream: BinaryIO,
    limits: UploadLimits,
    ignore_columns: tuple[str, ...],
    time_reader_of: Callable[[str], TimeReader],
    name: str,
) -> RawTable:
    blocks = _whole_lines(stream, max_bytes=limits.max_upload_bytes, name=name)
    first = next(blocks, b"")
    header, rest = read_header(first, ignore_columns=ignore_columns, max_columns=limits.max_upload_columns, name=name)
    reader = BlockReader(header, name)
    times = time_reader_of(header.time_column)
    values: list[FloatArray] = []
    rows = 0
    for block in _chain(rest, blocks):
        cells = reader.read(block, first_row=rows + 1)
        times.feed(_one_chunk(cells.times), first_row=rows + 1)
        rows += len(cells.values)
        _check_size(rows, len(header.names), limits, name)
        values.append(cells.values)
    if rows == 0:
        msg = "the file has a header and no rows"
        raise RejectedError(msg, code="no_rows", field=name)
    found = times.finish()
    seconds, notes = _whole_seconds(found, header.time_column)
    _check_order(seconds, header.time_column)
    return RawTable(
        times=seconds,
        columns=header.numeric,
        values=_gather(values, rows, len(header.numeric)),
        time_column=header.time_column,
        ignored=header.ignored,
        time_format=found.format,
        notes=notes,
    )


def _whole_lines(stream: BinaryIO, *, max_bytes: int, name: str) -> Iterator[bytes]:
    """Yield blocks of whole lines, each checked to be text."""
    total = 0
    kept = b""
    while chunk := stream.read(BLOCK_BYTES):
        if total == 0:
            refuse_other_formats(chunk, name)
            chunk = chunk.removeprefix(b"\xef\xbb\xbf")
        total += len(chunk)
        if total > max_bytes:
            msg = f"the file is larger than {max_bytes:,} bytes (MAX_UPLOAD_BYTES)"
            raise RejectedError(msg, code="too_large", field=name)
        if b"\0" in chunk:
            refuse_nul(name)
        end = chunk.rfind(b"\n") + 1
        if end == 0:
            kept += chunk
            _check_line(kept, name)
            continue
        block, kept = kept + chunk[:end], chunk[end:]
        _check_line(block[: block.find(b"\n")], name)
        _check_utf8(block, name)
        yield block
    if total == 0:
        msg = "the file is empty"
        raise RejectedError(msg, code="empty_file", field=name)
    if kept:
        _check_utf8(kept, name)
        yield kept


def _check_line(line: bytes, name: str) -> None:
    # A line can extend over many reads of BLOCK_BYTES, and it is then the first line of its block. Every later line of
    # the block comes from one read, so only the first line's length is checked.
    refuse_long_line(len(line), line.count(b","), name)


def _check_utf8(block: bytes, name: str) -> None:
    if block.isascii():
        return
    try:
        block.decode("utf-8")
    except UnicodeDecodeError as error:
        msg = f"the file is not UTF-8 (byte 0x{block[error.start]:02x}): save it as UTF-8"
        raise RejectedError(msg, code="wrong_encoding", field=name) from None


def _chain(first: bytes, others: Iterator[bytes]) -> Iterator[bytes]:
    if first.strip(b"\r\n"):
        yield first
    for block in others:
        if block.strip(b"\r\n"):
            yield block


def _one_chunk(column: pa.ChunkedArray[Any]) -> pa.Array[Any]:
    return pa.concat_arrays(column.chunks)


def _whole_seconds(found: ReadTimes, column: str) -> tuple[IntArray, tuple[str, ...]]:
    chunks = range(0, len(found.times), CHUNK_ROWS)
    rounded = sum(np.count_nonzero(found.times[at : at + CHUNK_ROWS] % MICROSECONDS) for at in chunks)
    if not rounded:
        return np.floor_divide(found.times, MICROSECONDS, out=found.times), found.notes
    seconds = to_seconds(found.times)
    closer = np.flatnonzero((np.diff(seconds) == 0) & (np.diff(found.times) != 0))
    if len(closer):
        row = int(closer[0]) + 2
        msg = (
            f"row {row}, column {column}: less than a second after the row before; rows must be a second apart or more"
        )
        raise RejectedError(msg, code="finer_than_seconds", field=column)
    note = f"column {column}: {rounded:,} times with fractions of a second are rounded to whole seconds"
    return seconds, (*found.notes, note)


def _check_size(rows: int, columns: int, limits: UploadLimits, name: str) -> None:
    if rows > limits.max_upload_rows:
        msg = f"the file has more than {limits.max_upload_rows:,} rows (MAX_UPLOAD_ROWS)"
        raise RejectedError(msg, code="too_many_rows", field=name)
    if rows * columns > limits.max_upload_cells:
        msg = f"the file has more than {limits.max_upload_cells:,} cells (MAX_UPLOAD_CELLS)"
        raise RejectedError(msg, code="too_many_cells", field=name)


def _check_order(times: IntArray, column: str) -> None:
    differences = np.diff(times)
    backwards = np.flatnonzero(differences < 0)
    if len(backwards):
        row = int(backwards[0]) + 2
        msg = f"times are not in order: row {row} is earlier than the row before it; sort the file by {column}"
        raise RejectedError(msg, code="unordered_times", field=column)
    twice = np.flatnonzero(differences == 0)
    if len(twice):
        row = int(twice[0]) + 2
        moment = np.datetime64(int(times[twice[0]]), "s")
        msg = f"{len(twice):,} rows repeat the time of the row before; the first is row {row} ({moment}Z)"
        raise RejectedError(msg, code="duplicate_times", field=column)


def _gather(blocks: list[FloatArray], rows: int, columns: int) -> FloatArray:
    """Copy the blocks into one array and free each copied block, so that memory holds the values about once."""
    values = np.empty((rows, columns))
    at = rows
    while blocks:
        block = blocks.pop()
        at -= len(block)
        values[at : at + len(block)] = block
    return values
