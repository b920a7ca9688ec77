"""Arrange training and test rows in time, before any statistic is computed from them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from flts.errors import RejectedError, SeriesTooShortError
from flts.forecasting.observed_grid import find_grid, most_common, snapped
from flts.forecasting.roles import targets_among
from flts.forecasting.series import FloatArray, GridReport, Series, iso, regularise
from flts.forecasting.step_setting import grid_of
from flts.ingest.implausible import Implausible, limits_of, without_implausible
from flts.ingest.steps import one_step
from flts.ingest.table import RawTable
from flts.recipe_settings import RecipeSettings


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Training and test rows on one grid."""

    train: Series
    test: Series
    train_grid: GridReport
    test_grid: GridReport
    joined: bool
    """Whether the test follows the training rows without a cut, so that their end is its context."""
    has_test_file: bool
    implausible: tuple[Implausible, ...]
    """Cells that cannot be measurements and count as missing."""
    future_rows: int
    """Rows at the end of the file without a value of any target; they are no part of the test."""
    rows_of_step: tuple[int, int] | None
    """Rows of the training file, and the rows at ``STEP`` that they became, if these are others."""


def lay_out(train: RawTable, test: RawTable | None, recipe: RecipeSettings) -> Layout:
    """Split by time, or check that the test file fits the training file, and put both on the step of the training rows.

    The rows are split before they are put on a grid, so that no number of the training part depends on later rows, not
    even its step.

    Raises
    ------
    RejectedError
        ``missing_column``, ``unknown_column``, ``step_differs``, ``test_overlaps_train``, ``change_of_step``, or
        ``no_values`` if the test file has no value of any target.
    SeriesTooShortError
        If a part would have no rows, or the training part has too few rows to compute the step.
    """
    has_test_file = test is not None
    if test is not None:
        test = _like(train, test)
    train, test, future_rows = _without_future(train, test, targets_among(recipe, train.columns))
    train, test, implausible = _plausible(train, test, recipe)
    rows = train.rows
    train = one_step(train, recipe.step, recipe.time_zone or None, name="train")
    rows_of_step = None if train.rows == rows else (rows, train.rows)
    if test is not None and recipe.step and test.rows > 1:
        test = one_step(test, recipe.step, recipe.time_zone or None, name="test")
    if test is None:
        if train.rows < 3:  # noqa: PLR2004 - the step needs two training rows, the test part one row
            msg = f"{train.rows} row(s) cannot be split into training and test rows"
            raise SeriesTooShortError(msg, field="train")
        train, test = train.split(recipe.train_test_split)
    if train.rows < 2 or test.rows == 0:  # noqa: PLR2004 - a step needs two rows
        msg = f"{train.rows} training and {test.rows} test row(s): a step needs at least 2 training rows and a test row"
        raise SeriesTooShortError(msg, field="train")
    series, train_grid = regularise(
        train.times,
        train.columns,
        train.values,
        max_gap_steps=recipe.max_gap_steps,
        grid=grid_of(train.times, recipe.step, recipe.time_zone or None),
        time_column=train.time_column,
    )
    _check_on_grid(series, train.rows, 2, "train")
    if has_test_file:
        _check_follows(series, test)
    test_series, test_grid, joined = _grid_after(series, test, recipe.max_gap_steps)
    _check_on_grid(test_series, test.rows, 1, "test")
    return Layout(
        series, test_series, train_grid, test_grid, joined, has_test_file, implausible, future_rows, rows_of_step
    )


def _check_on_grid(series: Series, rows: int, least: int, name: str) -> None:
    """Refuse rows of which too few are at times of the step."""
    if len(series) < least:
        msg = f"{name}: {len(series)} of {rows} rows are at times of the step {series.grid.text} (STEP)"
        raise SeriesTooShortError(msg, field=name)


def _plausible(
    train: RawTable, test: RawTable | None, recipe: RecipeSettings
) -> tuple[RawTable, RawTable | None, tuple[Implausible, ...]]:
    """Return both tables without implausible cells, by limits that the training rows show."""
    training = train if test is not None else train.split(recipe.train_test_split)[0]
    limits = limits_of(training.values)
    train, found = without_implausible(train, limits)
    if test is not None:
        test, more = without_implausible(test, limits)
        found += more
    return train, test, tuple(found)


def _without_future(
    train: RawTable, test: RawTable | None, targets: tuple[str, ...]
) -> tuple[RawTable, RawTable | None, int]:
    """Leave out the rows at the end of the last table without a value of any target: they wait for their forecast."""
    last = train if test is None else test
    kept = last.without_blank_end(targets)
    future = last.rows - kept.rows
    if kept.rows == 0 and test is not None:
        msg = (
            f"the test file has no value of {', '.join(targets or last.columns)}: there is nothing to judge on; upload "
            "the training file alone, and its last rows are the test"
        )
        raise RejectedError(msg, code="no_values", field="test")
    if kept.rows == 0 or future == 0:
        return train, test, 0
    return (kept, None, future) if test is None else (train, kept, future)


def _like(train: RawTable, test: RawTable) -> RawTable:
    """Return the test table with the training table's columns in its order."""
    for column in train.columns:
        if column not in test.columns:
            msg = f"the test file has no column {column}; it must have the training file's columns"
            raise RejectedError(msg, code="missing_column", field=column)
    for column in test.columns:
        if column not in train.columns:
            msg = f"the test file has a column {column} that the training file has not"
            raise RejectedError(msg, code="unknown_column", field=column)
    if test.columns == train.columns:
        return test
    order = [test.columns.index(column) for column in train.columns]
    return replace(test, columns=train.columns, values=test.values[:, order])


def _check_follows(train: Series, test: RawTable) -> None:
    if test.times[0] <= train.times[-1]:
        msg = (
            f"the test file begins at {iso(test.times[0])}, the training file ends at {iso(train.times[-1])}: "
            "the test must lie after the training rows"
        )
        raise RejectedError(msg, code="test_overlaps_train", field="test")
    if test.rows > 1 and _most_common_steps(train, test) != 1:
        step = find_grid(test.times, train.grid.zone).text
        msg = f"the test file's rows are at steps of {step}, the training file's at steps of {train.grid.text}"
        raise RejectedError(msg, code="step_differs", field="test")


def _phase(train: Series) -> int:
    return int(train.grid.split(train.times[-1:])[1][0])


def _most_common_steps(train: Series, test: RawTable) -> int:
    """Return the most common number of grid steps between two test rows, 0 if it is not whole."""
    positions, remainders = train.grid.split(snapped(test.times, train.grid, phase=_phase(train)))
    if train.grid.is_calendar:
        positions, remainders = positions[remainders == 0], remainders[remainders == 0]
    steps = np.where(np.diff(remainders) == 0, np.diff(positions), 0)
    return most_common(steps) if len(steps) else 0


def _grid_after(train: Series, test: RawTable, max_gap_steps: int) -> tuple[Series, GridReport, bool]:
    """Put the test rows on the training rows' grid; a short gap before them is filled with missing test rows."""
    phase = _phase(train)
    ends = np.concatenate([train.times[-1:], snapped(test.times, train.grid, phase=phase)[:1]])
    (last, first), remainders = train.grid.split(ends)
    joined = bool(remainders[0] == remainders[1] and first - last - 1 <= max_gap_steps)
    anchor = train.times[-1:] if joined else train.times[:0]
    times = np.concatenate([anchor, test.times])

    def on_grid(columns: tuple[str, ...], values: FloatArray) -> tuple[Series, GridReport]:
        return regularise(
            times,
            columns,
            values,
            max_gap_steps=max_gap_steps,
            grid=train.grid,
            phase=phase,
            time_column=test.time_column,
        )

    series, grid = on_grid((), np.empty((len(times), 0)))
    if grid.inserted_rows or grid.off_calendar_rows:
        series, grid = on_grid(
            train.columns, np.concatenate([np.full((len(anchor), len(train.columns)), np.nan), test.values])
        )
        return series.rows(len(anchor)), grid, joined
    # The test rows stay as they are, so that their values need no copy.
    return Series(series.times[len(anchor) :], train.columns, test.values, train.grid), grid, joined
