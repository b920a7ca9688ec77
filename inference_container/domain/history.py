"""The history: the last stored rows of a champion's data set, from which a request without enough rows is forecast."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from flts.errors import RejectedError
from flts.forecasting.grid import Grid
from flts.forecasting.observed_grid import snapped
from flts.forecasting.series import check_order, iso
from inference_container.domain.times import TimeStyle, WritesTimes

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

ISO_STYLE = TimeStyle("iso", suffix="Z")


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """The last stored rows of a data set, one step of its grid apart, at least as many as its champion needs."""

    times: IntArray
    """(n,) epoch seconds."""
    values: FloatArray
    """(n, k) raw units in the order of `Needs.value_columns`, NaN = missing."""
    style: WritesTimes
    """The form of times in the files of the data set, or ISO 8601."""
    filled_from: IntArray = field(init=False)
    """(n,) the latest row from which on each column has a value up to this row; 0 if a column has none."""

    def __post_init__(self) -> None:
        rows = np.arange(len(self.times))[:, None]
        last_known = np.maximum.accumulate(np.where(np.isnan(self.values), 0, rows), axis=0)
        filled_from = np.minimum(last_known.min(axis=1, initial=len(rows)), rows[:, 0])  # the row without a column
        object.__setattr__(self, "filled_from", filled_from)

    @property
    def until(self) -> int:
        """Time of the last row, epoch seconds."""
        return int(self.times[-1])

    @property
    def until_text(self) -> str | int | float:
        """Time of the last row in the form of the files."""
        return self.style.write(self.times[-1:])[0]

    def continued(
        self, times: IntArray, values: FloatArray, grid: Grid, *, rows: int, max_gap_steps: int, time_column: str
    ) -> tuple[IntArray, FloatArray]:
        """Return the last stored rows with the rows of a request, by time: (n,) and (n, k).

        A row at the time of a stored row replaces its values, also by missing ones. Rows after the stored ones follow
        them, and rows before the first stored one are left out. Stored rows are returned from the one on that the
        ``rows`` last ones, and the filling of their missing cells, depend on.

        Parameters
        ----------
        times : (r,)
            Epoch seconds; times less than a tenth of a step from a time of the stored rows are moved to it.
        values : (r, k)
        grid : Grid
        rows : int
            Number of last rows that are needed.
        max_gap_steps : int
            Most rows that may be missing between the stored rows and those that follow them.
        time_column : str
            Name of the time column in error messages.

        Raises
        ------
        RejectedError
            ``unordered_times``, ``duplicate_times``, ``off_grid`` for a time at which the grid of the stored rows has
            no row, ``gap_to_history``.
        """
        check_order(times, time_column=time_column)
        last_position, phase = grid.split(self.times[-1:])
        times = snapped(times, grid, phase=None if grid.is_calendar else int(phase[0]))
        positions, remainders = grid.split(times)
        if (remainders != phase).any():
            row = int(np.argmax(remainders != phase))
            msg = (
                f"{time_column}: row {row + 1} ({iso(times[row])}) does not continue the stored rows, which are one "
                f"step ({grid.text}) apart and end at {self.until_text}"
            )
            raise RejectedError(msg, code="off_grid", field=time_column)
        later = int(np.searchsorted(positions, last_position[0], side="right"))
        if later < len(positions) and positions[later] - last_position[0] - 1 > max_gap_steps:
            first = self.style.write(grid.after(self.times[-1:], 1)[0])[0]
            msg = (
                f"{time_column}: the row of {first} is missing: the stored rows end at {self.until_text}, and at most "
                f"{max_gap_steps} missing rows are filled; send the rows from {first} on, or all rows that are needed"
            )
            raise RejectedError(msg, code="gap_to_history", field=time_column)
        places = positions - (last_position - len(self.times) + 1)  # rows of the history, which has no gap
        if places[0] < 0:
            known = places >= 0
            places, times, values = places[known], times[known], values[known]
        count = len(self.times)
        end = max(count, int(places[-1]) + 1)
        # Twice the rows that a gap may lack, since more missing rows than others are another step.
        first = max(min(end - rows, int(places[0]), count - 2 * (end - count)) - 1, 0)
        first = int(self.filled_from[min(first, count - 1)])
        stored = self.values[first:].copy()
        inside = int(np.searchsorted(places, count))
        stored[places[:inside] - first] = values[:inside]
        if inside == len(places):
            return self.times[first:], stored
        return np.concatenate([self.times[first:], times[inside:]]), np.concatenate([stored, values[inside:]])
