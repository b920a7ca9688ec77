"""The meaning of one cell of a table: a number, a truth value or a missing mark. Imports only the standard library."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property

MISSING = (
    "", "-", "--", "---", ".", "..", "...", "?", "#N/A", "#NA", "#N/A N/A", "#NV", "#VALUE!", "#DIV/0!",
    "#REF!", "#NUM!", "#NAME?", "NA", "N/A", "N.A.", "<NA>", "NaN", "-NaN", "NaT", "nil", "none", "null", "missing",
    "unavailable", "no data", "nodata", "unknown", "k.A.",
)  # fmt: skip
"""Cells that mean a missing value, in capitals or not."""
TRUTH = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}
SPACES = " \u00a0\u202f\u2009"  # the marks that THOUSANDS=space means: space, no-break, narrow no-break and thin space
THOUSANDS_MARKS = {"": "", "none": "", "space": SPACES, "apostrophe": "'\u2019", ".": ".", ",": ",", "'": "'\u2019"}
_MISSING = frozenset(mark.lower() for mark in MISSING)
_INFINITE = r"[+-]?[iI][nN][fF](?:[iI][nN][iI][tT][yY])?"


@dataclass(frozen=True)
class CellFormat:
    """How the numbers of a file are written, and which cells are missing.

    Parameters
    ----------
    decimal : str
        The decimal mark: a point or a comma.
    thousands : str
        A key of `THOUSANDS_MARKS`.
    missing : tuple of str
        Missing marks in addition to `MISSING`; exactly as written.
    """

    decimal: str = "."
    thousands: str = ""
    missing: tuple[str, ...] = ()

    def number(self, cell: str) -> float | None:
        """Return the number of a cell, NaN if the cell is missing, or None if it is neither."""
        text = cell.strip()
        if self._number.fullmatch(text):
            return float(self.plain(text))
        if self.is_missing(text):
            return math.nan
        return TRUTH.get(text.lower())

    def is_missing(self, cell: str) -> bool:
        """Return whether a cell means a missing value."""
        text = cell.strip()
        return text.lower() in _MISSING or text in self.missing

    def plain(self, text: str) -> str:
        """Return the text of a number with a decimal point and without thousands marks."""
        for mark in THOUSANDS_MARKS[self.thousands]:
            text = text.replace(mark, "")
        return text.replace(",", ".") if self.decimal == "," else text

    @cached_property
    def pattern(self) -> str:
        """The regular expression of a number, in the common subset of Python's syntax and RE2."""
        point = re.escape(self.decimal)
        whole = r"\d+"
        if marks := THOUSANDS_MARKS[self.thousands]:
            whole = rf"(?:\d{{1,3}}(?:[{marks}]\d{{3}})+|\d+)"
        return rf"(?:[+-]?(?:{whole}(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d+)?|{_INFINITE})"

    @cached_property
    def _number(self) -> re.Pattern[str]:
        return re.compile(self.pattern, re.ASCII)
