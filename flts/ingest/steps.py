"""Bring the rows of a file to one step: name a change of step, and average finer rows if ``STEP`` asks for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from flts.errors import RejectedError
from flts.forecasting.grid import FixedGrid, Grid, IntArray, step_text
from flts.forecasting.observed_grid import most_common
from flts.forecasting.series import FloatArray, iso
from flts.forecasting.step_setting import grid_of
from flts.ingest.table import RawTable

LEAST_SAME = 0.9
"""Share of the differences of a stretch that are its step."""
END_SHARE = 0.1
"""Share of the rows at each end that show the steps before and after a change."""
LEAST_ROWS = 10


@dataclass(frozen=True, slots=True)
class StepChange:
    """A file whose rows are at one step up to a row, and at another from it on."""

    row: int
    """Index of the last row of the first stretch, which is the first row of the second."""
    before: int
    """Seconds."""
    after: int


def one_step(table: RawTable, step: str, zone: str | None = None, *, name: str) -> RawTable:
    """Return a table whose rows are at one step.

    Parameters
    ----------
    table : RawTable
    step : str
        ``STEP``. Rows finer than it are averaged; if the step of the file changes to or from it, the rows of the other
        stretch are left out unless they are finer.
    zone : str, optional
        IANA name of the time zone of the data set.
    name : str
        Value of ``field`` in errors about the rows: ``train`` or ``test``.

    Raises
    ------
    RejectedError
        ``change_of_step`` if the step changes and ``STEP`` is not set; ``bad_setting`` with field ``STEP``.
    """
    if table.rows < 2:  # noqa: PLR2004 - a step needs two rows, and `lay_out` refuses fewer
        return table
    change = change_of_step(table.times)
    if not step:
        if change is None or grid_of(table.times, "", zone).is_calendar:
            return table
        finer, coarser = sorted((change.before, change.after))
        msg = (
            f"{name}: the rows are {step_text(change.before)} apart up to {iso(table.times[change.row])} and "
            f"{step_text(change.after)} apart from then on: set STEP={step_text(coarser)} to average the finer rows, "
            f"or STEP={step_text(finer)} to use the finer rows alone"
        )
        raise RejectedError(msg, code="change_of_step", field="STEP")
    grid = grid_of(table.times, step, zone)
    if change is not None and isinstance(grid, FixedGrid):
        if grid.seconds == change.before < change.after:
            table = table.rows_between(0, change.row + 1)
        elif grid.seconds == change.after < change.before:
            table = table.rows_between(change.row, table.rows)
    return averaged(table, grid)


def change_of_step(times: IntArray) -> StepChange | None:
    """Return the place where the step of rows, (n,), changes for good, or None."""
    if len(times) < LEAST_ROWS:
        return None
    steps = np.diff(times)
    ends = max(3, int(len(steps) * END_SHARE))
    before, after = most_common(steps[:ends]), most_common(steps[-ends:])
    if before == after:
        return None
    # For each row: how many differences are right if the step changes there.
    right = np.concatenate([[0], np.cumsum(steps == before)]) + np.concatenate(
        [np.cumsum((steps == after)[::-1])[::-1], [0]]
    )
    row = int(np.argmax(right))
    stretches = ((steps[:row], before), (steps[row:], after))
    whole = all(len(part) and (part == step).mean() >= LEAST_SAME for part, step in stretches)
    return StepChange(row, before, after) if whole else None


def averaged(table: RawTable, grid: Grid) -> RawTable:
    """Return a table with one row per position of the grid: the mean of its rows, missing cells left out.

    A table without two rows at one position is returned as it is.
    """
    if not grid.breaks(table.times).any():
        return table
    positions, remainders = grid.split(table.times)
    starts = np.flatnonzero(np.concatenate([[True], np.diff(positions) != 0]))
    if len(starts) == table.rows:
        return table
    inside = remainders < grid.step_seconds if grid.is_calendar else np.ones(table.rows, dtype=bool)
    values = np.where(inside[:, None], table.values, np.nan)
    means = _means(values, starts)
    kept = np.logical_or.reduceat(inside, starts)
    return replace(table, times=grid.at(positions[starts])[kept], values=means[kept])


def _means(values: FloatArray, starts: IntArray) -> FloatArray:
    known = np.isfinite(values)
    sums = np.add.reduceat(np.where(known, values, 0.0), starts, axis=0)
    counts = np.add.reduceat(known.astype(np.int64), starts, axis=0)
    means: FloatArray = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return means
