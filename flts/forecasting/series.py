"""A series: numeric columns over the times of a grid, and its construction from an upload."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from flts.errors import RejectedError
from flts.forecasting.grid import Grid
from flts.forecasting.observed_grid import find_grid, snapped

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

GAPS_NAMED = 20
"""Gaps; a report lists this many, the longest first, and counts all of them."""
INSERTED_PER_ROW = 10
"""Inserted rows per given row; if more were needed, the times have no common step."""


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Numeric columns over time.

    Parameters
    ----------
    times : (n,)
        Epoch seconds, UTC, strictly increasing; neighbours inside a segment are one step of the grid apart.
    columns : tuple of k names
        In the file's order; the time column is not among them.
    values : (n, k)
        Raw units; NaN is a missing cell.
    grid : Grid
    """

    times: IntArray
    columns: tuple[str, ...]
    values: FloatArray
    grid: Grid

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.times), len(self.columns)):
            msg = f"{len(self.times)} times and {len(self.columns)} columns, but values of shape {self.values.shape}"
            raise RejectedError(msg, code="bad_shape")

    def __len__(self) -> int:
        return len(self.times)

    def select(self, names: tuple[str, ...]) -> Series:
        """Return the series with these columns, in this order.

        Raises
        ------
        RejectedError
            ``missing_column``; ``field`` is the column.
        """
        positions = [self._position(name) for name in names]
        return Series(self.times, tuple(names), self.values[:, positions], self.grid)

    def rows(self, start: int, stop: int | None = None) -> Series:
        """Return the rows from ``start`` up to, not including, ``stop``; both as in a slice."""
        return Series(self.times[start:stop], self.columns, self.values[start:stop], self.grid)

    def segments(self) -> list[slice]:
        """Return the longest sequences of rows that are exactly one step apart."""
        return segments_of(self.times, self.grid)

    def concat(self, later: Series) -> Series:
        """Return this series followed by a later series, whose columns are matched by name.

        Raises
        ------
        RejectedError
            If the steps differ, a column is missing or the later series does not begin after the end of this series.
        """
        if later.grid != self.grid:
            msg = f"the steps differ: {self.grid.text} and {later.grid.text}"
            raise RejectedError(msg, code="different_steps")
        if len(self) and len(later) and later.times[0] <= self.times[-1]:
            msg = f"the later rows begin at {iso(later.times[0])}, before the earlier ones end at {iso(self.times[-1])}"
            raise RejectedError(msg, code="overlapping_times")
        return Series(
            np.concatenate([self.times, later.times]),
            self.columns,
            np.concatenate([self.values, later.select(self.columns).values]),
            self.grid,
        )

    def _position(self, name: str) -> int:
        try:
            return self.columns.index(name)
        except ValueError:
            msg = f"there is no column {name}; there are {', '.join(self.columns)}"
            raise RejectedError(msg, code="missing_column", field=name) from None


@dataclass(frozen=True, slots=True)
class GridReport:
    """The gaps that `regularise` found, and how it treated them."""

    grid: Grid
    rows: int
    """Rows of the result, inserted rows included."""
    inserted_rows: int
    """Missing rows that were inserted with missing cells."""
    filled_gaps: int
    """Gaps that were filled with inserted rows."""
    cut_gaps: int
    """Gaps at which the series is cut: too long to fill, or no multiple of the step."""
    off_grid_gaps: int
    """Cut gaps whose length is no multiple of the step."""
    segments: int
    off_calendar_rows: int = 0
    """Rows that were left out because the calendar does not contain their times."""
    moved_rows: int = 0
    """Rows that were less than a tenth of a step from a time of the grid and were moved to it."""
    largest_shift_seconds: int = 0
    gaps: list[dict[str, str | float]] = field(default_factory=list)
    """The longest gaps, at most `GAPS_NAMED`: ``after`` (last time before it), ``steps``, ``action`` (filled, cut)."""


def iso(seconds: float) -> str:
    """Return a time as ISO 8601 in UTC."""
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")


def segments_of(times: IntArray, grid: Grid) -> list[slice]:
    """Return the longest sequences of times that are exactly one step apart."""
    if len(times) == 0:
        return []
    cuts = (np.flatnonzero(grid.breaks(times)) + 1).tolist()
    return [slice(start, stop) for start, stop in zip([0, *cuts], [*cuts, len(times)], strict=True)]


def segment_starts(times: IntArray, grid: Grid) -> IntArray:
    """Return for each row the row at which its segment begins, (n,)."""
    rows = np.arange(len(times))
    is_start = np.ones(len(times), dtype=bool)
    is_start[1:] = grid.breaks(times)
    starts: IntArray = np.maximum.accumulate(np.where(is_start, rows, 0))
    return starts


def paths_from(rows: IntArray, steps: int, values: FloatArray, starts: IntArray) -> FloatArray:
    """Return the values (b, steps, m) at rows and after them; NaN in another segment and after the last row.

    Parameters
    ----------
    rows : (b,)
        First row of each path.
    steps : int
    values : (n, m)
    starts : (n,)
        See `segment_starts`.
    """
    ahead = rows[:, None] + np.arange(steps)
    within = np.minimum(ahead, len(values) - 1)
    reached = (ahead < len(values)) & (starts[within] == starts[rows][:, None])
    return np.where(reached[..., None], values[within], np.nan)


def check_order(times: IntArray, *, time_column: str = "time") -> None:
    """Refuse times that do not strictly increase.

    Raises
    ------
    RejectedError
        ``unordered_times`` or ``duplicate_times``; ``field`` is the time column, and the message names the row.
    """
    steps = np.diff(times)
    if len(steps) == 0 or steps.min() > 0:
        return
    row = int(np.argmax(steps <= 0)) + 1
    duplicate = steps[row - 1] == 0
    what = "repeats" if duplicate else "is earlier than"
    msg = f"{time_column}: row {row + 1} ({iso(times[row])}) {what} the row before it; times must increase"
    raise RejectedError(msg, code="duplicate_times" if duplicate else "unordered_times", field=time_column)


def check_grid(times: IntArray, grid: Grid, *, time_column: str = "time") -> None:
    """Refuse times that are not exactly one step apart, as the rows of a forecast request must be.

    Raises
    ------
    RejectedError
        ``unordered_times``, ``duplicate_times``, ``off_grid`` for a time that the calendar does not contain, or
        ``gap_in_rows``; ``field`` is the time column.
    """
    check_order(times, time_column=time_column)
    remainders = grid.split(times)[1]
    if grid.is_calendar and remainders.any():
        row = int(np.argmax(remainders != 0))
        msg = f"{time_column}: row {row + 1} ({iso(times[row])}) is at no time of the calendar: {grid.text}"
        raise RejectedError(msg, code="off_grid", field=time_column)
    broken = grid.breaks(times)
    if not broken.any():
        return
    row = int(np.argmax(broken))
    msg = (
        f"{time_column}: rows must be one step ({grid.text}) apart; after {iso(times[row])} comes {iso(times[row + 1])}"
    )
    raise RejectedError(msg, code="gap_in_rows", field=time_column)


def regularise(
    times: IntArray,
    columns: tuple[str, ...],
    values: FloatArray,
    *,
    max_gap_steps: int,
    grid: Grid | None = None,
    phase: int | None = None,
    time_column: str = "time",
) -> tuple[Series, GridReport]:
    """Put rows on a grid: fill short gaps with missing rows, and cut the series at longer gaps.

    Rows that are nearly at a time of the grid are moved to it. Rows at times that a calendar does not contain are left
    out. Both are counted.

    Parameters
    ----------
    times : (n,)
        Epoch seconds.
    columns : tuple of k names
    values : (n, k)
        NaN is a missing cell.
    max_gap_steps : int
        Most missing rows of a gap that is filled. A gap that is no multiple of the step always cuts the series.
    grid : Grid, optional
        By default the one that `find_grid` finds. Test rows are put on the grid of the training rows.
    phase : int, optional
        Remainder of the rows on a fixed grid, by default the most common one.
    time_column : str
        Name of the time column in error messages.

    Raises
    ------
    RejectedError
        ``unordered_times``, ``duplicate_times``, or ``irregular_times`` if more than `INSERTED_PER_ROW` rows per given
        row would be inserted.
    SeriesTooShortError
        If no grid is given and there are fewer than two rows.
    """
    check_order(times, time_column=time_column)
    grid = find_grid(times) if grid is None else grid
    if _is_complete(times, grid, phase):
        return Series(times, columns, values, grid), GridReport(grid, len(times), 0, 0, 0, 0, segments=1)
    given, times = times, snapped(times, grid, phase=phase)
    shifts = np.abs(times - given)
    positions, remainders = grid.split(times)
    left_out = 0
    if grid.is_calendar and remainders.any():
        on_grid = remainders == 0
        left_out = int(len(times) - on_grid.sum())
        times, values, positions, remainders = (part[on_grid] for part in (times, values, positions, remainders))
    steps, phases = np.diff(positions), np.diff(remainders)
    missing = np.where(phases == 0, steps - 1, 0)
    filled = (missing > 0) & (missing <= max_gap_steps)
    cut = (phases != 0) | (missing > max_gap_steps)
    extra = np.where(filled, missing, 0)
    inserted = int(extra.sum())
    if inserted > INSERTED_PER_ROW * len(times):
        msg = (
            f"{time_column}: at a step of {grid.text}, the most common difference, {inserted} rows would be missing "
            f"between {len(times)}; the times have no common step"
        )
        raise RejectedError(msg, code="irregular_times", field=time_column)
    series = Series(*_spread(times, columns, values, extra, grid), grid)
    report = GridReport(
        grid=grid,
        rows=len(series),
        inserted_rows=inserted,
        filled_gaps=int(filled.sum()),
        cut_gaps=int(cut.sum()),
        off_grid_gaps=int((phases != 0).sum()),
        segments=len(series.segments()),
        off_calendar_rows=left_out,
        moved_rows=int((shifts > 0).sum()),
        largest_shift_seconds=int(shifts.max(initial=0)),
        gaps=_name_gaps(times, steps + phases / grid.step_seconds, filled, cut),
    )
    return series, report


def _is_complete(times: IntArray, grid: Grid, phase: int | None) -> bool:
    """Return whether rows are one step apart and on the grid, which needs less memory than `regularise`."""
    if len(times) == 0 or grid.breaks(times).any():
        return False
    first = int(grid.split(times[:1])[1][0])
    return first == 0 if grid.is_calendar else phase in (None, first)


def _spread(
    times: IntArray, columns: tuple[str, ...], values: FloatArray, extra: IntArray, grid: Grid
) -> tuple[IntArray, tuple[str, ...], FloatArray]:
    """Insert ``extra[i]`` missing rows after row i."""
    if not extra.any():
        return times, columns, values
    counts = np.ones(len(times), dtype=np.int64)
    counts[:-1] += extra
    rows = np.cumsum(counts) - counts
    positions, remainders = (np.repeat(part, counts) for part in grid.split(times))
    all_times = grid.at(positions + np.arange(counts.sum()) - np.repeat(rows, counts)) + remainders
    all_values = np.full((len(all_times), len(columns)), np.nan)
    all_values[rows] = values
    return all_times, columns, all_values


def _name_gaps(times: IntArray, steps: FloatArray, filled: BoolArray, cut: BoolArray) -> list[dict[str, str | float]]:
    rows = np.flatnonzero(filled | cut)
    longest = rows[np.argsort(-steps[rows], kind="stable")[:GAPS_NAMED]]
    return [
        {
            "after": iso(times[row]),
            "steps": int(length) if length.is_integer() else round(length, 3),
            "action": "filled" if filled[row] else "cut",
        }
        for row, length in zip(longest.tolist(), steps[longest].tolist(), strict=True)
    ]
