"""Gather the values of blocks in few large pieces, which the allocator returns to the system when they are freed."""

from __future__ import annotations

import numpy as np

from flts.forecasting.series import FloatArray

PIECE_BYTES = 40 * 2**20  # above 32 MiB, glibc maps an allocation on its own


class Gathered:
    """The values of all blocks so far, (n, columns). Blocks are copied as soon as they fill a piece."""

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self._blocks: list[FloatArray] = []
        self._pieces: list[FloatArray] = []
        self._open_bytes = 0
        self.rows = 0

    def add(self, block: FloatArray) -> None:
        """Append the rows of a block."""
        self._blocks.append(block)
        self._open_bytes += block.nbytes
        self.rows += len(block)
        if self._open_bytes >= PIECE_BYTES:
            self._pieces.append(_joined(self._blocks, self._columns))
            self._open_bytes = 0

    def values(self) -> FloatArray:
        """Return all rows in one array; each piece is freed when it has been copied."""
        self._pieces.append(_joined(self._blocks, self._columns))
        return self._pieces.pop() if len(self._pieces) == 1 else _joined(self._pieces, self._columns)


def _joined(parts: list[FloatArray], columns: int) -> FloatArray:
    """Copy the parts into one array, and empty the list part by part."""
    at = sum(map(len, parts))
    values = np.empty((at, columns))
    while parts:
        part = parts.pop()
        at -= len(part)
        values[at : at + len(part)] = part
    return values
