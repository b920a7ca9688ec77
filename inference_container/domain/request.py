"""Decode and validate a request. A refusal names the field and the number that is needed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, NoReturn

import msgspec
import numpy as np
from numpy.typing import NDArray

from flts.contracts.columns import TIME_COLUMNS
from flts.errors import RejectedError
from flts.forecasting.file_form import FileForm
from flts.forecasting.grid import Grid
from flts.forecasting.series import check_grid, regularise
from inference_container.domain.cells import PLACE, read_numbers, read_times
from inference_container.domain.history import History
from inference_container.domain.times import WritesTimes

SHOWN_NAMES = 20
SHOWN_DIGITS = 20
EMPTY_LENGTH = 64  # bytes; a longer column is taken as one with rows, so that long columns are not copied

Name = Annotated[str, msgspec.Meta(max_length=256)]


class PredictRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /predict``; only the columns that the champion needs are decoded later."""

    data: dict[str, msgspec.Raw] = {}
    """Rows, column by column; without rows the champion forecasts from the stored rows."""
    identifier: Name | None = None
    config_hash: Name | None = None
    inference_length: int = 1
    index_col: Name | None = None
    future: dict[str, msgspec.Raw] = {}
    """Values of the columns that are known ahead at the steps of the forecast, column by column."""
    quantiles: tuple[float, ...] = ()
    """Probabilities of the quantiles that every prediction is to have."""


@dataclass(frozen=True, slots=True)
class Needs:
    """A champion's requirements on a request, computed once when it is loaded."""

    columns: tuple[str, ...]
    """The recipe's columns, in its order."""
    ignored: frozenset[str]
    """Raw columns that are accepted and not read."""
    reads_values: bool
    """False for models whose only input is the times."""
    constants: tuple[str, ...]
    """Targets with one value in all training rows, in the order of ``columns``; they are read by every model."""
    rows_required: int
    grid: Grid
    max_gap_steps: int
    """Most missing rows of a gap that is filled."""
    form: FileForm | None
    """How the files of the data set are written; requests may be written so too."""
    max_horizon_steps: int
    """Longest horizon: the bundle's, or the server's limit."""
    bundle_limits_horizon: bool
    """Whether ``max_horizon_steps`` is the limit of a bundle that cannot be rolled further."""
    unforecast: tuple[str, ...] = ()
    """Inputs of such a bundle that it does not forecast."""
    future_columns: tuple[str, ...] = ()
    """Columns whose values at the steps of the forecast are needed."""

    @property
    def value_columns(self) -> tuple[str, ...]:
        """Columns whose values are read, in the order of `Rows.values`."""
        return self.columns if self.reads_values else self.constants


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a request, checked: ordered, on the champion's grid, and as many as the champion needs."""

    times: NDArray[np.int64]
    """(n,) epoch seconds."""
    values: NDArray[np.float64]
    """(n, k) raw units in the order of `Needs.value_columns`, NaN = null."""
    style: WritesTimes
    history_until: int | None = None
    """Time of the last stored row, epoch seconds; None if all rows are the request's."""


_REQUEST = msgspec.json.Decoder(PredictRequest)


def decode_request(body: bytes) -> PredictRequest:
    """Read a request's body.

    Raises
    ------
    RejectedError
        ``bad_json`` if it is empty or not JSON, ``bad_request`` naming a field that is missing, unknown or of the
        wrong type.
    """
    if not body.strip():
        _refuse("bad_json", "the body is empty; send JSON with `identifier`, and rows as `data`: {column: [values]}")
    try:
        return _REQUEST.decode(body)
    except msgspec.ValidationError as error:
        field, reason = _place(error)
        _refuse("bad_request", f"{field or 'the body'}: {reason}", field)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _refuse("bad_json", f"the body is not JSON: {error}; numbers that are not known are null, not NaN")


def check_horizon(request: PredictRequest, needs: Needs) -> None:
    """Refuse a horizon that the champion or the server does not answer.

    Raises
    ------
    RejectedError
        ``bad_horizon``, naming the longest horizon.
    """
    longest = needs.max_horizon_steps
    if 1 <= request.inference_length <= longest:
        return
    why = ""
    if needs.bundle_limits_horizon:
        names = ", ".join(needs.unforecast[:SHOWN_NAMES])
        why = f": this model does not forecast its inputs {names}, so a longer forecast needs a run with that HORIZON"
    given = str(request.inference_length)
    shown = given if len(given) <= SHOWN_DIGITS else f"{given[:SHOWN_DIGITS]}..."
    message = f"inference_length must be 1 to {longest}{why}; got {shown}"
    _refuse("bad_horizon", message, "inference_length")


def read_rows(request: PredictRequest, needs: Needs, *, max_rows: int, history: History | str = "") -> Rows:
    """Read and check a request's rows for one champion; if they are too few, they continue the stored rows.

    Parameters
    ----------
    request : PredictRequest
    needs : Needs
    max_rows : int
        Most rows of the request.
    history : History or str
        The stored rows of the data set, or the reason why there are none.

    Raises
    ------
    RejectedError
        Naming the column and the number needed: ``no_time_column``, ``two_time_columns``, ``unknown_column``,
        ``missing_column``, ``bad_time``, ``bad_number``, ``bad_column``, ``unequal_columns``, ``too_many_rows``,
        ``too_few_rows``, ``unordered_times``, ``duplicate_times``, ``gap_in_rows``. Of stored rows also ``no_history``,
        ``gap_to_history`` and ``off_grid``.
    """
    data = request.data
    if all(map(_is_empty, data.values())):
        if isinstance(history, History):
            return Rows(history.times, history.values, history.style, history.until)
        if not data:
            why = f" ({history})" if history else ""
            message = f"data: send at least {needs.rows_required} rows, because there are no stored rows{why}"
            _refuse("no_history", message, "data")
    times, values, style, time_column = _read_columns(request, needs, max_rows)
    history_until = None
    if len(times) < needs.rows_required:
        history_until, times, values = _continued(times, values, needs, history, time_column)
    if needs.grid.is_calendar or needs.grid.breaks(times).any():
        times, values = _on_grid(times, values, needs, time_column)
        if history_until is None and len(times) > max_rows:
            _refuse("too_many_rows", f"data: with the missing rows, {len(times)} are more than {max_rows}", "data")
    return Rows(times, values, style, history_until)


def _is_empty(column: msgspec.Raw) -> bool:
    """Return whether a column is an empty JSON list."""
    return len(column) <= EMPTY_LENGTH and b"".join(bytes(column).split()) == b"[]"


def _continued(
    times: NDArray[np.int64], values: NDArray[np.float64], needs: Needs, history: History | str, time_column: str
) -> tuple[int, NDArray[np.int64], NDArray[np.float64]]:
    """Return the time of the last stored row, and the stored rows with those of a request that has too few."""
    if not isinstance(history, History) or len(times) == 0 or times[-1] < history.times[0]:
        message = f"data: the model needs {needs.rows_required} rows, the request has {len(times)}"
        _refuse("too_few_rows", message, "data")
    merged = history.continued(
        times,
        values,
        needs.grid,
        rows=needs.rows_required,
        max_gap_steps=needs.max_gap_steps,
        time_column=time_column,
    )
    return history.until, *merged


def _read_columns(
    request: PredictRequest, needs: Needs, max_rows: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], WritesTimes, str]:
    """Return the times (n,), the values (n, k), the form of the times and the name of their column."""
    data = request.data
    time_column = _time_column(request, needs.form)
    known = set(needs.columns)
    for name in data:
        if name not in known and name != time_column and name not in needs.ignored:
            shown = ", ".join(needs.columns[:SHOWN_NAMES]) + (", ..." if len(needs.columns) > SHOWN_NAMES else "")
            _refuse("unknown_column", f"{name}: the model does not know this column; it knows {shown}", name)
    if time_column in known and request.index_col is not None:
        _refuse("bad_request", f"{time_column}: is a measured column, not the time", "index_col")
    times, style = read_times(data[time_column], time_column, needs.form)
    count = len(times)
    if count > max_rows:
        _refuse("too_many_rows", f"data: {count} rows are more than the {max_rows} that a request may have", "data")
    return times, _read_values(data, needs, time_column, count), style, time_column


def _on_grid(
    times: NDArray[np.int64], values: NDArray[np.float64], needs: Needs, time_column: str
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the rows on the champion's grid: as at upload, short gaps are filled and small shifts removed."""
    try:
        check_grid(times, needs.grid, time_column=time_column)
    except RejectedError as error:
        if error.code not in ("gap_in_rows", "off_grid"):
            raise
        series, report = regularise(
            times,
            needs.value_columns,
            values,
            max_gap_steps=needs.max_gap_steps,
            grid=needs.grid,
            time_column=time_column,
        )
        # Rows of which most are missing are at another step.
        if report.cut_gaps or report.off_calendar_rows or report.inserted_rows > len(times) // 2:
            raise
        return series.times, series.values
    return times, values


def _time_column(request: PredictRequest, form: FileForm | None) -> str:
    data = request.data
    if request.index_col is not None:
        if request.index_col not in data:
            message = f"index_col names {request.index_col}, which data does not have"
            _refuse("no_time_column", message, "index_col")
        return request.index_col
    if form is not None and form.time_column in data:
        return form.time_column
    found = [name for name in TIME_COLUMNS if name in data]
    if len(found) == 1:
        return found[0]
    if found:
        code, message = "two_time_columns", f"data has several time columns ({', '.join(found)}); name one in index_col"
    else:
        code = "no_time_column"
        message = f"data has no time column; call it {', '.join(TIME_COLUMNS)}, or name it in index_col"
    raise RejectedError(message, code=code, field="index_col")


def _read_values(data: dict[str, msgspec.Raw], needs: Needs, time_column: str, count: int) -> NDArray[np.float64]:
    columns: list[list[float | None]] = []
    for name in needs.columns:
        raw = data.get(name)
        if raw is None or name == time_column:
            if needs.reads_values:
                _refuse("missing_column", f"{name}: the model needs this column", name)
            if name in needs.constants:
                columns.append([None] * count)
            continue
        column = read_numbers(raw, name, needs.form)
        if len(column) != count:
            message = f"{name}: has {len(column)} values, {time_column} has {count}"
            _refuse("unequal_columns", message, name)
        if needs.reads_values or name in needs.constants:
            columns.append(column)
    if not columns:
        return np.empty((count, 0))
    # One np.array call takes a quarter of the time of filling an array column by column. None becomes NaN.
    return np.array(columns, dtype=np.float64).T


def _place(error: msgspec.ValidationError) -> tuple[str | None, str]:
    """Return the field and the reason of msgspec's message."""
    text = str(error)
    match = PLACE.search(text)
    reason = PLACE.sub("", text).replace("`", "")
    if match is None:
        # The field's name ends msgspec's messages "missing required field data" and "contains unknown field x".
        unknown = re.search(r"field (\S+)$", reason)
        return (unknown.group(1), reason) if unknown else (None, reason)
    return match.group(1).removeprefix("$.").removeprefix("$") or None, reason


def _refuse(code: str, message: str, field: str | None = None) -> NoReturn:
    raise RejectedError(message, code=code, field=field)
