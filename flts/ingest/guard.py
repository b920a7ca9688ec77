"""Check an upload while it arrives, so that a file that cannot be a table is refused within its first megabyte."""

from __future__ import annotations

from typing import NoReturn

from flts.errors import RejectedError
from flts.ingest.encoding import utf16_of
from flts.ingest.magic import LONGEST_MAGIC, format_of

MAX_LINE_BYTES = 1 << 20  # bytes; far above a line of 1,000 columns of 60 characters, which has 60 kB


class TextGuard:
    """Checks the bytes of one file while they arrive, in pieces of any size.

    Parameters
    ----------
    name : str
        Value of ``field`` in errors.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._start: bytes | None = b""
        self._is_text = True
        self._may_have_nul = False
        self._line_bytes = 0
        self._line_cells = 0

    def feed(self, piece: bytes) -> None:
        """Check the next piece.

        Raises
        ------
        RejectedError
            ``not_csv`` by the first bytes, ``not_text`` for NUL bytes, ``line_too_long`` or ``too_many_columns`` for a
            line above `MAX_LINE_BYTES`. The bytes of a gzip, Parquet or Excel file are not checked.
        """
        if self._start is not None:
            piece = self._start + piece
            if len(piece) < LONGEST_MAGIC:
                self._start = piece
                return
            self._start = None
            self._is_text = format_of(piece, self._name) == "text"
            self._may_have_nul = utf16_of(piece) is not None
        if not self._is_text:
            return
        if b"\0" in piece and not self._may_have_nul:
            refuse_nul(self._name)
        last = piece.rfind(b"\n") + 1
        if last:
            # Only the line that ends at the first newline can have begun in an earlier piece, so only its length is
            # checked here. A line inside one piece is not longer than the piece, which has a bounded length.
            first = piece.find(b"\n")
            refuse_long_line(self._line_bytes + first, self._line_cells + piece.count(b",", 0, first), self._name)
            self._line_bytes = self._line_cells = 0
        self._line_bytes += len(piece) - last
        self._line_cells += piece.count(b",", last)
        refuse_long_line(self._line_bytes, self._line_cells, self._name)


def refuse_long_line(size: int, commas: int, name: str) -> None:
    """Refuse a line that is longer than `MAX_LINE_BYTES`.

    Raises
    ------
    RejectedError
        ``line_too_long``, or ``too_many_columns`` if the line consists of many short cells.
    """
    if size <= MAX_LINE_BYTES:
        return
    if commas > size // 64:
        msg = f"a line has more than {commas:,} cells and {MAX_LINE_BYTES:,} bytes"
        raise RejectedError(msg, code="too_many_columns", field=name)
    msg = f"a line is longer than {MAX_LINE_BYTES:,} bytes: is this a CSV with one row a line?"
    raise RejectedError(msg, code="line_too_long", field=name)


def refuse_nul(name: str) -> NoReturn:
    """Refuse a file that contains NUL bytes."""
    msg = "the file contains NUL bytes: it is not text"
    raise RejectedError(msg, code="not_text", field=name)
