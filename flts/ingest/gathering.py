"""Gather the values of blocks in few large pieces, which the allocator returns to the system when they are freed."""

from __future__ import annotations

import numpy as np

from flts.forecasting.series import FloatArray

PIECE_BYTES = 40 * 2**20  # above 32 MiB, glibc maps an allocation on its own


class Gathered:
    """The values of all blocks so far, (n, columns)."""

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self._piece_rows = max(1, PIECE_BYTES // (8 * columns))
        self._pieces: list[FloatArray] = []
        self.rows = 0

    def add(self, block: FloatArray) -> None:
        """Append the rows of a block."""
        while len(block):
            at = self.rows % self._piece_rows
            if at == 0:
                self._pieces.append(np.empty((self._piece_rows, self._columns)))
            part, block = block[: self._piece_rows - at], block[self._piece_rows - at :]
            self._pieces[-1][at : at + len(part)] = part
            self.rows += len(part)

    def values(self) -> FloatArray:
        """Return all rows in one array; each piece is freed when it has been copied."""
        if len(self._pieces) == 1:
            return self._pieces.pop()[: self.rows]
        values = np.empty((self.rows, self._columns))
        while self._pieces:
            piece = self._pieces.pop()
            first = len(self._pieces) * self._piece_rows
            values[first : first + self._piece_rows] = piece[: self.rows - first]
        return values
