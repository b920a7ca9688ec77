"""Whether numbers and texts are times: how a reader finds the time column of a file without dates or known names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from flts.times.fields import Characters, civil, read_fields
from flts.times.format import in_range
from flts.times.numbers import LIKELY
from flts.times.pattern import fields_in, patterns_of, shape_of

MAX_TIME_CHARACTERS = 60
"""Characters; longer cells are no times."""
COMPACT_SCORE = 0.9
NUMBER_SCORE = 0.5
YEAR_SCORE = 0.4
EXCEL_SCORE = 0.3
YEARS = (1000, 2200)
"""Numbers of four digits that may be years."""
COMPACT_YEARS = (1900, 2100)
"""Years of times that are written as digits only."""
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")
_SPACES = str.maketrans({"\u00a0": " ", "\u202f": " ", "\u2009": " "})


def score_as_time(cells: Sequence[str]) -> float:
    """Return the share of the cells that are times; empty cells do not count, and a plain number counts less than one.

    A compact date such as 20240131 counts 0.9, epoch seconds, milliseconds or microseconds 0.5, a year 0.4, and
    a number in the range of Excel's day numbers 0.3.
    """
    scores = [_score(cell) for cell in _filled(cells)]
    return sum(scores) / len(scores) if scores else 0.0


def _filled(cells: Sequence[str]) -> list[str]:
    return [cell for cell in (cell.translate(_SPACES).strip() for cell in cells) if cell]


@lru_cache(maxsize=4096)
def _score(cell: str) -> float:
    if _is_any_date(cell):
        return COMPACT_SCORE if _NUMBER.fullmatch(cell) else 1.0
    if not _NUMBER.fullmatch(cell):
        return 0.0
    number = float(cell)
    if len(cell) == len("YYYY") and cell.isdigit() and YEARS[0] <= number <= YEARS[1]:
        return YEAR_SCORE
    if LIKELY["excel"][0] <= number < LIKELY["excel"][1]:
        return EXCEL_SCORE
    likely = any(LIKELY[unit][0] <= number < LIKELY[unit][1] for unit in ("epoch", "epoch ms", "epoch us"))
    return NUMBER_SCORE if likely else 0.0


def _is_any_date(cell: str) -> bool:
    shape = shape_of(cell)
    if len(cell) > MAX_TIME_CHARACTERS or not shape.isascii():
        return False
    codes = _codes(cell)
    compact = _NUMBER.fullmatch(cell) is not None
    for pattern in patterns_of(shape):
        fields = fields_in(pattern, shape)
        if fields is None:
            continue
        moments = read_fields(codes, fields)
        if not moments.valid[0] or not in_range(moments.micros)[0]:
            continue
        year = int(civil(moments.micros)[0][0])
        if not compact or COMPACT_YEARS[0] <= year <= COMPACT_YEARS[1]:
            return True
    return False


def _codes(cell: str) -> Characters:
    return np.frombuffer(cell.encode("ascii"), np.uint8).reshape(1, len(cell))
