"""The numbers and times of an uploaded file, before any cleaning."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from flts.contracts.columns import TIME_COLUMNS
from flts.forecasting.by_column import CHUNK_ROWS
from flts.forecasting.file_form import FileForm
from flts.forecasting.series import FloatArray, IntArray
from flts.ingest.cell import CellFormat
from flts.ingest.dialect import Dialect
from flts.times import TimeFormat

ISO_SECONDS = TimeFormat("YYYY-MM-DDTHH:mm:ss")


@dataclass(frozen=True, slots=True)
class RawTable:
    """The rows of one uploaded file.

    Parameters
    ----------
    times : (n,)
        Epoch seconds UTC, strictly increasing.
    columns
        Numeric columns in the file's order; neither the time nor ignored columns are among them.
    values : (n, k)
        Raw units; NaN where a cell was missing.
    time_column
        Name of the time column, as written.
    ignored
        Columns that ``IGNORE_COLUMNS`` or the reader left out.
    time_format
        The form in which the file writes its times.
    notes
        What the reader assumed, changed or left out, one fact a line, with the setting that decides otherwise.
    understood
        The time column, the first rows and the number of missing cells, as read.
    dialect
        How the file is written, or None if the rows do not come from a file.
    was_in_order
        Whether the rows of the file were in the order of time.
    """

    times: IntArray
    columns: tuple[str, ...]
    values: FloatArray
    time_column: str
    ignored: tuple[str, ...] = ()
    time_format: TimeFormat = ISO_SECONDS
    notes: tuple[str, ...] = ()
    understood: tuple[str, ...] = ()
    dialect: Dialect | None = None
    was_in_order: bool = True

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.times)

    @property
    def form(self) -> FileForm | None:
        """How the file is written, or None if every request may be written so."""
        cells = CellFormat() if self.dialect is None else self.dialect.cells
        thousands = "" if cells.thousands == "none" else cells.thousands
        form = FileForm(self.time_column, self.time_format, cells.decimal, thousands, cells.missing)
        return None if form.is_plain and self.time_column.lower() in TIME_COLUMNS else form

    def split(self, train_share: float) -> tuple[RawTable, RawTable]:
        """Split the rows in time, before any other step: the first ``train_share`` of them, and the later rows."""
        cut = math.floor(round(self.rows * train_share, 9))  # 0.29 * 100 is a little less than 29 in floating point
        return self.rows_between(0, cut), self.rows_between(cut, self.rows)

    def last(self, rows: int) -> RawTable:
        """Return the last rows in time."""
        return self.rows_between(max(0, self.rows - rows), self.rows)

    def without_blank_end(self, columns: tuple[str, ...] = ()) -> RawTable:
        """Return the rows up to the last one with a value in one of the columns, by default in any."""
        at = [self.columns.index(name) for name in columns if name in self.columns] or slice(None)
        for stop in range(self.rows, 0, -CHUNK_ROWS):
            start = max(0, stop - CHUNK_ROWS)
            known = np.flatnonzero(np.isfinite(self.values[start:stop, at]).any(axis=1))
            if len(known):
                return self.rows_between(0, start + int(known[-1]) + 1)
        return self.rows_between(0, 0)

    def rows_between(self, start: int, stop: int) -> RawTable:
        """Return the rows from ``start`` up to, not including, ``stop``."""
        return replace(self, times=self.times[start:stop], values=self.values[start:stop])
