"""Cut rows into windows and the target rows after them. No window crosses a gap of the series."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from flts.errors import SeriesTooShortError
from flts.forecasting.fitted import FittedRecipe
from flts.forecasting.recipe import Features
from flts.forecasting.series import FloatArray, IntArray
from flts.forecasting.splits import Tails

Float32Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Windows and their targets. Neighbouring windows may share memory, so callers must not write into them.

    Parameters
    ----------
    inputs : (n, L, f)
        Rows before the first target row, oldest first.
    targets : (n, H, m)
        Scaled varying targets.
    target_rows : (n,)
        Index of each window's first target row.
    """

    inputs: Float32Array
    targets: Float32Array
    target_rows: IntArray

    def __len__(self) -> int:
        return len(self.target_rows)


@dataclass(frozen=True, slots=True, eq=False)
class TrainingWindows:
    """Windows of the training rows: to fit on, to stop early by, and to calibrate with."""

    fit: Windows
    stop: Windows
    calibrate: Windows


def sliding_windows(
    features: FloatArray,
    targets: FloatArray,
    *,
    segments: list[slice],
    window_steps: int,
    horizon_steps: int,
    first_target_row: int = 0,
    last_target_row: int | None = None,
) -> Windows:
    """Cut rows into overlapping (input, target) pairs.

    Parameters
    ----------
    features : (n, f)
    targets : (n, m)
    segments : list of slices
        Evenly spaced rows; a window and its targets are inside one segment.
    window_steps, horizon_steps : int
        L rows of input, then H rows of targets.
    first_target_row, last_target_row : int
        All target rows of a window are in [first, last); its input rows may be earlier.
    """
    last = len(features) if last_target_row is None else last_target_row
    rows = target_rows(
        segments, context_rows=window_steps, horizon_steps=horizon_steps, first_row=first_target_row, last_row=last
    )
    return Windows(
        _cut(features, rows - window_steps, window_steps),
        _cut(targets, rows, horizon_steps),
        rows,
    )


def target_rows(
    segments: list[slice], *, context_rows: int, horizon_steps: int = 1, first_row: int = 0, last_row: int
) -> IntArray:
    """Return the rows in [first_row, last_row) at which a forecast can begin.

    A returned row has ``context_rows`` rows before it and ``horizon_steps`` rows from itself on, all in its segment and
    before ``last_row``.
    """
    ranges = [
        np.arange(
            max(segment.start + context_rows, first_row),
            min(segment.stop, last_row) - horizon_steps + 1,
            dtype=np.int64,
        )
        for segment in segments
    ]
    return np.concatenate(ranges) if ranges else np.empty(0, dtype=np.int64)


def training_windows(
    features: Features, recipe: FittedRecipe, tails: Tails, *, input_seq_len: int, output_seq_len: int
) -> TrainingWindows:
    """Cut the training rows into windows to fit on, to stop early by and to calibrate with.

    Parameters
    ----------
    features : Features
        Features of the training rows.
    tails : Tails
        Split of the ``len(features)`` rows.

    Raises
    ------
    SeriesTooShortError
        If there is no window to fit on, or no window to stop by.
    """
    between, segments = _cutter(features, recipe, input_seq_len, output_seq_len), features.segments()
    windows = TrainingWindows(
        fit=between(0, tails.fit_stop),
        stop=between(tails.fit_stop, tails.stop_stop),
        calibrate=between(tails.stop_stop, tails.n_rows),
    )
    if not len(windows.fit) or not len(windows.stop):
        msg = (
            f"{len(features)} rows in {len(segments)} unbroken pieces hold {len(windows.fit)} windows of "
            f"{input_seq_len} + {output_seq_len} rows to fit on and {len(windows.stop)} to stop by; both need one"
        )
        raise SeriesTooShortError(msg, field="INPUT_SEQ_LEN")
    return windows


def all_windows(features: Features, recipe: FittedRecipe, *, input_seq_len: int, output_seq_len: int) -> Windows:
    """Cut all rows into windows to fit on."""
    return _cutter(features, recipe, input_seq_len, output_seq_len)(0, len(features))


def _cutter(
    features: Features, recipe: FittedRecipe, input_seq_len: int, output_seq_len: int
) -> Callable[[int, int], Windows]:
    """Return a function that cuts the windows whose target rows are in [first, last)."""
    values = features.values.astype(np.float32)
    targets = values[:, recipe.varying_columns]
    segments = features.segments()

    def between(first: int, last: int) -> Windows:
        return sliding_windows(
            values,  # type: ignore[arg-type]  # float32: converted once above, not in each of three calls
            targets,  # type: ignore[arg-type]  # float32, as `values`
            segments=segments,
            window_steps=input_seq_len,
            horizon_steps=output_seq_len,
            first_target_row=first,
            last_target_row=last,
        )

    return between


def _cut(rows: FloatArray | Float32Array, starts: IntArray, length: int) -> Float32Array:
    """Return ``rows[start : start + length]`` for each start; a view if the starts are consecutive."""
    if len(starts) == 0:
        return np.empty((0, length, rows.shape[1]), dtype=np.float32)
    source = np.ascontiguousarray(rows, dtype=np.float32)
    # Writeable, because torch warns about arrays that are read-only.
    every = sliding_window_view(source, length, axis=0, writeable=True).swapaxes(1, 2)
    if starts[-1] - starts[0] == len(starts) - 1:
        return every[starts[0] : starts[-1] + 1]
    return every[starts]
