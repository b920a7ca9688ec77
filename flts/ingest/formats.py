"""Turn a file of any readable format into chunks of the text of a CSV, so that one reader reads all formats."""

from __future__ import annotations

import csv
import io
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from flts.errors import RejectedError
from flts.ingest.lines import BLOCK_BYTES
from flts.ingest.magic import format_of

BATCH_ROWS = 1 << 14
DAMAGED_ZIP = (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, struct.error)
"""Errors of zipfile; NotImplementedError is raised for an unknown version, which damaged bytes can state."""
_EXACT_INTEGERS = 1e15  # a float64 below has all of its digits before the point
_SHEET_ERROR = timedelta(milliseconds=5)  # Excel stores times as fractions of a day, which are not exact


def text_of(stream: BinaryIO, *, limit: int, notes: list[str], name: str) -> Iterator[bytes]:
    """Yield the text of a file; ``notes`` gets a line if the file is not text.

    Parameters
    ----------
    limit
        Most bytes of a Parquet or Excel file, and of the decompressed content of an Excel file.

    Raises
    ------
    RejectedError
        ``not_csv`` for another format, ``unreadable`` for a damaged file, ``too_large``.
    """
    first = stream.read(BLOCK_BYTES)
    kind = format_of(first, name)
    if kind == "text":
        yield from _chunks(first, stream)
        return
    notes.append(f"format: {kind}")
    try:
        if kind == "gzip":
            yield from _unzipped(_chunks(first, stream), name)
            return
        with tempfile.TemporaryFile() as file:
            file.write(first)
            shutil.copyfileobj(stream, file, BLOCK_BYTES)
            _check_size(file.tell(), limit, name)
            file.seek(0)
            yield from (_parquet(file) if kind == "Parquet" else _excel(file, limit, notes, name))
    except (zlib.error, EOFError, pa.ArrowException, *DAMAGED_ZIP) as error:
        msg = f"the {kind} file is damaged: {str(error)[:200]}"
        raise RejectedError(msg, code="unreadable", field=name) from None


def _chunks(first: bytes, stream: BinaryIO) -> Iterator[bytes]:
    while first:
        yield first
        first = stream.read(BLOCK_BYTES)


def _unzipped(chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Decompress at most `BLOCK_BYTES` at once, so that a small file cannot fill the memory."""
    member = zlib.decompressobj(wbits=31)
    at_start = True
    for chunk in chunks:
        rest = chunk
        while rest:
            text = member.decompress(rest, BLOCK_BYTES)
            if text:
                if at_start and format_of(text, name) != "text":
                    msg = "the gzip file contains a file that is not a CSV"
                    raise RejectedError(msg, code="not_csv", field=name)
                at_start = False
                yield text
            if member.eof:
                rest = member.unused_data.lstrip(b"\0")
                if rest:
                    member = zlib.decompressobj(wbits=31)
            else:
                rest = member.unconsumed_tail
    if not member.eof:
        msg = "it ends in the middle"
        raise EOFError(msg)


def _parquet(file: Any) -> Iterator[bytes]:
    from pyarrow import parquet  # noqa: PLC0415 - only a Parquet file needs it

    try:
        yield from _batches(parquet.ParquetFile(file))
    except OSError as error:  # Arrow raises it for bytes that are not those of a table
        raise pa.ArrowException(str(error)) from None


def _batches(source: Any) -> Iterator[bytes]:
    readable = [field for field in source.schema_arrow if not _is_nested(field.type)]
    names = [_index_name(field) for field in readable]
    for number, batch in enumerate(source.iter_batches(BATCH_ROWS, columns=[field.name for field in readable])):
        columns = [_plain(batch.column(field.name)) for field in readable]
        out = io.BytesIO()
        options = arrow_csv.WriteOptions(include_header=number == 0, quoting_style="needed")
        arrow_csv.write_csv(pa.table(columns, names=names), out, options)
        yield out.getvalue()


def _is_nested(kind: pa.DataType) -> bool:
    return pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _index_name(field: pa.Field[Any]) -> str:
    """Return the name of a column; the nameless index of pandas is called time if it has times."""
    if not field.name.startswith("__index_level_"):
        return field.name
    return "time" if pa.types.is_temporal(field.type) else ""


def _plain(column: pa.Array[Any]) -> pa.Array[Any]:
    """Return a column of a type that Arrow writes as the text of a CSV."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.timestamp("us", tz=column.type.tz), safe=False)
    if pa.types.is_duration(column.type):
        return column.cast(pa.int64())
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return pc.replace_substring_regex(column, r"[\r\n]+", " ")
    return column


def _excel(file: Any, limit: int, notes: list[str], name: str) -> Iterator[bytes]:
    from python_calamine import CalamineError, CalamineWorkbook, SheetTypeEnum, SheetVisibleEnum  # noqa: PLC0415 - only an Excel file needs it

    _check_size(sum(entry.file_size for entry in zipfile.ZipFile(file).infolist()), limit, name)
    file.seek(0)
    try:
        book = CalamineWorkbook.from_filelike(file)
        sheets = [
            sheet.name
            for sheet in book.sheets_metadata
            if sheet.typ == SheetTypeEnum.WorkSheet and sheet.visible == SheetVisibleEnum.Visible
        ]
        for sheet_name in sheets:
            sheet = book.get_sheet_by_name(sheet_name)
            if sheet.height > 1 and sheet.width > 1:
                others = f" of {len(sheets)}" if len(sheets) > 1 else ""
                notes.append(f"sheet: {sheet_name}{others}, the first with a table")
                yield from _sheet(sheet.iter_rows())
                return
    except CalamineError as error:
        msg = f"this is a zip file, but no Excel workbook (.xlsx) that can be read: {str(error)[:200]}"
        raise RejectedError(msg, code="not_csv", field=name) from None
    msg = "no sheet of the workbook has a table"
    raise RejectedError(msg, code="empty_file", field=name)


def _sheet(rows: Iterator[list[Any]]) -> Iterator[bytes]:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for row in rows:
        cells = [_cell(value) for value in row]
        if any(cells):
            writer.writerow(cells)
        if out.tell() > BLOCK_BYTES // 4:
            yield out.getvalue().encode()
            out.seek(0)
            out.truncate()
    yield out.getvalue().encode()


def _cell(value: Any) -> str:
    """Return the text of a cell of a sheet."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < _EXACT_INTEGERS else repr(value)
    if isinstance(value, datetime):
        whole = (value + timedelta(milliseconds=500)).replace(microsecond=0)
        return str(whole if abs(whole - value) <= _SHEET_ERROR else value)
    if isinstance(value, timedelta):
        return str(timedelta(seconds=round(value.total_seconds())))
    if isinstance(value, date | time):
        return value.isoformat()
    return " ".join(str(value).splitlines())


def _check_size(size: int, limit: int, name: str) -> None:
    if size > limit:
        msg = f"the file has more than {limit:,} bytes (MAX_UPLOAD_BYTES)"
        raise RejectedError(msg, code="too_large", field=name)
