"""The time cells of one block: as numbers, and as characters grouped by shape."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flts.forecasting.series import BoolArray, FloatArray, IntArray
from flts.ingest.arrow import doubles, truths, whole_numbers
from flts.times.fields import Characters
from flts.times.pattern import shape_of

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_OFFSET = re.compile(r"(?:[zZ]|[+-]\d{2}(?::?\d{2})?)$")
_OTHER_SPACES = ("\u00a0", "\u202f", "\u2009")
_CLASSES = np.arange(256, dtype=np.uint8)
_CLASSES[ord("0") : ord("9") + 1] = ord("0")
_CLASSES[ord("a") : ord("z") + 1] = ord("a")
_CLASSES[ord("A") : ord("Z") + 1] = ord("a")


class TimeCells:
    """Time cells of one block, (n,) strings without spaces around them."""

    def __init__(self, cells: pa.Array[Any]) -> None:
        self._cells: Any = pc.utf8_trim_whitespace(cells)
        if not pc.all(pc.string_is_ascii(self._cells), min_count=0).as_py():
            for space in _OTHER_SPACES:
                self._cells = pc.replace_substring(self._cells, space, " ")
            self._cells = pc.utf8_trim_whitespace(self._cells)
        self._numbers: FloatArray | None = None
        self._starts, self._lengths, self._data = self._buffers()

    def __len__(self) -> int:
        return len(self._cells)

    def text(self, row: int) -> str:
        """Return the cell of a row, counted from 0."""
        return str(self._cells[row].as_py())

    def first_empty(self) -> int | None:
        """Return the first row without a time, or None."""
        # Functions of Arrow with a scalar import pandas if it is installed, so that the search is numpy's.
        empty = self._lengths == 0
        if self._cells.null_count:
            empty |= ~truths(self._cells.is_valid())
        return int(np.argmax(empty)) if empty.any() else None

    def longest(self) -> str:
        """Return the longest cell, the first of several."""
        return self.text(int(np.argmax(self._lengths)))

    def numbers(self) -> FloatArray:
        """Return the cells as numbers, NaN where a cell is none."""
        if self._numbers is None:
            try:
                self._numbers = doubles(pa.chunked_array([pc.cast(self._cells, pa.float64())]))
            except pa.ArrowInvalid:
                texts = [str(cell) for cell in self._cells.to_pylist()]
                self._numbers = np.array([float(text) if _NUMBER.fullmatch(text) else np.nan for text in texts])
        return self._numbers

    def iso(self) -> tuple[IntArray, bool, str] | None:
        """Return the microseconds of ISO 8601 cells, whether they have an offset, and their common offset.

        Arrow parses them. The result is None if Arrow cannot, or if only some cells have an offset.
        """
        offset = _OFFSET.search(self.text(0)[len("2024-01-31") :])
        try:
            micros = whole_numbers(pc.cast(self._cells, pa.timestamp("us", tz="UTC" if offset else None)))
        except pa.ArrowInvalid:
            return None
        if offset is None:
            return micros, False, ""
        same = pc.all(pc.ends_with(self._cells, offset[0])).as_py()
        return micros, True, offset[0] if same else ""

    def groups(self) -> Iterator[tuple[IntArray, str, Characters]]:
        """Yield the rows, the shape and the characters of all cells of each shape, in the order of their first rows."""
        lengths = self._lengths
        open_rows: BoolArray = np.ones(len(self), np.bool_)
        tables: dict[int, tuple[IntArray, Characters, NDArray[np.uint8]]] = {}
        first = 0
        while first < len(self):
            length = int(lengths[first])
            if length not in tables:
                rows = np.flatnonzero(lengths == length)
                characters = _table(self._data, self._starts[rows], length)
                tables[length] = rows, characters, _CLASSES[characters]
            rows, characters, classes = tables[length]
            at = int(np.searchsorted(rows, first))
            same = (classes == classes[at]).all(axis=1)
            shape = shape_of(characters[at].tobytes().decode("latin-1"))
            if same.all():
                yield rows, shape, characters
                open_rows[rows] = False
            else:
                yield rows[same], shape, characters[same]
                open_rows[rows[same]] = False
            left = np.flatnonzero(open_rows[first:])
            first = first + int(left[0]) if len(left) else len(self)

    def _buffers(self) -> tuple[IntArray, IntArray, NDArray[np.uint8]]:
        _, ends, data = self._cells.buffers()
        if ends is None or data is None:
            empty = np.zeros(len(self), np.int64)
            return empty, empty, np.empty(0, np.uint8)
        first = self._cells.offset
        bounds = np.frombuffer(memoryview(ends), np.int32)[first : first + len(self) + 1].astype(np.int64)
        return bounds[:-1], np.diff(bounds), np.frombuffer(memoryview(data), np.uint8)


def _table(data: NDArray[np.uint8], starts: IntArray, length: int) -> Characters:
    if length == 0:
        return np.empty((len(starts), 0), np.uint8)
    if int(starts[-1] - starts[0]) == length * (len(starts) - 1):
        return data[starts[0] : starts[0] + length * len(starts)].reshape(len(starts), length)
    characters: Characters = data[starts[:, None] + np.arange(length)]
    return characters
