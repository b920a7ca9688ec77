"""Read an uploaded CSV block by block, and refuse a file that is not a CSV with the reason.

Limits are checked while the bytes arrive, so a hostile file needs at most one block more memory than a valid file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from flts.errors import RejectedError
from flts.forecasting.series import FloatArray, IntArray
from flts.ingest.cells import BlockReader
from flts.ingest.guard import refuse_long_line, refuse_nul
from flts.ingest.header import Header, read_header, refuse_other_formats
from flts.ingest.table import RawTable
from flts.ingest.times import parse_times
from flts.settings import UploadLimits

BLOCK_BYTES = 1 << 20


def read_csv(
    source: Path | str | BinaryIO,
    *,
    limits: UploadLimits,
    ignore_columns: tuple[str, ...] = (),
    name: str = "file",
) -> RawTable:
    """Read a CSV with one time column, whose other columns are numbers.

    UTF-8 (a byte order mark is accepted), separated by commas, semicolons or tabs, decimals with a point. Empty cells,
    ``NA``, ``NaN`` and ``null`` are missing.

    Parameters
    ----------
    source
        A path, or a binary stream that is read once and not closed.
    ignore_columns
        Columns to leave out; their cells are not checked.
    name
        Value of ``field`` in errors about the whole file: ``file``, ``train``, ``test``.

    Raises
    ------
    RejectedError
        With code and field (the column, or ``name``). The message names the row of a cell; data rows count from 1.
    """
    if isinstance(source, str | Path):
        with Path(source).open("rb") as stream:
            return _read(stream, limits, ignore_columns, name)
    return _read(source, limits, ignore_columns, name)


def _read(stream: BinaryIO, limits: UploadLimits, ignore_columns: tuple[str, ...], name: str) -> RawTable:
    blocks = _whole_lines(stream, max_bytes=limits.max_upload_bytes, name=name)
    first = next(blocks, b"")
    header, rest = read_header(first, ignore_columns=ignore_columns, max_columns=limits.max_upload_columns, name=name)
    reader = BlockReader(header, name)
    times: list[IntArray] = []
    values: list[FloatArray] = []
    rows = 0
    for block in _chain(rest, blocks):
        block_times, block_values = _read_block(reader, header, block, rows)
        rows += len(block_times)
        _check_size(rows, len(header.names), limits, name)
        times.append(block_times)
        values.append(block_values)
    if rows == 0:
        msg = "the file has a header and no rows"
        raise RejectedError(msg, code="no_rows", field=name)
    all_times = np.concatenate(times)
    _check_order(all_times, header.time_column)
    return RawTable(
        times=all_times,
        columns=header.numeric,
        values=_gather(values, rows, len(header.numeric)),
        time_column=header.time_column,
        ignored=header.ignored,
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


def _read_block(reader: BlockReader, header: Header, block: bytes, rows_before: int) -> tuple[IntArray, FloatArray]:
    cells = reader.read(block, first_row=rows_before + 1)
    block_times = parse_times(_one_chunk(cells.times), column=header.time_column, first_row=rows_before + 1)
    return block_times, cells.values


def _one_chunk(column: pa.ChunkedArray[Any]) -> pa.Array[Any]:
    return pa.concat_arrays(column.chunks)


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
