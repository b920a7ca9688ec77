"""Columns of a table one at a time, so that a table in a mapped file needs little memory."""

from __future__ import annotations

import mmap
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

CHUNK_ROWS = 1 << 18
"""Rows that are copied together; of a mapped file, only their pages are in memory."""


def column_of(values: NDArray[np.float64], at: int) -> NDArray[np.float64]:
    """Return a copy of one column, (n,), of a table, (n, k)."""
    column = np.empty(len(values))
    for rows in chunks_of(values):
        column[rows] = values[rows, at]
    return column


def rows_at(values: NDArray[np.float64], order: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the rows of a table, (n, k), in an order, (m,): ``values[order]``."""
    ordered = np.empty((len(order), values.shape[1]))
    for at in range(values.shape[1]):
        ordered[:, at] = column_of(values, at)[order]
    return ordered


def finite(column: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the finite cells of a column, (n,): the column itself if all are finite."""
    is_finite = np.isfinite(column)
    return column if is_finite.all() else column[is_finite]


def missing_cells(values: NDArray[np.float64], at: int) -> int:
    """Return the number of cells of one column that are not finite."""
    return len(values) - sum(int(np.count_nonzero(np.isfinite(values[rows, at]))) for rows in chunks_of(values))


def chunks_of(values: NDArray[np.float64]) -> Iterator[slice]:
    """Yield the rows of a table, (n, k), in chunks. The pages of a mapped file leave memory after each chunk."""
    for start in range(0, len(values), CHUNK_ROWS):
        yield slice(start, start + CHUNK_ROWS)
        release(values)


def release(values: NDArray[np.float64]) -> None:
    """Let the pages of a mapped file leave memory; they are read again when they are used. Other arrays stay."""
    owner: object = values
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)
