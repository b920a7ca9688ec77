"""Whether rows suffice for windows, horizon and tails, and how many would."""

from __future__ import annotations

import math

import numpy as np

from flts.errors import SeriesTooShortError
from flts.forecasting.recipe import FittedRecipe
from flts.forecasting.series import Series, segments_of
from flts.forecasting.splits import rows_needed, tails
from flts.settings import WindowSettings


def check_enough_rows(
    train: Series,
    test: Series,
    recipe: FittedRecipe,
    windows: WindowSettings,
    *,
    joined: bool,
    split_share: float | None,
) -> int:
    """Return the training rows needed in one piece.

    Parameters
    ----------
    train, test
        The rows that will be used, sampled and on their grid.
    joined
        The end of ``train`` is the context of ``test``.
    split_share
        Share of the upload's rows that train, where the test was cut off the same file.

    Raises
    ------
    SeriesTooShortError
        ``too_few_rows``; ``field`` is ``train`` or ``test``, the message names the number needed.
    """
    window = windows.input_seq_len + windows.output_seq_len
    needed = rows_needed(
        input_seq_len=windows.input_seq_len,
        output_seq_len=windows.output_seq_len,
        warmup_rows=recipe.warmup_rows,
        stop_tail=windows.stop_tail,
        calibration_tail=windows.calibration_tail,
    )
    pieces = usable_pieces(train, recipe)
    usable = sum(pieces)
    if usable < needed:
        msg = f"{_count(usable, len(train))} training rows; training needs at least {needed}"
        if split_share is not None:
            msg += f", so upload at least {math.ceil(needed / split_share)} rows (TRAIN_TEST_SPLIT {split_share:g})"
        raise SeriesTooShortError(msg, field="train")
    empty = _parts_without_window(pieces, recipe.warmup_rows, windows)
    if empty:
        msg = (
            f"gaps cut the training rows into {len(pieces)} pieces, and the {empty} part holds no window of "
            f"{window + recipe.warmup_rows} rows; training needs at least {needed} rows in one piece"
        )
        raise SeriesTooShortError(msg, field="train")
    test_needed = windows.output_seq_len if joined else window + recipe.warmup_rows
    longest = max(usable_pieces(test, recipe), default=0)
    if longest < test_needed:
        msg = f"{_count(longest, len(test))} test rows in one piece; the test needs at least {test_needed}"
        raise SeriesTooShortError(msg, field="test")
    return needed


def usable_pieces(series: Series, recipe: FittedRecipe) -> list[int]:
    """Return the lengths of the pieces that windows can lie in: cut at gaps and, where they are dropped, at rows."""
    times = series.times
    if recipe.nans_drop_rows or not recipe.handle_nans:
        kept = series.select(recipe.columns).values
        times = times[~np.isnan(kept).any(axis=1)]
    return [piece.stop - piece.start for piece in segments_of(times, series.step_seconds)]


def _count(usable: int, rows: int) -> str:
    return str(rows) if usable == rows else f"{usable} usable of {rows}"


def _parts_without_window(pieces: list[int], warmup_rows: int, windows: WindowSettings) -> str | None:
    """Return which part of the training rows has no window whose targets lie in it, or None."""
    pieces = [max(piece - warmup_rows, 0) for piece in pieces]
    parts = tails(sum(pieces), stop_tail=windows.stop_tail, calibration_tail=windows.calibration_tail)
    bounds = (("fit", 0, parts.fit_stop), ("stopping", parts.fit_stop, parts.stop_stop))
    for name, first, last in bounds:
        start = 0
        for piece in pieces:
            first_target = max(start + windows.input_seq_len, first)
            if first_target + windows.output_seq_len <= min(start + piece, last):
                break
            start += piece
        else:
            return name
    return None
