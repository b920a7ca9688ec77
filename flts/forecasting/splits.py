"""The training rows and their tails. A recipe is fitted on a `TrainSplit`, which only `as_train` creates."""

from __future__ import annotations

import math
from dataclasses import dataclass

from flts.errors import RejectedError
from flts.forecasting.series import Series


@dataclass(frozen=True, slots=True)
class TrainSplit:
    """The training rows, without any test row."""

    series: Series


@dataclass(frozen=True, slots=True)
class Tails:
    """Split of the training rows: fit [0, fit_stop), early stopping [fit_stop, stop_stop), then calibration."""

    fit_stop: int
    stop_stop: int
    n_rows: int

    @property
    def calibration_rows(self) -> int:
        """Rows of the calibration tail."""
        return self.n_rows - self.stop_stop

    @property
    def shares(self) -> tuple[float, float]:
        """Shares of the stopping tail and of the calibration tail."""
        return (self.stop_stop - self.fit_stop) / self.n_rows, self.calibration_rows / self.n_rows


def as_train(series: Series) -> TrainSplit:
    """Mark a series as training rows; the caller ensures that it contains no test row."""
    return TrainSplit(series)


def tails(n_rows: int, *, stop_tail: float, calibration_tail: float) -> Tails:
    """Split training rows by shares of all rows; both tails together are rounded up, and the calibration tail too."""
    _check_shares(stop_tail, calibration_tail)
    both = _ceil(n_rows * (stop_tail + calibration_tail))
    return Tails(n_rows - both, n_rows - _ceil(n_rows * calibration_tail), n_rows)


def rows_needed(
    *, input_seq_len: int, output_seq_len: int, warmup_rows: int, stop_tail: float, calibration_tail: float
) -> int:
    """Return the smallest number of rows without a gap from which on training works.

    The fit rows must hold the inputs and targets of one window, and each tail the targets of one window.
    """
    _check_shares(stop_tail, calibration_tail)
    window = input_seq_len + output_seq_len
    rows = window
    # The loop uses floor(share * rows), a lower bound of each tail's length that never falls when `rows` grows. So the
    # conditions also hold for every number of rows above the result.
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
    return math.ceil(round(rows, 9))  # rounded before the ceiling: (0.1 + 0.2) * 10 is a little more than 3


def _floor(rows: float) -> int:
    return math.floor(round(rows, 9))
