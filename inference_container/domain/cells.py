"""Read the times and the numbers of one column of a request."""

from __future__ import annotations

import re
from typing import Annotated, NoReturn

import msgspec
import numpy as np
from numpy.typing import NDArray

from flts.errors import RejectedError
from flts.forecasting.file_form import FileForm
from flts.ingest.cell import CellFormat
from flts.times import TimeFormat
from inference_container.domain.times import TimeStyle, WritesTimes, read_epoch, read_iso

DATE_LENGTH = 10  # characters of YYYY-MM-DD
_INFINITE = (float("inf"), float("-inf"))
_NUMBERS = msgspec.json.Decoder(list[float | None])
_TEXTS = msgspec.json.Decoder(list[str])
# Integers are limited to 2**62, because JSON allows integers of thousands of digits, which do not fit into 64 bits.
_EPOCHS = msgspec.json.Decoder(list[Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)] | float])
# The cells of a file as text, or as JSON writes their values.
_CELLS = msgspec.json.Decoder(list[str | int | float])
_VALUES = msgspec.json.Decoder(list[float | bool | str | None])
_OFFSET = re.compile(r"(?:[zZ]|[+-]\d{2}(?::?\d{2})?)$")
PLACE = re.compile(r" - at `(.*)`$")
"""The place of the error at the end of msgspec's messages."""
_ROW = re.compile(r"\[(\d+)\]")


def read_times(raw: msgspec.Raw, column: str, form: FileForm | None) -> tuple[NDArray[np.int64], WritesTimes]:
    """Return times as epoch seconds, (n,), and their form: that of the files, ISO 8601 or epoch seconds.

    Raises
    ------
    RejectedError
        ``bad_time``; ``field`` is the column, and the message names the row.
    """
    if form is None:
        return _read_plain_times(raw, column)
    try:
        cells = _CELLS.decode(raw)
        return form.time_format.read(cells, field=column), form.time_format
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _read_plain_times(raw, column)
    except RejectedError as error:
        # A request may write times in ISO 8601 or epoch seconds, however the files write them.
        try:
            if form.time_format.zone is None or not isinstance(cells[0], str) or _OFFSET.search(cells[0], DATE_LENGTH):
                return _read_plain_times(raw, column)
            local = TimeFormat("YYYY-MM-DDTHH:mm:ss", form.time_format.zone)
            return local.read(cells, field=column), local
        except RejectedError:
            raise error from None


def _read_plain_times(raw: msgspec.Raw, column: str) -> tuple[NDArray[np.int64], TimeStyle]:
    view = bytes(raw)
    try:
        if view[1:].lstrip()[:1] == b'"':
            return read_iso(_TEXTS.decode(view), field=column)
        numbers = _EPOCHS.decode(view)
    except msgspec.ValidationError as error:
        row, reason = _row(error)
        _refuse("bad_time", f"{column}: {row}{reason}; times are ISO 8601 texts or epoch seconds, not a mix", column)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        _refuse("bad_time", f"{column}: {error}", column)
    return read_epoch(numbers, field=column, integers=all(isinstance(number, int) for number in numbers))


def read_numbers(raw: msgspec.Raw, name: str, form: FileForm | None) -> list[float | None]:
    """Return the numbers of a column, None for a missing one.

    Raises
    ------
    RejectedError
        ``bad_column`` or ``bad_number``; ``field`` is the column, and the message names the row.
    """
    try:
        return _NUMBERS.decode(raw)
    except msgspec.ValidationError as error:
        if (cells := _read_cells(raw, form)) is not None:
            return cells
        row, reason = _row(error)
        if not row:
            _refuse("bad_column", f"{name}: {reason}; a column is a list of numbers and nulls", name)
        _refuse(
            "bad_number",
            f"{name}: {row}{reason}; values are numbers or null, or cells as the files of the data set have them",
            name,
        )
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        _refuse("bad_number", f"{name}: {error}", name)


def _read_cells(raw: msgspec.Raw, form: FileForm | None) -> list[float | None] | None:
    """Return the numbers of cells that a file of the data set may have, or None if a cell is no number."""
    try:
        cells = _VALUES.decode(raw)
    except msgspec.ValidationError:
        return None
    meaning = CellFormat() if form is None else CellFormat(form.decimal, form.thousands, form.missing)
    numbers = [meaning.number(cell) if isinstance(cell, str) else cell for cell in cells]
    wrong = any(number is None and cell is not None for number, cell in zip(numbers, cells, strict=True))
    return None if wrong or any(number in _INFINITE for number in numbers) else numbers


def _row(error: msgspec.ValidationError) -> tuple[str, str]:
    """Return ``"row 3: "`` (or nothing) and the reason of msgspec's message."""
    text = str(error)
    match = PLACE.search(text)
    row = _ROW.search(match.group(1)) if match else None
    return (f"row {int(row.group(1)) + 1}: " if row else ""), PLACE.sub("", text).replace("`", "")


def _refuse(code: str, message: str, field: str) -> NoReturn:
    raise RejectedError(message, code=code, field=field)
