"""Read the values of a request that are known ahead: those of the future columns at the steps of the forecast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from flts.contracts.columns import TIME_COLUMNS
from flts.errors import RejectedError
from flts.forecasting.series import iso
from inference_container.domain.cells import read_numbers, read_times
from inference_container.domain.request import Needs, PredictRequest


def read_future(request: PredictRequest, needs: Needs, last_time: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """Return the values of the champion's future columns, (h, q) in raw units, or None if it needs none.

    The lists begin with the first step. If they have a column of times, values are found by their times instead. Values
    after the last step, and columns that this champion does not need, are ignored, so that a request fits every model
    of a data set.

    Parameters
    ----------
    request : PredictRequest
    needs : Needs
    last_time : (1,)
        Time of the last row before the forecast, epoch seconds.

    Raises
    ------
    RejectedError
        ``unknown_column``, ``bad_time``, ``bad_column``, ``bad_number``; ``missing_future``, whose message names the
        column and the step. ``field`` is ``future.<column>``.
    """
    time_column = _time_column(request, needs)
    known = {*needs.columns, *needs.ignored, time_column}
    for name in request.future:
        if name not in known:
            shown = ", ".join(needs.future_columns) or "none"
            _refuse("unknown_column", f"future.{name} is no column of the data set; needed: {shown}", name)
    if not needs.future_columns:
        return None
    steps = needs.grid.after(last_time, request.inference_length)[0]
    rows = np.arange(len(steps))
    if time_column is not None:
        with _field(time_column):
            times, _ = read_times(request.future[time_column], time_column, needs.form)
        order = np.argsort(times, kind="stable")
        places = np.minimum(np.searchsorted(times[order], steps), len(times) - 1) if len(times) else rows
        rows = np.where(times[order][places] == steps, order[places], -1) if len(times) else np.full(len(steps), -1)
    columns = [_values(request, needs, name, rows, steps) for name in needs.future_columns]
    return np.stack(columns, axis=1)


def _time_column(request: PredictRequest, needs: Needs) -> str | None:
    """Return the column of times among the future columns, or None."""
    names = (request.index_col, None if needs.form is None else needs.form.time_column, *TIME_COLUMNS)
    measured = {*needs.columns, *needs.ignored}
    return next((name for name in names if name is not None and name in request.future and name not in measured), None)


def _values(
    request: PredictRequest, needs: Needs, name: str, rows: NDArray[np.int64], steps: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the values of one column at the times of the steps, (h,).

    ``rows`` are -1 at times that the request does not have.
    """
    raw = request.future.get(name)
    with _field(name):
        given = [] if raw is None else read_numbers(raw, name, needs.form)
    numbers = np.array([*given, None], dtype=np.float64)  # None becomes NaN, which a row of -1 finds
    values: NDArray[np.float64] = numbers[np.where(rows < len(given), rows, -1)]
    missing = np.flatnonzero(np.isnan(values))
    if len(missing):
        step, count = int(missing[0]), len(rows)
        message = f"future.{name}: step {step + 1} of {count} ({iso(steps[step])}) has no value"
        _refuse("missing_future", message, name)
    return values


@contextmanager
def _field(name: str) -> Iterator[None]:
    """Name the column of an error as one of ``future``."""
    try:
        yield
    except RejectedError as error:
        message = f"future.{error.message}" if error.message.startswith(f"{name}:") else error.message
        raise RejectedError(message, code=error.code, field=f"future.{name}") from error


def _refuse(code: str, message: str, name: str) -> NoReturn:
    raise RejectedError(message, code=code, field=f"future.{name}")
