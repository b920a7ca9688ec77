"""The training rows and their tails. A recipe is fitted on a `TrainSplit`, which only `as_train` creates."""

from __future__ import annotations

import math
from dataclasses import dataclass

from flts.errors import RejectedError
from flts.forecasting.series import Series


@dataclass(frozen=True, slots=True)
class TrainSplit:
    """The training rows, and nothing after them."""

    series: Series


@dataclass(frozen=True, slots=True)
class Tails:
    """How the training rows are shared out: fit [0, fit_stop), early stopping [fit_stop, stop_stop), calibration."""

    fit_stop: int
    stop_stop: int
    n_rows: int

    @property
    def calibration_rows(self) -> int:
        """Rows of the calibration tail."""
        return self.n_rows - self.stop_stop


def as_train(series: Series) -> TrainSplit:
    """Declare a series the training part: it holds no row of the test."""
    return TrainSplit(series)


def tails(n_rows: int, *, stop_tail: float, calibration_tail: float) -> Tails:
    """Share out training rows; the shares are of all of them, rounded up together, so that no row is lost."""
    _check_shares(stop_tail, calibration_tail)
    both = _ceil(n_rows * (stop_tail + calibration_tail))
    return Tails(n_rows - both, n_rows - _ceil(n_rows * calibration_tail), n_rows)


def rows_needed(
    *, input_seq_len: int, output_seq_len: int, warmup_rows: int, stop_tail: float, calibration_tail: float
) -> int:
    """Return the smallest number of rows in one piece with which training works, as it does with any larger one.

    Each of the three parts holds at least one window: fit rows hold its inputs and targets, the tails its targets.
    """
    _check_shares(stop_tail, calibration_tail)
    window = input_seq_len + output_seq_len
    rows = window
    # Start at floor(share * n), a lower bound of both tails. Each condition stays true for more rows.
    while (
        rows - _ceil(rows * (stop_tail + calibration_tail)) < window
        or min(_floor(rows * stop_tail), _floor(rows * calibration_tail)) < output_seq_len
    ):
        rows += 1
    return rows + warmup_rows


def _check_shares(stop_tail: float, calibration_tail: float) -> None:
    if stop_tail <= 0 or calibration_tail <= 0 or stop_tail + calibration_tail >= 1:
        msg = f"STOP_TAIL {stop_tail:g} and CALIBRATION_TAIL {calibration_tail:g} leave no rows to fit on"
        raise RejectedError(msg, code="bad_setting", field="STOP_TAIL")


def _ceil(rows: float) -> int:
    return math.ceil(round(rows, 9))  # rounded before the ceiling: 0.1 * 30 is a little more than 3 in floating point


def _floor(rows: float) -> int:
    return math.floor(round(rows, 9))
