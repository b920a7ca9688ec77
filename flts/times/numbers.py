"""Times that are numbers: epoch seconds, milliseconds and microseconds, and Excel's day numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from flts.times.fields import DAY, SECOND

UNITS: Mapping[str, int] = {"epoch": SECOND, "epoch ms": 1_000, "epoch us": 1}
"""Microseconds of one unit."""
NUMBERS = (*UNITS, "excel")
EXCEL_EPOCH_DAYS = 25_569
"""Excel's number of 1970-01-01 in the 1900 date system."""
FIRST_EXCEL_DAY = 61
"""1 March 1900. Excel counts a 29 February 1900 that never was, so that smaller numbers are not dates of one system."""
LAST_EXCEL_DAY = 2_958_466
"""The end of the year 9999."""
LIKELY: Mapping[str, tuple[float, float]] = {
    "epoch": (1e8, 1e11),
    "epoch ms": (1e11, 1e14),
    "epoch us": (1e14, 1e17),
    "excel": (20_000, 80_001),
}
"""Range of the numbers that are read in this unit without ``TIME_FORMAT``: 1973 to 5138, 1954 to 2119."""
LAST_SECOND = 253_402_300_799
FIRST_SECOND = -62_135_596_800
EXCEL_PRECISION = 1_000
"""Microseconds. Excel's times have milliseconds; a day number in double precision is a few microseconds off."""


def read_numbers(numbers: NDArray[np.float64], unit: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return microseconds since 1970, and which numbers are times of the years 1 to 9999 (Excel: from March 1900)."""
    if unit == "excel":
        valid = (numbers >= FIRST_EXCEL_DAY) & (numbers < LAST_EXCEL_DAY)
        days = np.where(valid, numbers, EXCEL_EPOCH_DAYS) - EXCEL_EPOCH_DAYS
        micros = np.rint(days * (DAY / EXCEL_PRECISION)).astype(np.int64) * EXCEL_PRECISION
        return micros, valid
    scale = UNITS[unit]
    seconds = numbers * (scale / SECOND)
    valid = (seconds >= FIRST_SECOND) & (seconds < LAST_SECOND + 1)
    numbers = np.where(valid, numbers, 0)
    whole = np.floor(numbers)
    micros = whole.astype(np.int64) * scale + np.rint((numbers - whole) * scale).astype(np.int64)
    return micros, valid
