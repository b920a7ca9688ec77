"""Convert Arrow's arrays to numpy from their buffers. Arrow's own conversion imports pandas if it is installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from flts.forecasting.series import BoolArray, FloatArray, IntArray


def doubles(column: pa.ChunkedArray[Any]) -> FloatArray:
    """Return a column of float64, (n,), nulls as NaN."""
    parts = [_doubles(chunk) for chunk in column.chunks]
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0), *parts])


def whole_numbers(array: pa.Array[Any]) -> IntArray:
    """Return an array of int64 without nulls, (n,)."""
    data = array.buffers()[1]
    if data is None:
        return np.empty(0, np.int64)
    return np.frombuffer(memoryview(data), np.int64)[array.offset : array.offset + len(array)]


def truths(array: pa.Array[Any]) -> BoolArray:
    """Return an array of truth values, (n,), nulls as False."""
    valid, data = array.buffers()
    start, stop = array.offset, array.offset + len(array)
    if data is None:
        return np.zeros(len(array), np.bool_)
    bits = np.unpackbits(np.frombuffer(memoryview(data), np.uint8), bitorder="little")[start:stop]
    if valid is not None:
        bits = bits & np.unpackbits(np.frombuffer(memoryview(valid), np.uint8), bitorder="little")[start:stop]
    return bits.astype(np.bool_)


def texts(array: pa.Array[Any]) -> tuple[list[str], IntArray]:
    """Return the different texts of an array of strings, and the position of each cell's text among them."""
    encoded: Any = array.dictionary_encode(null_encoding="encode")
    indices = encoded.indices
    codes = np.frombuffer(memoryview(indices.buffers()[1]), np.int32)[indices.offset : indices.offset + len(indices)]
    return [text or "" for text in encoded.dictionary.to_pylist()], codes.astype(np.int64)


def _doubles(chunk: pa.Array[Any]) -> FloatArray:
    valid, data = chunk.buffers()
    if data is None:
        return np.empty(0)
    start, stop = chunk.offset, chunk.offset + len(chunk)
    values = np.frombuffer(memoryview(data), np.float64)[start:stop]
    if valid is None or chunk.null_count == 0:
        return values
    bits = np.unpackbits(np.frombuffer(memoryview(valid), np.uint8), bitorder="little")[start:stop]
    return np.where(bits, values, np.nan)
