"""Spread a long table, in which a column names the series of a row, into one column per series."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from flts.errors import RejectedError
from flts.forecasting.series import FloatArray, IntArray
from flts.ingest.arrow import texts
from flts.ingest.cells import Wrong
from flts.ingest.rows import Duplicates, in_order

MOST_SERIES = 1_000
MOST_BROKEN = 0.5  # share of the series; with more of them the problem is the file's, and the file is refused
ON_GRID, OFF_GRID = 0.9, 0.1  # shares of a series' times at which other series have rows
LEAST_SHARING = 0.05  # share of the series that have rows at a time which is on the grid
MOST_TEXTS = 10_000  # different texts of a column; with more of them it names no series


class SeriesColumn:
    """The cells of the column that names, or may name, the series of a row.

    Parameters
    ----------
    column : str
        Its name.
    is_given : bool
        Whether the setting or the name of the column says that it names series.
    """

    def __init__(self, column: str, *, is_given: bool) -> None:
        self.column = column
        self.is_given = is_given
        self._codes: dict[str, int] = {}
        self._parts: list[IntArray] = []
        self._problems: dict[int, RejectedError] = {}

    def feed(self, cells: pa.Array[Any], wrong: Iterable[Wrong] = ()) -> None:
        """Add the cells of the next block, and its rows with a problem."""
        if len(self._codes) > MOST_TEXTS:
            return
        found, codes = texts(cells)
        numbers = np.array([self._codes.setdefault(text.strip(), len(self._codes)) for text in found], np.int64)
        self._parts.append(numbers[codes])
        for cell in wrong:
            rows = np.flatnonzero(cell.rows)
            series, first = np.unique(self._parts[-1][rows], return_index=True)
            for code, row in zip(series.tolist(), rows[first].tolist(), strict=True):
                if code not in self._problems:
                    self._problems[code] = cell.problem(row)

    def spread(
        self, times: IntArray, columns: tuple[str, ...], values: FloatArray, duplicates: Duplicates
    ) -> tuple[IntArray, tuple[str, ...], FloatArray, list[str]]:
        """Return the table with a row per time and a column per series and number, and notes.

        A series with a cell that is no number, or with times between those of the others, is left out with a note.

        Raises
        ------
        RejectedError
            ``too_many_series`` above `MOST_SERIES`; the first problem of a series if more than half have one.
        """
        if len(self._codes) > MOST_SERIES:
            msg = f"column {self.column} has more than {MOST_SERIES:,} series"
            raise RejectedError(msg, code="too_many_series", field=self.column)
        codes = np.concatenate(self._parts)
        problems = self._problems | _off_grid(times, codes, len(self._codes), self.column)
        if len(problems) > MOST_BROKEN * len(self._codes):
            raise next(iter(problems.values()))
        whole = {series: code for series, code in self._codes.items() if code not in problems}
        kept = np.isin(codes, list(whole.values())) if problems else np.ones(len(codes), dtype=np.bool_)
        moments = np.unique(times[kept])
        wide = np.full((len(moments), len(whole) * len(columns)), np.nan)
        names: list[str] = []
        notes = [f"{len(whole)} series in column {self.column} become columns (SERIES_COLUMN)"]
        notes += [
            f"series {series} is left out: {problems[code].message}"
            for series, code in self._codes.items()
            if code in problems
        ]
        # Rows of one series are next to each other in this order, and keep their own order.
        by_series = np.argsort(codes, kind="stable")
        bounds = np.searchsorted(codes[by_series], np.arange(len(self._codes) + 1))
        for at, (series, code) in enumerate(whole.items()):
            mine = by_series[bounds[code] : bounds[code + 1]]
            own_times, own_values, said = in_order(
                times[mine], values[mine], duplicates=duplicates, column=f"{self.column} {series}"
            )
            wide[np.searchsorted(moments, own_times), at * len(columns) : (at + 1) * len(columns)] = own_values
            names += [series] if len(columns) == 1 else [f"{series} {column}" for column in columns]
            notes += [note for note in said if not note.startswith("the rows are sorted")]
        return moments, tuple(names), wide, notes

    def refuse_series(self, times: IntArray) -> None:
        """Refuse a file whose times repeat because the column has several series.

        Raises
        ------
        RejectedError
            ``several_series``.
        """
        count = len(self._codes)
        if not 1 < count <= MOST_TEXTS or len(np.unique(times)) == len(times):
            return
        pairs = np.stack([np.concatenate(self._parts), times])
        if len(np.unique(pairs, axis=1).T) == len(times):
            msg = (
                f"{count} series in column {self.column}: the same times occur with each of its texts. "
                f"SERIES_COLUMN={self.column} makes a column of each series"
            )
            raise RejectedError(msg, code="several_series", field=self.column)


def _off_grid(times: IntArray, codes: IntArray, count: int, column: str) -> dict[int, RejectedError]:
    """Return the series whose rows are at times between those of the others, if the others share their times."""
    moments, at, sharing = np.unique(times, return_inverse=True, return_counts=True)
    spans = np.array([[np.iinfo(np.int64).max, np.iinfo(np.int64).min]]).repeat(count, axis=0)
    np.minimum.at(spans[:, 0], codes, times)
    np.maximum.at(spans[:, 1], codes, times)
    # A series whose rows are earlier or later than those of the others cannot share times with them.
    begun = np.searchsorted(np.sort(spans[:, 0]), moments, side="right")
    least = max(2.0, LEAST_SHARING * count)
    running = begun - np.searchsorted(np.sort(spans[:, 1]), moments, side="left")
    could, does = (running >= least)[at], (sharing >= least)[at]
    possible = np.bincount(codes[could], minlength=count)
    shared = np.bincount(codes[could & does], minlength=count) / np.maximum(possible, 1)
    if count <= least or np.median(shared) < ON_GRID:
        return {}
    found = np.flatnonzero((shared < OFF_GRID) & (possible > 0.5 * np.bincount(codes, minlength=count)))
    msg = f"its rows in column {column} are at times between those of the other series"
    return {code: RejectedError(msg, code="other_times", field=column) for code in found.tolist()}
