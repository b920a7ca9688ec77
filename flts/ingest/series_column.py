"""Spread a long table, in which a column names the series of a row, into one column per series."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from flts.errors import RejectedError
from flts.forecasting.series import FloatArray, IntArray
from flts.ingest.arrow import texts
from flts.ingest.rows import Duplicates, in_order

MOST_SERIES = 200
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

    def feed(self, cells: pa.Array[Any]) -> None:
        """Add the cells of the next block."""
        if len(self._codes) > MOST_TEXTS:
            return
        found, codes = texts(cells)
        numbers = np.array([self._codes.setdefault(text.strip(), len(self._codes)) for text in found], np.int64)
        self._parts.append(numbers[codes])

    def spread(
        self, times: IntArray, columns: tuple[str, ...], values: FloatArray, duplicates: Duplicates
    ) -> tuple[IntArray, tuple[str, ...], FloatArray, list[str]]:
        """Return the table with a row per time and a column per series and number, and notes.

        Raises
        ------
        RejectedError
            ``too_many_series`` above `MOST_SERIES`.
        """
        if len(self._codes) > MOST_SERIES:
            msg = f"column {self.column} has more than {MOST_SERIES} series"
            raise RejectedError(msg, code="too_many_series", field=self.column)
        codes = np.concatenate(self._parts)
        moments = np.unique(times)
        wide = np.full((len(moments), len(self._codes) * len(columns)), np.nan)
        names: list[str] = []
        notes = [f"{len(self._codes)} series in column {self.column} become columns (SERIES_COLUMN)"]
        for at, series in enumerate(self._codes):
            mine = codes == at
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
