"""Requests without enough rows: forecasts from the stored rows."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flts.errors import RejectedError
from flts.forecasting.file_form import FileForm
from flts.forecasting.grid import FixedGrid, Grid, MonthGrid, WeekGrid
from flts.times import TimeFormat
from inference_container.domain.history import ISO_STYLE, History
from inference_container.domain.request import Needs, Rows, decode_request, read_rows

NAN = float("nan")
MINUTES = FixedGrid(60)
NEEDS = Needs(
    columns=("down", "up"),
    ignored=frozenset({"note"}),
    reads_values=True,
    constants=(),
    rows_required=3,
    grid=MINUTES,
    max_gap_steps=2,
    form=None,
    max_horizon_steps=100,
    bundle_limits_horizon=False,
)
HISTORY = History(np.array([0, 60, 120, 180]), np.array([[1.0, 5], [2, 6], [NAN, 7], [4, 8]]), ISO_STYLE)


def read(data: dict[str, Any] | None = None, *, needs: Needs = NEEDS, history: History | str = HISTORY) -> Rows:
    body = {} if data is None else {"data": data}
    return read_rows(decode_request(json.dumps(body).encode()), needs, max_rows=50, history=history)


def columns(times: list[Any], down: list[float | None]) -> dict[str, Any]:
    return {"time": times, "down": down, "up": [0.0] * len(times)}


@pytest.mark.parametrize("data", [None, {}, {"time": [], "down": [], "up": []}, {"time": []}])
def test_without_rows_the_stored_rows_are_the_request(data: dict[str, Any] | None) -> None:
    rows = read(data)

    assert (rows.times, rows.values) == (HISTORY.times, HISTORY.values)
    assert rows.history_until == 180
    assert rows.style.write(np.array([240])) == ["1970-01-01T00:04:00Z"]


@pytest.mark.parametrize(
    ("times", "down", "merged_times", "merged"),
    [
        ([240], [9], [0, 60, 120, 180, 240], [1, 2, NAN, 4, 9]),
        ([180, 240], [None, 9], [0, 60, 120, 180, 240], [1, 2, NAN, NAN, 9]),
        ([120], [3], [0, 60, 120, 180], [1, 2, 3, 4]),
        ([0, 180], [7, 9], [0, 60, 120, 180], [7, 2, NAN, 9]),
        ([-60, 0], [8, 7], [0, 60, 120, 180], [7, 2, NAN, 4]),
        ([360], [9], [0, 60, 120, 180, 240, 300, 360], [1, 2, NAN, 4, NAN, NAN, 9]),
        ([240, 360], [8, 9], [0, 60, 120, 180, 240, 300, 360], [1, 2, NAN, 4, 8, NAN, 9]),
        ([243], [9], [0, 60, 120, 180, 240], [1, 2, NAN, 4, 9]),
    ],
    ids=["next", "null replaces", "override", "scattered", "older", "gap", "gap inside", "small shift"],
)
def test_a_few_rows_continue_and_override_the_stored_rows_by_time(
    times: list[int], down: list[float | None], merged_times: list[int], merged: list[float]
) -> None:
    rows = read(columns(times, down))

    returned = len(rows.times)
    assert returned >= NEEDS.rows_required
    assert rows.times.tolist() == merged_times[-returned:]
    np.testing.assert_array_equal(rows.values[:, 0], merged[-returned:])
    assert rows.history_until == 180
    assert rows.style.write(np.array([60])) == [60], "the answer has the form of the request"
    np.testing.assert_array_equal(HISTORY.values[:, 0], [1, 2, NAN, 4])


cell = st.one_of(st.none(), st.integers(0, 9))


@given(st.data())
def test_the_last_rows_are_filled_as_with_all_stored_rows(data: st.DataObject) -> None:
    stored = np.array(
        data.draw(st.lists(st.tuples(cell, cell), min_size=4, max_size=12), label="stored"), dtype=np.float64
    )
    history = History(60 * np.arange(len(stored)), stored, ISO_STYLE)
    places = sorted(data.draw(st.sets(st.integers(0, len(stored) + 1), min_size=1, max_size=2), label="places"))
    sent = np.array(data.draw(st.lists(st.tuples(cell, cell), min_size=len(places), max_size=len(places))), dtype=float)

    times, values = history.continued(60 * np.array(places), sent, MINUTES, rows=3, max_gap_steps=2, time_column="time")

    every = np.union1d(history.times, 60 * np.array(places))
    merged = np.full((len(every), 2), NAN)
    merged[: len(stored)] = stored
    merged[np.searchsorted(every, 60 * np.array(places))] = sent
    assert times.tolist() == every[-len(times) :].tolist()
    np.testing.assert_array_equal(carried(values)[-3:], carried(merged)[-3:])


def test_stored_rows_without_a_column_are_continued_too() -> None:
    history = History(60 * np.arange(5), np.empty((5, 0)), ISO_STYLE)

    times, values = history.continued(
        np.array([60, 300]), np.empty((2, 0)), MINUTES, rows=1, max_gap_steps=2, time_column="time"
    )

    assert times[-2:].tolist() == [240, 300]
    assert values.shape == (len(times), 0)


def carried(values: np.ndarray) -> np.ndarray:
    """Return each column with its last earlier value in the place of a missing one."""
    rows = np.maximum.accumulate(np.where(np.isnan(values), -1, np.arange(len(values))[:, None]), axis=0)
    return np.where(rows < 0, NAN, np.take_along_axis(values, np.maximum(rows, 0), axis=0))


@pytest.mark.parametrize(
    ("times", "code", "words"),
    [
        (
            [420],
            "gap_to_history",
            "row of 1970-01-01T00:04:00Z is missing: the stored rows end at 1970-01-01T00:03",
        ),
        ([120, 420], "gap_to_history", "1970-01-01T00:04:00Z"),
        ([240, 480], "gap_in_rows", "after 1970-01-01T00:04:00Z comes 1970-01-01T00:08:00Z"),
        ([-120, -60], "too_few_rows", "needs 3 rows, the request has 2"),
        ([270], "off_grid", "row 1 .1970-01-01T00:04:30Z. does not continue"),
        ([240, 180], "unordered_times", "row 2"),
        ([240, 240], "duplicate_times", "row 2"),
    ],
)
def test_rows_that_do_not_continue_the_stored_rows_are_refused(times: list[int], code: str, words: str) -> None:
    with pytest.raises(RejectedError, match=words) as refused:
        read(columns(times, [1.0] * len(times)))

    assert refused.value.code == code


def test_enough_rows_do_not_touch_the_stored_rows() -> None:
    data = columns([600, 660, 720], [1, None, 3])

    alone, beside = read(data, history="none"), read(data)

    assert beside.history_until is None
    assert beside.times.tolist() == alone.times.tolist() == [600, 660, 720]
    np.testing.assert_array_equal(beside.values, alone.values)


def test_without_stored_rows_a_request_without_data_names_the_reason() -> None:
    with pytest.raises(RejectedError, match=r"at least 3 rows.*HISTORY_ENABLE is false") as refused:
        read(history="HISTORY_ENABLE is false")
    assert (refused.value.code, refused.value.field) == ("no_history", "data")

    with pytest.raises(RejectedError, match="the request has 1") as refused:
        read(columns([240], [9]), history="HISTORY_ENABLE is false")
    assert refused.value.code == "too_few_rows"


def test_a_column_without_times_is_refused_as_without_stored_rows() -> None:
    clock = replace(NEEDS, reads_values=False, rows_required=1)

    for history in (HISTORY, "none"):
        with pytest.raises(RejectedError) as refused:
            read({"time": [], "note": [1]}, needs=clock, history=history)
        assert refused.value.code == "too_few_rows"


def hours(first: str, count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.datetime64(first, "s").astype(np.int64) + 3600 * np.arange(count)


BERLIN = FileForm("Datum", TimeFormat("DD.MM.YYYY HH:mm", "Europe/Berlin"), decimal=",")
MONTHS = MonthGrid(1, day=31)
DAYS = WeekGrid(86_400, (((0, 0),),) * 5 + ((), ()))
MONTH_ENDS = np.array(["2024-01-31", "2024-02-29", "2024-03-31"], "datetime64[s]").astype(np.int64)
DAY_TIMES = np.array(["2024-02-28", "2024-02-29", "2024-03-01"], "datetime64[s]").astype(np.int64)


@pytest.mark.parametrize(
    ("grid", "form", "stored", "sent", "until"),
    [
        # On 31 March 2024 the clock of Berlin went from 01:59 to 03:00: 00:00 UTC is 01:00, 01:00 UTC is 03:00.
        (FixedGrid(3600, "Europe/Berlin"), BERLIN, hours("2024-03-30T22", 3), "31.03.2024 03:00", "31.03.2024 01:00"),
        # On 27 October 2024 the hour from 02:00 came twice.
        (FixedGrid(3600, "Europe/Berlin"), BERLIN, hours("2024-10-26T23", 3), "27.10.2024 03:00", "27.10.2024 02:00"),
        (MONTHS, None, MONTH_ENDS, "2024-04-30", "2024-03-31T00:00:00Z"),
        (DAYS, None, DAY_TIMES, "2024-03-04", "2024-03-01T00:00:00Z"),
    ],
    ids=["summer time begins", "summer time ends", "months", "business days"],
)
def test_the_next_row_of_a_calendar_continues_the_stored_rows(
    grid: Grid, form: FileForm | None, stored: Any, sent: str, until: str
) -> None:
    needs = replace(NEEDS, grid=grid, form=form, max_gap_steps=0)
    style = ISO_STYLE if form is None else form.time_format
    history = History(stored, np.ones((3, 2)), style)
    time_column = "time" if form is None else form.time_column

    rows = read({time_column: [sent], "down": [9], "up": [9]}, needs=needs, history=history)

    assert rows.times.tolist() == [*stored.tolist(), int(grid.after(stored[-1:], 1)[0, 0])]
    assert rows.values[:, 0].tolist() == [1, 1, 1, 9]
    assert history.until_text == until


def test_a_gap_is_named_in_the_form_of_the_files() -> None:
    needs = replace(NEEDS, grid=FixedGrid(3600, "Europe/Berlin"), form=BERLIN, max_gap_steps=0)
    history = History(hours("2024-03-30T22", 3), np.ones((3, 2)), BERLIN.time_format)

    with pytest.raises(RejectedError, match=r"row of 31\.03\.2024 03:00 is missing.* end at 31\.03\.2024 01:00"):
        read({"Datum": ["31.03.2024 04:00"], "down": [9], "up": [9]}, needs=needs, history=history)


def test_a_row_on_a_closed_day_is_refused() -> None:
    history = History(DAY_TIMES, np.ones((3, 2)), ISO_STYLE)

    with pytest.raises(RejectedError, match="1 business day") as refused:
        read(columns(["2024-03-02"], [1]), needs=replace(NEEDS, grid=DAYS), history=history)

    assert refused.value.code == "off_grid"
