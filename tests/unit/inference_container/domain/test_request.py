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
from flts.forecasting.grid import FixedGrid, WeekGrid
from flts.times import TimeFormat
from inference_container.domain.request import Needs, check_horizon, decode_request, read_rows

NEEDS = Needs(
    columns=("down", "up"),
    ignored=frozenset({"note"}),
    reads_values=True,
    constants=(),
    rows_required=3,
    grid=FixedGrid(60),
    max_gap_steps=1,
    form=None,
    max_horizon_steps=100,
    bundle_limits_horizon=False,
)
TIMES = ["2024-01-01T00:00:00Z", "2024-01-01T00:01:00Z", "2024-01-01T00:02:00Z"]


def read(data: dict[str, Any] | str, **more: Any) -> Any:
    body = data if isinstance(data, str) else json.dumps({"data": data, **more})
    request = decode_request(body.encode())
    check_horizon(request, NEEDS)
    return read_rows(request, NEEDS, max_rows=50)


def good(**changes: Any) -> dict[str, Any]:
    data: dict[str, Any] = {"time": TIMES, "down": [1, 2.5, None], "up": [4.0, 5.0, 6.0], **changes}
    return {name: value for name, value in data.items() if value != "absent"}


def test_cells_as_a_file_has_them_are_numbers_and_missing_marks() -> None:
    rows = read(good(down=["1.5", "n/a", True], up=["-", " 2 ", 3]))

    np.testing.assert_array_equal(rows.values, [[1.5, np.nan], [np.nan, 2], [1, 3]])


MARKS = FileForm("Datum", TimeFormat("DD.MM.YYYY HH:mm", "Europe/Berlin"), decimal=",", thousands=".", missing=("x",))


def test_a_request_is_read_and_answered_as_the_files_of_the_data_set_are_written() -> None:
    needs = replace(NEEDS, form=MARKS, grid=FixedGrid(3600, "Europe/Berlin"))
    data = {
        "Datum": ["31.03.2024 00:00", "31.03.2024 01:00", "31.03.2024 03:00"],  # 02:00 does not exist
        "down": ["1,5", "x", "1.234,5"],
        "up": [1, 2, 3],
    }

    rows = read_rows(decode_request(json.dumps({"data": data}).encode()), needs, max_rows=9)

    assert np.diff(rows.times).tolist() == [3600, 3600]
    np.testing.assert_array_equal(rows.values[:, 0], [1.5, np.nan, 1234.5])
    assert rows.style.write(rows.times + 3600) == ["31.03.2024 01:00", "31.03.2024 03:00", "31.03.2024 04:00"]


@pytest.mark.parametrize(
    ("times", "answered"),
    [
        (["2024-01-01T12:00Z", "2024-01-01T13:00Z", "2024-01-01T14:00Z"], "2024-01-01T14:00Z"),
        (["2024-01-01 12:00", "2024-01-01 13:00", "2024-01-01 14:00"], "2024-01-01T14:00:00"),
        ([1704106800, 1704110400, 1704114000], 1704114000),
    ],
)
def test_a_request_may_write_iso_and_epoch_seconds_however_the_files_are_written(
    times: list[Any], answered: str | int
) -> None:
    needs = replace(NEEDS, form=MARKS, grid=FixedGrid(3600, "Europe/Berlin"))

    body = json.dumps({"data": {"time": times, "down": [1, 2, 3], "up": [1, 2, 3]}}).encode()
    rows = read_rows(decode_request(body), needs, max_rows=9)

    # Local times without an offset are on the clock of the data set.
    assert np.diff(rows.times).tolist() == [3600, 3600]
    assert rows.style.write(rows.times[-1:]) == [answered]


def test_a_time_in_no_form_is_refused_with_the_form_of_the_files() -> None:
    request = decode_request(json.dumps({"data": {"Datum": ["noon"], "down": [1], "up": [1]}}).encode())

    with pytest.raises(RejectedError, match=r"31\.01\.2024 13:45") as refused:
        read_rows(request, replace(NEEDS, form=MARKS), max_rows=9)

    assert (refused.value.code, refused.value.field) == ("bad_time", "Datum")


def test_a_missing_row_becomes_nulls_and_a_small_shift_is_removed_as_at_upload() -> None:
    rows = read({"time": [0, 60, 183, 240], "down": [1, 2, 3, 4], "up": [5, 6, 7, 8]})

    assert rows.times.tolist() == [0, 60, 120, 180, 240]
    np.testing.assert_array_equal(rows.values[:, 0], [1, 2, np.nan, 3, 4])


def test_rows_of_which_most_are_missing_are_refused() -> None:
    with pytest.raises(RejectedError) as refused:
        read({"time": [0, 120, 240, 360], "down": [1, 2, 3, 4], "up": [5, 6, 7, 8]})

    assert refused.value.code == "gap_in_rows"


def test_missing_rows_count_as_rows_of_the_request() -> None:
    times = np.cumsum([60, 120] * 25).tolist()

    with pytest.raises(RejectedError) as refused:
        read({"time": times, "down": times, "up": times})

    assert refused.value.code == "too_many_rows"


def test_a_row_on_a_closed_day_is_refused_naming_the_calendar() -> None:
    days = WeekGrid(86_400, (((0, 0),),) * 5 + ((), ()))
    needs = replace(NEEDS, grid=days)

    def read_days(*texts: str) -> Any:
        count = list(range(len(texts)))
        body = json.dumps({"data": {"time": texts, "down": count, "up": count}}).encode()
        return read_rows(decode_request(body), needs, max_rows=50)

    assert len(read_days("2024-02-29", "2024-03-01", "2024-03-04").times) == 3
    with pytest.raises(RejectedError, match="1 business day") as refused:
        read_days("2024-03-01", "2024-03-02", "2024-03-04")  # a Saturday
    assert (refused.value.code, refused.value.field) == ("off_grid", "time")


def test_columns_are_found_by_name_and_null_becomes_nan() -> None:
    rows = read(good())

    assert rows.times.tolist() == [1_704_067_200, 1_704_067_260, 1_704_067_320]
    np.testing.assert_array_equal(rows.values, [[1, 4], [2.5, 5], [np.nan, 6]])


@given(order=st.permutations(["time", "down", "up", "note"]))
def test_the_order_of_columns_changes_nothing(order: list[str]) -> None:
    data = good(note=["a", "b", "c"])

    rows = read({name: data[name] for name in order})

    np.testing.assert_array_equal(rows.values, read(good()).values)


@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=3, max_size=50))
def test_numbers_arrive_as_they_were_sent(values: list[float]) -> None:
    times = [1_704_067_200 + 60 * row for row in range(len(values))]

    rows = read({"ts": times, "down": values, "up": values})

    assert rows.values[:, 0].tolist() == values
    assert rows.style.form == "integer"


@pytest.mark.parametrize("name", ["time", "timestamp", "ts", "date"])
def test_the_time_column_is_known_by_its_name(name: str) -> None:
    data = good(time="absent")
    data[name] = TIMES

    assert len(read(data).times) == 3


def test_index_col_names_the_time_column() -> None:
    data = good(time="absent", when=TIMES)

    assert len(read(data, index_col="when").times) == 3


REFUSALS: list[tuple[str, dict[str, Any] | str, dict[str, Any], str, str | None, str]] = [
    ("an empty body", "", {}, "bad_json", None, "empty"),
    ("a blank body", " \n", {}, "bad_json", None, "empty"),
    ("what is not JSON", "down,up", {}, "bad_json", None, "not JSON"),
    ("NaN", '{"data": {"time": ["2024-01-01"], "down": [NaN]}}', {}, "bad_json", None, "null, not NaN"),
    ("Infinity", '{"data": {"down": [Infinity]}}', {}, "bad_json", None, "not JSON"),
    ("a list", "[1]", {}, "bad_request", None, "object"),
    ("no data", "{}", {}, "no_history", "data", "at least 3 rows"),
    ("data that is a list", '{"data": []}', {}, "bad_request", "data", "object"),
    ("an unknown field", '{"data": {}, "inference_lenght": 5}', {}, "bad_request", "inference_lenght", "unknown"),
    ("no columns", {}, {}, "no_history", "data", "at least 3 rows"),
    ("no time column", {"down": [1], "up": [1]}, {}, "no_time_column", "index_col", "no time column"),
    ("empty columns", {"time": [], "down": [], "up": []}, {}, "too_few_rows", "data", "needs 3 rows"),
    ("no time column", good(time="absent"), {}, "no_time_column", "index_col", "time, timestamp, ts, date"),
    ("two time columns", good(ts=TIMES), {}, "two_time_columns", "index_col", "time, ts"),
    ("index_col absent", good(), {"index_col": "when"}, "no_time_column", "index_col", "when"),
    ("index_col a value", good(), {"index_col": "down"}, "unknown_column", "time", "time"),
    ("an unknown column", good(sideways=[1, 2, 3]), {}, "unknown_column", "sideways", "down, up"),
    ("a missing column", good(up="absent"), {}, "missing_column", "up", "needs this column"),
    ("text as number", good(down=["1", "two", "3"]), {}, "bad_number", "down", "row 1"),
    ("infinity as text", good(down=[1, "inf", 3]), {}, "bad_number", "down", "row 2"),
    ("a comma in a file with points", good(up=[1, 2, "1,5"]), {}, "bad_number", "up", "row 3"),
    ("a list as cell", good(up=[1, 2, [3]]), {}, "bad_number", "up", "row 3"),
    ("a column that is no list", good(up=3), {}, "bad_column", "up", "list of numbers"),
    ("a column that is null", good(up=None), {}, "bad_column", "up", "list of numbers"),
    ("a number out of range", '{"data": {"time": ["2024-01-01T00:00:00Z"], "down": [1e999], "up": [1]}}', {},
     "bad_number", "down", "row 1"),
    ("unequal columns", good(up=[1, 2]), {}, "unequal_columns", "up", "has 2 values, time has 3"),
    ("too few rows", good(time=TIMES[:2], down=[1, 2], up=[1, 2]), {}, "too_few_rows", "data", "needs 3 rows"),
    ("no rows", good(time=[], down=[], up=[]), {}, "too_few_rows", "data", "needs 3 rows"),
    ("too many rows", {"ts": list(range(0, 3060, 60)), "down": [1] * 51, "up": [1] * 51}, {}, "too_many_rows", "data",
     "51 rows are more than the 50"),
    ("unordered times", good(time=TIMES[::-1]), {}, "unordered_times", "time", "earlier"),
    ("duplicate times", good(time=[TIMES[0], TIMES[0], TIMES[1]]), {}, "duplicate_times", "time", "repeats"),
    ("a gap", good(time=[TIMES[0], TIMES[1], "2024-01-01T00:04:00Z"]), {}, "gap_in_rows", "time", "(1 min) apart"),
    ("another step", good(time=[0, 30, 60]), {}, "gap_in_rows", "time", "(1 min) apart"),
    ("times mixed with numbers", good(time=[TIMES[0], 5, TIMES[1]]), {}, "bad_time", "time", "row 2"),
    ("numbers mixed with times", good(time=[5, TIMES[0], 7]), {}, "bad_time", "time", "row 2"),
    ("true as time", good(time=[True, 60, 120]), {}, "bad_time", "time", "row 1"),
    ("null as time", good(time=[0, None, 120]), {}, "bad_time", "time", "row 2"),
    ("a time of 400 digits", f'{{"data": {{"time": [1{"0" * 400}], "down": [1]}}}}', {}, "bad_time", "time", "row 1"),
    ("times that are no list", good(time="2024-01-01"), {}, "bad_time", "time", "array"),
    ("horizon 0", good(), {"inference_length": 0}, "bad_horizon", "inference_length", "1 to 100"),
    ("horizon -1", good(), {"inference_length": -1}, "bad_horizon", "inference_length", "1 to 100"),
    ("horizon 101", good(), {"inference_length": 101}, "bad_horizon", "inference_length", "1 to 100; got 101"),
    ("horizon of 90 digits", good(), {"inference_length": 10**90}, "bad_horizon", "inference_length", "0000..."),
    ("horizon as text", good(), {"inference_length": "5"}, "bad_request", "inference_length", "int"),
    ("horizon as fraction", good(), {"inference_length": 2.5}, "bad_request", "inference_length", "int"),
    ("horizon as true", good(), {"inference_length": True}, "bad_request", "inference_length", "int"),
    ("an identifier that is a number", good(), {"identifier": 5}, "bad_request", "identifier", "str"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "more", "code", "field", "says"), [case[1:] for case in REFUSALS],
                         ids=[case[0] for case in REFUSALS])  # fmt: skip
def test_a_wrong_request_is_refused_naming_the_field_and_what_is_needed(
    data: dict[str, Any] | str, more: dict[str, Any], code: str, field: str | None, says: str
) -> None:
    with pytest.raises(RejectedError) as caught:
        read(data, **more)

    assert (caught.value.code, caught.value.field) == (code, field)
    assert says in caught.value.message


@given(body=st.binary(max_size=80))
def test_any_bytes_are_refused_and_never_break_the_reader(body: bytes) -> None:
    with pytest.raises(RejectedError):
        read_rows(decode_request(body), NEEDS, max_rows=50)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(time=JSON_VALUES, down=JSON_VALUES, up=JSON_VALUES, length=JSON_VALUES)
def test_any_json_in_any_place_is_read_or_refused(time: Any, down: Any, up: Any, length: Any) -> None:
    body = json.dumps({"data": {"time": time, "down": down, "up": up}, "inference_length": length}).encode()
    try:
        request = decode_request(body)
        check_horizon(request, NEEDS)
        read_rows(request, NEEDS, max_rows=50)
    except RejectedError:
        pass  # a refusal is expected; any other error fails the test


def test_a_model_of_the_clock_needs_no_values_but_still_refuses_wrong_ones() -> None:
    needs = Needs(("down", "up"), frozenset(), reads_values=False, constants=(), rows_required=1, grid=FixedGrid(60),
                  max_gap_steps=1, form=None, max_horizon_steps=10, bundle_limits_horizon=False)  # fmt: skip

    rows = read_rows(decode_request(json.dumps({"data": {"ts": [0]}}).encode()), needs, max_rows=9)
    assert rows.values.shape == (1, 0)

    with pytest.raises(RejectedError, match="up"):
        read_rows(decode_request(b'{"data": {"ts": [0], "up": ["one"]}}'), needs, max_rows=9)
