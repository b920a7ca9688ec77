"""Put rows in the order of time, each time once."""

from __future__ import annotations

from typing import Literal

import numpy as np

from flts.errors import RejectedError
from flts.forecasting.by_column import rows_at
from flts.forecasting.series import FloatArray, IntArray
from flts.ingest.time_reader import ReadTimes
from flts.times import to_seconds

MICROSECONDS = 1_000_000
"""Microseconds of a second."""
CHUNK_ROWS = 1 << 20
"""Times that are looked at together, so that intermediate arrays stay small."""
Duplicates = Literal["mean", "last", "first", "refuse"]


def in_order(
    times: IntArray, values: FloatArray, *, duplicates: Duplicates, column: str
) -> tuple[IntArray, FloatArray, list[str]]:
    """Return times in increasing order with their rows, and notes.

    Equal rows are kept once. Rows with the same time and different values become one row: the mean of the values that
    are not missing, the last row or the first row of the file.

    Raises
    ------
    RejectedError
        ``duplicate_times`` with ``duplicates="refuse"``.
    """
    if (times[1:] > times[:-1]).all():
        return times, values, []
    notes = []
    if (times[1:] < times[:-1]).any():
        is_reversed = (times[1:] <= times[:-1]).all()
        how = "the newest row is the first" if is_reversed else "they are not in the order of time"
        notes.append(f"the rows are sorted by {column}: {how}")
        if (times[1:] < times[:-1]).all():
            return times[::-1].copy(), values[::-1], notes
        order = np.argsort(times, kind="stable")
        times, values = times[order], rows_at(values, order)
    starts = np.flatnonzero(np.diff(times, prepend=times[0] - 1))
    if len(starts) < len(times):
        times, values, said = _once(times, values, starts, duplicates, column)
        notes += said
    return times, values, notes


def whole_seconds(found: ReadTimes, column: str) -> tuple[IntArray, tuple[str, ...]]:
    """Return epoch seconds, and notes.

    Raises
    ------
    RejectedError
        ``finer_than_seconds`` if two different times become the same second.
    """
    chunks = range(0, len(found.times), CHUNK_ROWS)
    rounded = sum(np.count_nonzero(found.times[at : at + CHUNK_ROWS] % MICROSECONDS) for at in chunks)
    if not rounded:
        return np.floor_divide(found.times, MICROSECONDS, out=found.times), found.notes
    seconds = to_seconds(found.times)
    closer = np.flatnonzero((seconds[1:] == seconds[:-1]) & (found.times[1:] != found.times[:-1]))
    if len(closer):
        row = int(closer[0]) + 2
        msg = (
            f"row {row}, column {column}: less than a second after the row before; rows must be a second apart or more"
        )
        raise RejectedError(msg, code="finer_than_seconds", field=column)
    note = f"column {column}: {rounded:,} times with fractions of a second are rounded to whole seconds"
    return seconds, (*found.notes, note)


def _once(
    times: IntArray, values: FloatArray, starts: IntArray, duplicates: Duplicates, column: str
) -> tuple[IntArray, FloatArray, list[str]]:
    counts = np.diff(starts, append=len(times))
    firsts = np.repeat(values[starts], counts, axis=0)
    same = ((values == firsts) | (np.isnan(values) & np.isnan(firsts))).all(axis=1)
    differs = np.logical_or.reduceat(~same, starts)
    repeated = counts > 1
    notes = []
    equal = int((counts[repeated & ~differs] - 1).sum())
    if equal:
        notes.append(f"{equal:,} rows repeat an earlier row exactly and are left out")
    if differs.any():
        moment = np.datetime64(int(times[starts[differs][0]]), "s")
        rows = int(counts[differs].sum())
        text = f"{rows:,} rows share {int(differs.sum()):,} times with other values; the first is {moment}Z in {column}"
        if duplicates == "refuse":
            msg = f"{text} (DUPLICATES=refuse; mean, last and first read them)"
            raise RejectedError(msg, code="duplicate_times", field=column)
        notes.append(f"{text}; DUPLICATES={duplicates}")
    if duplicates == "last":
        kept = values[starts + counts - 1]
    else:
        kept = values[starts]
        if duplicates == "mean":
            kept[differs] = _means(values, starts, counts)[differs]
    return times[starts], kept, notes


def _means(values: FloatArray, starts: IntArray, counts: IntArray) -> FloatArray:
    present = np.add.reduceat(~np.isnan(values), starts, axis=0, dtype=np.int64)
    with np.errstate(invalid="ignore", over="ignore"):
        means: FloatArray = np.add.reduceat(np.nan_to_num(values) / counts.repeat(counts)[:, None], starts, axis=0)
        return np.where(present > 0, means * (counts[:, None] / np.maximum(present, 1)), np.nan)
