"""Tell formats apart by their first bytes."""

from __future__ import annotations

from typing import Literal

from flts.errors import RejectedError

Format = Literal["text", "gzip", "Parquet", "Excel"]
LONGEST_MAGIC = 6
READABLE: tuple[tuple[bytes, Format], ...] = ((b"\x1f\x8b", "gzip"), (b"PAR1", "Parquet"), (b"PK\x03\x04", "Excel"))
OTHERS = (
    (b"\x28\xb5\x2f\xfd", "zstd file"),
    (b"BZh", "bzip2 file"),
    (b"\xfd7zXZ\x00", "xz file"),
    (b"\xd0\xcf\x11\xe0", "Excel file of the old format (.xls)"),
    (b"%PDF", "PDF file"),
    (b"SQLite", "SQLite file"),
)


def format_of(start: bytes, name: str) -> Format:
    """Return the format that the first bytes show.

    Raises
    ------
    RejectedError
        ``not_csv`` for a known format that is not read.
    """
    for magic, found in READABLE:
        if start.startswith(magic):
            return found
    for magic, what in OTHERS:
        if start.startswith(magic):
            msg = f"this is a {what}; CSV, CSV in gzip, Parquet and Excel (.xlsx) are read"
            raise RejectedError(msg, code="not_csv", field=name)
    return "text"
