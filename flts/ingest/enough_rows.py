"""Check whether a data set has enough rows for windows, horizon and tails, and compute how many it needs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from flts.errors import SeriesTooShortError
from flts.forecasting.grid import Grid
from flts.forecasting.horizon import Horizon, find_horizon
from flts.forecasting.recipe import FittedRecipe, kept_rows
from flts.forecasting.series import Series, segments_of
from flts.forecasting.splits import rows_needed, tails
from flts.settings import WindowSettings

LEAST_PIECE = 2
"""Rows in one piece from which the last value can be forecast and compared with the next row."""


@dataclass(frozen=True, slots=True)
class UsableRows:
    """The rows that remain after a recipe was applied."""

    train_rows: int
    """Training rows before the recipe was applied."""
    train_pieces: tuple[int, ...]
    """Lengths of the segments, each without its warm-up rows."""
    test_rows: int
    test_pieces: tuple[int, ...]
    warmup_rows: int
    joined: bool
    """Whether the test follows the training rows without a cut, so that their end is its context."""


def check_enough_rows(rows: UsableRows, windows: WindowSettings, *, split_share: float | None) -> int:
    """Return the number of training rows that a model needs without a gap, or refuse rows that are not enough.

    Where `INPUT_SEQ_LEN` and `OUTPUT_SEQ_LEN` are automatic, fewer rows are accepted if the last value can be forecast
    from them and compared with a test row.

    Parameters
    ----------
    split_share
        Share of training rows in the upload; None if the test has its own file or training rows are sampled.

    Raises
    ------
    SeriesTooShortError
        ``too_few_rows``; ``field`` is ``train`` or ``test``, the message names the number needed.
    """
    try:
        _check_windows(rows, windows, split_share)
    except SeriesTooShortError:
        if not _has_last_value(rows, windows):
            raise
    return _rows_needed(rows, windows)


def few_rows_note(rows: UsableRows, windows: WindowSettings, *, split_share: float | None) -> str | None:
    """Return why no model can be trained on rows that `check_enough_rows` accepts, or None if one can."""
    try:
        _check_windows(rows, windows, split_share)
    except SeriesTooShortError as error:
        return f"a model needs more rows, so the last value or another baseline is forecast: {error.message}"
    return None


def horizon_of(rows: UsableRows, grid: Grid, windows: WindowSettings) -> Horizon:
    """Return the horizon of a data set.

    `HORIZON` decides, or `OUTPUT_SEQ_LEN` if only that is a number. The horizon is never more than a tenth of the rows,
    nor more than half of the longest piece of test rows, because forecasts are judged at every step.

    Raises
    ------
    RejectedError
        ``bad_setting`` with field ``HORIZON`` (`flts.forecasting.horizon.find_horizon`).
    """
    if windows.horizon in ("", "auto") and windows.output_seq_len is not None:
        return Horizon(windows.output_seq_len, windows.output_seq_len)
    longest = max(rows.test_pieces, default=0)
    return find_horizon(windows.horizon, grid, rows.train_rows + rows.test_rows, test_rows=longest)


def piece_lengths(series: Series, recipe: FittedRecipe, *, warmup_rows: int) -> tuple[int, ...]:
    """Return the lengths of the pieces between gaps and dropped rows, each without its warm-up rows."""
    times = series.times[kept_rows(recipe, series)] if recipe.drops_rows else series.times
    lengths = (piece.stop - piece.start - warmup_rows for piece in segments_of(times, series.grid))
    return tuple(length for length in lengths if length > 0)


def _has_last_value(rows: UsableRows, windows: WindowSettings) -> bool:
    """Return whether a row follows another one in the training rows, and a test row follows a row."""
    automatic = windows.input_seq_len is None and windows.output_seq_len is None
    test_needed = 1 if rows.joined else LEAST_PIECE
    return (
        automatic
        and max(rows.train_pieces, default=0) >= LEAST_PIECE
        and max(rows.test_pieces, default=0) >= test_needed
    )


def _rows_needed(rows: UsableRows, windows: WindowSettings) -> int:
    return rows_needed(
        input_seq_len=windows.window_rows,
        output_seq_len=windows.pass_steps,
        warmup_rows=rows.warmup_rows,
        stop_tail=windows.stop_tail,
        calibration_tail=windows.calibration_tail,
    )


def _check_windows(rows: UsableRows, windows: WindowSettings, split_share: float | None) -> None:
    """Refuse rows without a window to fit on, to stop by, or to judge on."""
    window = windows.window_rows + windows.pass_steps
    needed = _rows_needed(rows, windows)
    usable = sum(rows.train_pieces)
    if usable < needed - rows.warmup_rows:
        lost = rows.train_rows - rows.warmup_rows - usable
        msg = f"{rows.train_rows} training rows{_without(lost)}; training needs at least {needed}"
        if split_share is not None:
            msg += f", so upload at least {math.ceil(needed / split_share)} rows (TRAIN_TEST_SPLIT {split_share:g})"
        raise SeriesTooShortError(msg, field="train")
    empty = _part_without_window(rows.train_pieces, windows)
    if empty is not None:
        msg = (
            f"the training rows lie in {len(rows.train_pieces)} pieces, and their {empty} part holds no window of "
            f"{window + rows.warmup_rows} rows; training needs at least {needed} rows in one piece"
        )
        raise SeriesTooShortError(msg, field="train")
    test_needed = windows.pass_steps if rows.joined else window
    longest = max(rows.test_pieces, default=0)
    if longest < test_needed:
        lost = rows.test_rows - longest
        warmup = 0 if rows.joined else rows.warmup_rows
        msg = f"{rows.test_rows} test rows{_without(lost)}; the test needs at least {test_needed + warmup} in one piece"
        raise SeriesTooShortError(msg, field="test")


def _without(lost: int) -> str:
    return f", of which gaps, missing cells and lags leave {lost} unused" if lost > 0 else ""


def _part_without_window(pieces: tuple[int, ...], windows: WindowSettings) -> str | None:
    """Return the part of the training rows (fit or stopping) that contains the targets of no window, or None."""
    parts = tails(sum(pieces), stop_tail=windows.stop_tail, calibration_tail=windows.calibration_tail)
    for name, first, last in (("fit", 0, parts.fit_stop), ("stopping", parts.fit_stop, parts.stop_stop)):
        start = 0
        for piece in pieces:
            first_target = max(start + windows.window_rows, first)
            if first_target + windows.pass_steps <= min(start + piece, last):
                break
            start += piece
        else:
            return name
    return None
