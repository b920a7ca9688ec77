"""Find cells that cannot be measurements: one a thousand times all others, or a code for a missing value such as -999.

The limits come from training rows only. Cells outside of them count as missing in training and test rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from flts.forecasting.by_column import column_of, finite
from flts.forecasting.series import BoolArray, FloatArray, iso
from flts.ingest.table import RawTable

TIMES_ALL_OTHERS = 1_000
"""A cell is implausible if it is farther from the median than this many times the farthest of the other cells."""
MOST_CELLS, MOST_SHARE = 3, 0.001
"""Cells, or share of the cells, of a column that may be that far away; more of them are a part of the data."""
CODES = (-99.0, -999.0, -9999.0, -99999.0, 999.0, 9999.0, 99999.0, 999999.0, -32768.0, 32767.0)
"""Values that loggers write for a missing cell."""
CODE_REACH = 3
"""A code counts as missing if it is farther from the median than this many times the farthest other cell."""
LEAST_CELLS = 20
"""Cells of a column; fewer do not show what is plausible."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The plausible cells of a column."""

    lower: float
    upper: float
    codes: tuple[float, ...]

    def outside(self, cells: FloatArray) -> BoolArray:
        """Return which cells, (n,), are implausible; a missing cell is not."""
        far: BoolArray = (cells < self.lower) | (cells > self.upper)
        if far.sum() > _most(len(cells)):
            far[:] = False
        return far | np.isin(cells, self.codes) if self.codes else far


@dataclass(frozen=True, slots=True)
class Implausible:
    """The implausible cells of a column in one part of the data."""

    column: str
    count: int
    value: float
    """The first of them."""
    at: str
    """Its time."""


def limits_of(values: FloatArray) -> list[Limits | None]:
    """Return the limits of each column of training rows, (n, k); None where the rows do not show any."""
    return [_limits(column_of(values, at)) for at in range(values.shape[1])]


def without_implausible(table: RawTable, limits: list[Limits | None]) -> tuple[RawTable, list[Implausible]]:
    """Return a table with its implausible cells missing, and what they were."""
    found = []
    values = table.values
    for at, (column, limit) in enumerate(zip(table.columns, limits, strict=True)):
        if limit is None:
            continue
        outside = limit.outside(column_of(table.values, at))
        if not outside.any():
            continue
        first = int(np.argmax(outside))
        found.append(Implausible(column, int(outside.sum()), float(table.values[first, at]), iso(table.times[first])))
        values = values.copy() if values is table.values else values
        values[outside, at] = np.nan
    return (replace(table, values=values) if found else table), found


def _limits(cells: FloatArray) -> Limits | None:
    known = finite(cells)
    if len(known) < LEAST_CELLS:
        return None
    lowest, highest = known.min(), known.max()
    codes = tuple(code for code in CODES if lowest <= code <= highest and _is_code(known, code))
    if codes:
        known = known[~np.isin(known, codes)]
    middle, reach = _reach(known)
    if reach == 0:
        return None
    return Limits(middle - TIMES_ALL_OTHERS * reach, middle + TIMES_ALL_OTHERS * reach, codes)


def _reach(cells: FloatArray) -> tuple[float, float]:
    """Return the middle of cells, and how far from it the farthest is, apart from those a thousand times as far."""
    mean, deviation = float(cells.mean()), float(cells.std())
    farthest = float(max(cells.max() - mean, mean - cells.min()))
    if farthest < deviation * np.sqrt(len(cells) / _most(len(cells))) / 2:
        # A few cells a thousand times as far as all others would have nearly all of the variance.
        return mean, farthest
    middle = float(np.median(cells))
    far = np.abs(cells - middle)
    apart = 1 + _most(len(far))
    usual = float(np.partition(far, -apart)[-apart])
    return middle, float(far[far <= TIMES_ALL_OTHERS * usual].max())


def _most(cells: int) -> int:
    return max(MOST_CELLS, int(cells * MOST_SHARE))


def _is_code(known: FloatArray, code: float) -> bool:
    is_code = known == code
    if is_code.sum() < 2:  # noqa: PLR2004 - a code is repeated
        return False
    others = known[~is_code & ~np.isin(known, CODES)]
    if len(others) < LEAST_CELLS:
        return False
    middle, reach = _reach(others)
    return reach > 0 and abs(code - middle) > CODE_REACH * reach
