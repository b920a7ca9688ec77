"""A series: numeric columns over evenly spaced times, and its construction from an upload."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from flts.errors import RejectedError, SeriesTooShortError

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
        Epoch seconds, UTC, strictly increasing; neighbours inside a segment are one step apart.
    columns : tuple of k names
        In the file's order; the time column is not among them.
    values : (n, k)
        Raw units; NaN is a missing cell.
    step_seconds : int
        Seconds between two rows.
    """

    times: IntArray
    columns: tuple[str, ...]
    values: FloatArray
    step_seconds: int

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
        return Series(self.times, tuple(names), self.values[:, positions], self.step_seconds)

    def rows(self, start: int, stop: int | None = None) -> Series:
        """Return the rows from ``start`` up to, not including, ``stop``; both as in a slice."""
        return Series(self.times[start:stop], self.columns, self.values[start:stop], self.step_seconds)

    def segments(self) -> list[slice]:
        """Return the longest sequences of rows that are exactly one step apart."""
        return segments_of(self.times, self.step_seconds)

    def concat(self, later: Series) -> Series:
        """Return this series followed by a later series, whose columns are matched by name.

        Raises
        ------
        RejectedError
            If the steps differ, a column is missing or the later series does not begin after the end of this series.
        """
        if later.step_seconds != self.step_seconds:
            msg = f"the steps differ: {self.step_seconds} s and {later.step_seconds} s"
            raise RejectedError(msg, code="different_steps")
        if len(self) and len(later) and later.times[0] <= self.times[-1]:
            msg = f"the later rows begin at {iso(later.times[0])}, before the earlier ones end at {iso(self.times[-1])}"
            raise RejectedError(msg, code="overlapping_times")
        return Series(
            np.concatenate([self.times, later.times]),
            self.columns,
            np.concatenate([self.values, later.select(self.columns).values]),
            self.step_seconds,
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

    step_seconds: int
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
    gaps: list[dict[str, str | float]] = field(default_factory=list)
    """The longest gaps, at most `GAPS_NAMED`: ``after`` (last time before it), ``steps``, ``action`` (filled, cut)."""

    def as_dict(self) -> dict[str, object]:
        """Return the report as plain JSON values."""
        return asdict(self)


def iso(seconds: float) -> str:
    """Return a time as ISO 8601 in UTC."""
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")


def segments_of(times: IntArray, step_seconds: int) -> list[slice]:
    """Return the longest sequences of times that are exactly one step apart."""
    if len(times) == 0:
        return []
    cuts = (np.flatnonzero(np.diff(times) != step_seconds) + 1).tolist()
    return [slice(start, stop) for start, stop in zip([0, *cuts], [*cuts, len(times)], strict=True)]


def segment_starts(times: IntArray, step_seconds: int) -> IntArray:
    """Return for each row the row at which its segment begins, (n,)."""
    rows = np.arange(len(times))
    is_start = np.ones(len(times), dtype=bool)
    is_start[1:] = np.diff(times) != step_seconds
    starts: IntArray = np.maximum.accumulate(np.where(is_start, rows, 0))
    return starts


def most_common_step(times: IntArray) -> int:
    """Return the most common difference between neighbouring times in seconds; of equally common ones, the smallest.

    Raises
    ------
    SeriesTooShortError
        With fewer than two rows.
    """
    if len(times) < 2:  # noqa: PLR2004 - a difference needs two times
        msg = f"a step needs at least 2 rows; there are {len(times)}"
        raise SeriesTooShortError(msg)
    steps, counts = np.unique(np.diff(times), return_counts=True)
    return int(steps[np.argmax(counts)])


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


def check_grid(times: IntArray, step_seconds: int, *, time_column: str = "time") -> None:
    """Refuse times that are not exactly one step apart, as the rows of a forecast request must be.

    Raises
    ------
    RejectedError
        ``unordered_times``, ``duplicate_times`` or ``gap_in_rows``; ``field`` is the time column.
    """
    steps = np.diff(times)
    if (steps == step_seconds).all():
        return
    check_order(times, time_column=time_column)
    row = int(np.argmax(steps != step_seconds))
    msg = f"{time_column}: rows must be {step_seconds} s apart; after {iso(times[row])} come {steps[row]} s"
    raise RejectedError(msg, code="gap_in_rows", field=time_column)


def regularise(
    times: IntArray,
    columns: tuple[str, ...],
    values: FloatArray,
    *,
    max_gap_steps: int,
    step_seconds: int | None = None,
    time_column: str = "time",
) -> tuple[Series, GridReport]:
    """Put rows on a grid: fill short gaps with missing rows, and cut the series at longer gaps.

    Parameters
    ----------
    times : (n,)
        Epoch seconds.
    columns : tuple of k names
    values : (n, k)
        NaN is a missing cell.
    max_gap_steps : int
        Most missing rows of a gap that is filled. A gap that is no multiple of the step always cuts the series.
    step_seconds : int, optional
        The grid's step, by default the most common difference. Test rows are put on the step of the training rows.
    time_column : str
        Name of the time column in error messages.

    Raises
    ------
    RejectedError
        ``unordered_times``, ``duplicate_times``, or ``irregular_times`` if more than `INSERTED_PER_ROW` rows per given
        row would be inserted.
    SeriesTooShortError
        If no step is given and there are fewer than two rows.
    """
    check_order(times, time_column=time_column)
    step = most_common_step(times) if step_seconds is None else step_seconds
    steps, remainders = np.divmod(np.diff(times), step)
    missing = np.where(remainders == 0, steps - 1, 0)
    filled = (missing > 0) & (missing <= max_gap_steps)
    cut = (remainders != 0) | (missing > max_gap_steps)
    extra = np.where(filled, missing, 0)
    inserted = int(extra.sum())
    if inserted > INSERTED_PER_ROW * len(times):
        msg = (
            f"{time_column}: at a step of {step} s, the most common difference, {inserted} rows would be missing "
            f"between {len(times)}; the times have no common step"
        )
        raise RejectedError(msg, code="irregular_times", field=time_column)
    series = Series(*_spread(times, columns, values, extra, step), step)
    report = GridReport(
        step_seconds=step,
        rows=len(series),
        inserted_rows=inserted,
        filled_gaps=int(filled.sum()),
        cut_gaps=int(cut.sum()),
        off_grid_gaps=int((remainders != 0).sum()),
        segments=len(series.segments()),
        gaps=_name_gaps(times, step, filled, cut),
    )
    return series, report


def _spread(
    times: IntArray, columns: tuple[str, ...], values: FloatArray, extra: IntArray, step: int
) -> tuple[IntArray, tuple[str, ...], FloatArray]:
    """Insert ``extra[i]`` missing rows after row i."""
    if not extra.any():
        return times, columns, values
    counts = np.ones(len(times), dtype=np.int64)
    counts[:-1] += extra
    positions = np.cumsum(counts) - counts
    all_times = np.repeat(times, counts) + step * (np.arange(counts.sum()) - np.repeat(positions, counts))
    all_values = np.full((len(all_times), len(columns)), np.nan)
    all_values[positions] = values
    return all_times, columns, all_values


def _name_gaps(times: IntArray, step: int, filled: BoolArray, cut: BoolArray) -> list[dict[str, str | float]]:
    rows = np.flatnonzero(filled | cut)
    lengths = np.diff(times)[rows]
    longest = np.argsort(-lengths, kind="stable")[:GAPS_NAMED]
    gaps: list[dict[str, str | float]] = []
    for row, length in zip(rows[longest].tolist(), lengths[longest].tolist(), strict=True):
        steps = length // step if length % step == 0 else round(length / step, 3)
        gaps.append({"after": iso(times[row]), "steps": steps, "action": "filled" if filled[row] else "cut"})
    return gaps
