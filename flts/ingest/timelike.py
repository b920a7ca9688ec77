"""Whether the text of a cell looks like a date, a time of day or both. Finds the time column; `times` reads it."""

from __future__ import annotations

import re

_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}\.?"  # `times` reads English names only
_DATE = (
    r"\d{4}-\d{1,2}(?:-\d{1,2})?|\d{4}/\d{1,2}(?:/\d{1,2})?|\d{4}\.\d{1,2}\.\d{1,2}"
    r"|\d{1,2}([-/.])\d{1,2}\1\d{2}(?:\d{2})?|\d{1,2}/\d{4}"
    rf"|\d{{1,2}}[-/. ]{{0,2}}{_MONTH}[-/ ,]{{0,2}}\d{{2,4}}|{_MONTH}[ -]?\d{{1,2}},? \d{{4}}|{_MONTH}[-/ ]?\d{{2,4}}"
    r"|\d{4}[- ]?q[1-4]|q[1-4][-/ ]?\d{4}|\d{4}-?w\d{2}(?:-?\d)?"
)
_CLOCK = r"\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?: ?[ap]\.?m\.?)?"
_ZONE = r"(?: ?z| ?[+-]\d{2}:?\d{0,2}| ?utc| ?gmt)?"
_IS_DATE = re.compile(_DATE, re.IGNORECASE)
_IS_CLOCK = re.compile(_CLOCK, re.IGNORECASE)
_IS_TIME = re.compile(rf"(?:{_DATE})(?:[t ,] ?{_CLOCK}{_ZONE})?", re.IGNORECASE)


def is_date(cell: str) -> bool:
    """Return whether a cell is a date (month, quarter) without a time of day."""
    return _IS_DATE.fullmatch(cell.strip()) is not None


def is_time_of_day(cell: str) -> bool:
    """Return whether a cell is a time of day without a date."""
    return _IS_CLOCK.fullmatch(cell.strip()) is not None


def is_time(cell: str) -> bool:
    """Return whether a cell is a date, with or without a time of day. Plain numbers are not."""
    return _IS_TIME.fullmatch(cell.strip()) is not None
