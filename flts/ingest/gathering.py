"""Gather the values of blocks in few large pieces, which the allocator returns to the system when they are freed."""

from __future__ import annotations

import errno
import mmap
import tempfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from flts.forecasting.series import FloatArray

PIECE_BYTES = 40 * 2**20  # above 32 MiB, glibc maps an allocation on its own


class Gathered:
    """The values of all blocks so far, (n, columns). Blocks are copied as soon as they fill a piece.

    Parameters
    ----------
    columns : int
    folder : Path, optional
        Folder on a disk for a temporary file of the pieces. Without a folder, or if the disk is full, the pieces are in
        memory.
    """

    def __init__(self, columns: int, folder: Path | None = None) -> None:
        self._columns = columns
        self._folder = folder
        self._file: BinaryIO | None = None
        self._rows_in_file = 0
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
            self._close_piece(self._folder)

    def values(self) -> FloatArray:
        """Return all rows in one array: a mapping of the file, or memory, where each piece is freed once copied."""
        self._close_piece(None if self._file is None else self._folder)
        if self._file is None:
            return self._pieces.pop() if len(self._pieces) == 1 else _joined(self._pieces, self._columns)
        with self._file as file:
            try:
                mapped = mmap.mmap(file.fileno(), 0)
            except OSError as error:
                if error.errno != errno.ENOMEM:
                    raise
                msg = f"the address space has no room for {self.rows:,} rows"
                raise MemoryError(msg) from error
        return np.ndarray((self._rows_in_file, self._columns), np.float64, mapped)

    def _close_piece(self, folder: Path | None) -> None:
        piece = _joined(self._blocks, self._columns)
        self._open_bytes = 0
        if folder is None:
            self._pieces.append(piece)
            return
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - `values` closes it
            rest = piece.view(np.uint8).reshape(-1)
            while len(rest):
                rest = rest[self._file.write(rest.data) :]
            self._rows_in_file += len(piece)
        except OSError:  # the disk is full
            self._folder = None
            self._pieces = [*self._from_file(), piece]

    def _from_file(self) -> list[FloatArray]:
        """Return the pieces of the file, which is removed."""
        if self._file is None:
            return []
        with self._file as file:
            file.seek(0)
            self._file = None
            return [np.fromfile(file, count=self._rows_in_file * self._columns).reshape(-1, self._columns)]


def _joined(parts: list[FloatArray], columns: int) -> FloatArray:
    """Copy the parts into one array, and empty the list part by part."""
    at = sum(map(len, parts))
    values = np.empty((at, columns))
    while parts:
        part = parts.pop()
        at -= len(part)
        values[at : at + len(part)] = part
    return values
