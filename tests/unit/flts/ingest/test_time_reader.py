from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from flts.errors import RejectedError
from flts.ingest.time_reader import ReadTimes, TimeReader
from flts.times import TimeFormat

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# strptime formats, and the pattern that is found for them.
WRITTEN = {
    "%Y-%m-%d %H:%M:%S": "YYYY-MM-DD HH:mm:ss",
    "%Y-%m-%dT%H:%M:%SZ": "YYYY-MM-DDTHH:mm:ssZ",
    "%Y-%m-%d %H:%M": "YYYY-MM-DD HH:mm",
    "%Y-%m-%dT%H:%M:%S+0000": "YYYY-MM-DDTHH:mm:ss+0000",
    "%Y/%m/%d %H:%M": "YYYY/MM/DD HH:mm",
    "%d.%m.%Y %H:%M:%S": "DD.MM.YYYY HH:mm:ss",
    "%d/%m/%Y %H:%M": "DD/MM/YYYY HH:mm",
    "%d-%m-%Y %H:%M": "DD-MM-YYYY HH:mm",
    "%d %m %Y %H:%M": "DD MM YYYY HH:mm",
    "%m/%d/%Y %I:%M %p": "MM/DD/YYYY HH:mm AM",
    "%-m/%-d/%Y %-I:%M:%S %p": "M/D/YYYY H:mm:ss AM",
    "%m/%d/%Y, %I:%M:%S %p": "MM/DD/YYYY, HH:mm:ss AM",
    "%d-%b-%Y %H:%M": "DD-Mon-YYYY HH:mm",
    "%d %B %Y %H:%M": "DD Month YYYY HH:mm",
    "%B %-d, %Y %H:%M": "Month D, YYYY HH:mm",
    "%d%b%Y %H:%M": "DDMonYYYY HH:mm",
    "%Y%m%d%H%M%S": "YYYYMMDDHHmmss",
    "%Y%m%d%H%M": "YYYYMMDDHHmm",
    "%Y%m%dT%H%M": "YYYYMMDDTHHmm",
    "%Y%m%d %H:%M": "YYYYMMDD HH:mm",
    "%d.%m.%y %H:%M": "DD.MM.YY HH:mm",
}


def read(cells: Sequence[str | None], *, block: int = 50, **settings: str | TimeFormat) -> ReadTimes:
    reader = TimeReader("date", **settings)  # type: ignore[arg-type] - the settings of the case
    for start in range(0, len(cells), block):
        reader.feed(pa.array(cells[start : start + block], pa.string()), first_row=start + 1)
    return reader.finish()


def texts(found: ReadTimes) -> list[str]:
    return found.times.astype("datetime64[us]").astype("datetime64[s]").astype(str).tolist()


def refused(cells: Sequence[str | None], **settings: str) -> RejectedError:
    with pytest.raises(RejectedError) as refusal:
        read(cells, **settings)
    return refusal.value


def hours(form: str, count: int, start: datetime = datetime(2024, 3, 1, tzinfo=UTC)) -> list[str]:
    return [(start + timedelta(hours=at)).strftime(form) for at in range(count)]


@pytest.mark.parametrize("written", WRITTEN)
@hypothesis_settings(max_examples=20)
@given(
    start=st.datetimes(datetime(1972, 1, 1), datetime(2035, 1, 1)),  # noqa: DTZ001 - made UTC below
    minutes=st.sampled_from([10, 60, 180, 1440, 11_520]),
)
@example(start=datetime(2024, 2, 27), minutes=60)  # noqa: DTZ001
@example(start=datetime(1999, 12, 28), minutes=180)  # noqa: DTZ001
def test_a_file_in_any_form_is_read_as_the_times_that_were_written(written: str, start: datetime, minutes: int) -> None:
    first = start.replace(second=0, microsecond=0, tzinfo=UTC)
    rows = 32 * 1440 // minutes if minutes < 1440 else 60
    moments = [first + timedelta(minutes=minutes * at) for at in range(rows)]
    cells = [moment.strftime(written) for moment in moments]

    found = read(cells, block=400)

    assert found.times.tolist() == [(moment - EPOCH) // timedelta(microseconds=1) for moment in moments]
    assert found.format.pattern == WRITTEN[written]
    assert found.format.write(found.times // 1_000_000) == cells
    assert found.format.read(cells).tolist() == (found.times // 1_000_000).tolist()


@pytest.mark.parametrize(
    ("cells", "pattern", "expected"),
    [
        (["1949-01", "1949-02"], "YYYY-MM", ["1949-01-01T00:00:00", "1949-02-01T00:00:00"]),
        (["1949/01", "1949/02"], "YYYY/MM", ["1949-01-01T00:00:00", "1949-02-01T00:00:00"]),
        (["01/1949", "02/1949"], "MM/YYYY", ["1949-01-01T00:00:00", "1949-02-01T00:00:00"]),
        (["1949M01", "1949M02"], "YYYY[M]MM", ["1949-01-01T00:00:00", "1949-02-01T00:00:00"]),
        (["Jan-49", "Dec-60"], "Mon-YY", ["1949-01-01T00:00:00", "1960-12-01T00:00:00"]),
        (["Dec-99", "Jan-00"], "Mon-YY", ["1999-12-01T00:00:00", "2000-01-01T00:00:00"]),
        (["Jan 2020", "MAY 2020"], "Mon YYYY", ["2020-01-01T00:00:00", "2020-05-01T00:00:00"]),
        (["May 2020", "June 2020"], "Month YYYY", ["2020-05-01T00:00:00", "2020-06-01T00:00:00"]),
        (["2020Q1", "2020Q2"], "YYYYQq", ["2020-01-01T00:00:00", "2020-04-01T00:00:00"]),
        (["Q3 2020", "Q4 2020"], "Qq YYYY", ["2020-07-01T00:00:00", "2020-10-01T00:00:00"]),
        (["2020-W05", "2020-W06"], "YYYY-Www", ["2020-01-27T00:00:00", "2020-02-03T00:00:00"]),
        (["1885", "1886"], "YYYY", ["1885-01-01T00:00:00", "1886-01-01T00:00:00"]),
        (["20230101", "20230102"], "YYYYMMDD", ["2023-01-01T00:00:00", "2023-01-02T00:00:00"]),
        (["1709251200", "1709254800"], "epoch", ["2024-03-01T00:00:00", "2024-03-01T01:00:00"]),
        (["1709251200000", "1709254800000"], "epoch ms", ["2024-03-01T00:00:00", "2024-03-01T01:00:00"]),
        (["1709251200000000"], "epoch us", ["2024-03-01T00:00:00"]),
        (["45200", "45201.5"], "excel", ["2023-10-01T00:00:00", "2023-10-02T12:00:00"]),
        (["01/03/2024", "01/03/2024 01:00", "13/03/2024"], "DD/MM/YYYY HH:mm", ["2024-03-01T00:00:00"]),
        (["2024-03-01", "2024-03-01 00:10:00"], "YYYY-MM-DD HH:mm:ss", ["2024-03-01T00:00:00"]),
        (["2024-03-01 00:00:00", "2024-03-01 00:10:00.5"], "YYYY-MM-DD HH:mm:ss.S", ["2024-03-01T00:00:00"]),
        (["2024-03-01 24:00"], "YYYY-MM-DD HH:mm", ["2024-03-02T00:00:00"]),
        (["9/5/2024 9:05", "10/13/2024 10:05"], "M/D/YYYY H:mm", ["2024-09-05T09:05:00"]),
    ],
)
def test_each_kind_of_time_is_found(cells: list[str], pattern: str, expected: list[str]) -> None:
    found = read(cells)

    assert found.format.pattern == pattern
    assert texts(found)[: len(expected)] == expected


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_a_value_above_twelve_proves_the_order_wherever_it_is(block: int) -> None:
    first = hours("%d.%m.%Y %H:%M", 480)
    month_first = hours("%m.%d.%Y %H:%M", 480)

    assert texts(read(first, block=block))[24] == "2024-03-02T00:00:00"
    assert texts(read(month_first, block=block))[24] == "2024-03-02T00:00:00"
    assert read(first, block=block).notes == ()


@pytest.mark.parametrize(
    ("cells", "pattern"),
    [
        (hours("%d/%m/%Y %H:%M", 240), "DD/MM/YYYY HH:mm"),
        (hours("%m/%d/%Y %H:%M", 240), "MM/DD/YYYY HH:mm"),
        (hours("%d/%m/%Y %H:%M", 240)[::-1], "DD/MM/YYYY HH:mm"),
        (hours("%d.%m.%y %H:%M", 240), "DD.MM.YY HH:mm"),
        ([f"01/{month:02d}/{year}" for year in range(2000, 2011) for month in range(1, 13)], "DD/MM/YYYY"),
        ([f"{month:02d}/01/{year}" for year in range(2000, 2011) for month in range(1, 13)], "MM/DD/YYYY"),
    ],
)
def test_even_steps_decide_on_the_order_and_are_named(cells: list[str], pattern: str) -> None:
    found = read(cells)

    assert found.format.pattern == pattern
    [note] = [note for note in found.notes if "even steps" in note]
    assert pattern[:8] in note
    assert "TIME_FORMAT=" in note


@pytest.mark.parametrize(
    ("cells", "readings", "settings"),
    [
        (
            ["01/02/2024", "01/03/2024", "01/04/2024"],
            "row 1, column date: '01/02/2024' may be 1 February or 2 January 2024",
            ["DD/MM/YYYY", "MM/DD/YYYY"],
        ),
        (
            ["02.02.2024 00:00", "03.02.2024 00:00"],
            "row 2, column date: '03.02.2024 00:00' may be 3 February or 2 March 2024",
            ["DD.MM.YYYY", "MM.DD.YYYY"],
        ),
        (
            ["01-02-03"],
            "row 1, column date: '01-02-03' may be 1 February or 2 January 2003",
            ["DD-MM-YY", "MM-DD-YY", "YY-MM-DD"],
        ),
    ],
)
def test_two_readings_are_refused_with_both_and_the_settings(
    cells: list[str], readings: str, settings: list[str]
) -> None:
    error = refused(cells)

    choice = " or ".join(f"TIME_FORMAT={setting}" for setting in settings)
    assert (error.code, error.field) == ("ambiguous_time", "date")
    assert error.message == f"{readings}: set {choice}"
    assert len({tuple(texts(read(cells, time_format=setting))) for setting in settings}) == len(settings)


def test_the_cell_of_a_refusal_is_the_one_of_the_file_whatever_the_zone() -> None:
    cells = ["02/02/2024 00:00", "03/02/2024 01:00"]

    assert "row 2, column date: '03/02/2024 01:00' may be" in refused(cells, time_zone="Asia/Tokyo").message


def test_the_form_of_the_other_file_decides() -> None:
    like = read(["13/1/2024 00:00"]).format

    assert texts(read(["01/02/2024"], like=like)) == ["2024-02-01T00:00:00"]
    with pytest.raises(RejectedError):
        read(["01.02.2024"], like=like)


def test_twelve_days_of_january_and_twelve_firsts_are_both_even_so_that_the_file_is_refused() -> None:
    assert refused([f"01/{at:02d}/2024" for at in range(1, 13)]).code == "ambiguous_time"


def test_days_and_months_that_are_equal_have_one_reading() -> None:
    assert texts(read(["01/01/2024", "02/02/2024"])) == ["2024-01-01T00:00:00", "2024-02-02T00:00:00"]


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["2024-01-31", "2024-02-30"], "row 2, column date: '2024-02-30' is not a time of the form YYYY-MM-DD"),
        (["2024-01-31", "mean"], "row 2, column date: 'mean' is not a time of the form YYYY-MM-DD"),
        (["2024-02-30"], "row 1, column date: '2024-02-30' is not a time: there is no such day"),
        (["soon"], "row 1, column date: 'soon' is not a time in a known form"),
        (["13/01/2024", "01/14/2024"], "'01/14/2024' is not a time of the form DD/MM/YYYY"),
        (["13/01/2024 01:00 AM", "13/01/2024 02:00"], "row 2, column date: '13/01/2024 02:00' is not a time"),
        (["20240131", "20240132"], "row 2, column date: '20240132' is not a time of the form YYYYMMDD"),
        (["1709251200", "soon"], "row 2, column date: 'soon' is not a time of the form epoch"),
        (["\ufeff2024-01-01"], "row 1"),
        (["x" * 90], "row 1"),
        (["1e300"], "row 1, column date: '1e300' is not a time in a known form"),
    ],
)
@pytest.mark.parametrize("block", [1, 50])
def test_a_cell_that_is_no_time_is_refused_by_row_column_and_form(cells: list[str], words: str, block: int) -> None:
    with pytest.raises(RejectedError) as refusal:
        read(cells, block=block)

    assert (refusal.value.code, refusal.value.field) == ("bad_time", "date")
    assert words in refusal.value.message
    assert len(refusal.value.message) < 400


@pytest.mark.parametrize(
    "cells", [["1", "2"], ["0"], ["-5"], ["99999999", "100000000"], ["100", "200"], ["201", "202"], ["7.5"], ["040101"]]
)
def test_a_number_that_may_be_many_things_is_asked_for(cells: list[str]) -> None:
    error = refused(cells)

    assert (error.code, error.field) == ("ambiguous_time", "date")
    assert "epoch, epoch ms, epoch us, excel, year" in error.message


def test_years_that_do_not_increase_are_asked_for() -> None:
    assert refused(["1885", "1886", "1886"]).code == "ambiguous_time"
    assert texts(read(["1886", "1885"])) == ["1886-01-01T00:00:00", "1885-01-01T00:00:00"]


@pytest.mark.parametrize(
    ("setting", "cells", "expected"),
    [
        ("epoch", ["-60", "0", "1.0"], ["1969-12-31T23:59:00", "1970-01-01T00:00:00", "1970-01-01T00:00:01"]),
        ("epoch ms", ["1000"], ["1970-01-01T00:00:01"]),
        ("epoch us", ["1000000"], ["1970-01-01T00:00:01"]),
        ("excel", ["61"], ["1900-03-01T00:00:00"]),
        ("year", ["0800", "0800"], ["0800-01-01T00:00:00"] * 2),
        ("YYYYMM", ["194901"], ["1949-01-01T00:00:00"]),
        ("YYMMDD", ["240131"], ["2024-01-31T00:00:00"]),
        ("HH:mm DD/MM/YYYY", ["12:00 01/02/2024"], ["2024-02-01T12:00:00"]),
        ("%d/%m/%Y", ["01/02/2024 12:00"], ["2024-02-01T12:00:00"]),
        ("YYYY-MM-DD HH:mm:ss", ["2024-02-01T12:00Z"], ["2024-02-01T12:00:00"]),
    ],
)
def test_the_setting_decides(setting: str, cells: list[str], expected: list[str]) -> None:
    assert texts(read(cells, time_format=setting)) == expected


def test_a_cell_that_does_not_fit_the_setting_is_refused_by_its_name() -> None:
    error = refused(["01/02/2024", "01/13/2024"], time_format="DD/MM/YYYY")

    assert (error.code, error.field) == ("bad_time", "date")
    assert error.message == "row 2, column date: '01/13/2024' is not a time of the form DD/MM/YYYY (TIME_FORMAT)"


@pytest.mark.parametrize("settings", [{"time_format": "DD/MM"}, {"time_zone": "Europe/Nowhere"}])
def test_an_unusable_setting_is_refused_before_any_cell(settings: dict[str, str]) -> None:
    with pytest.raises(RejectedError) as refusal:
        TimeReader("date", **settings)  # type: ignore[arg-type] - the settings of the case

    assert (refusal.value.code, refusal.value.field) == ("bad_setting", next(iter(settings)).upper())


@pytest.mark.parametrize("empty", [None, "", "  "])
def test_a_row_without_a_time_is_named(empty: str | None) -> None:
    error = refused(["2024-01-01"] * 60 + [empty])

    assert (error.code, error.field, error.message) == ("missing_time", "date", "row 61 has no time in column date")


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["45200", "45201"], "45200 is read as an Excel day number, 1 October 2023; TIME_FORMAT=epoch"),
        (["1709251200000"], "read as milliseconds since 1970 (TIME_FORMAT)"),
        (["1885"], "read as years"),
        (["Jan-49", "Feb-60"], "years of two digits are read as 1949 to 1960"),
    ],
)
def test_a_guess_is_noted_with_the_setting(cells: list[str], words: str) -> None:
    [note] = read(cells).notes

    assert words in note
    assert note.startswith("column date: ")


@pytest.mark.parametrize(("zone", "month"), [("Europe/Berlin", 10), ("Europe/Berlin", 3), ("America/New_York", 11)])
@pytest.mark.parametrize("form", ["%Y-%m-%d %H:%M:%S", "%d.%m.%Y %H:%M"])
def test_with_a_zone_both_clock_changes_are_read_exactly(zone: str, month: int, form: str) -> None:
    utc = [datetime(2024, month, 1, tzinfo=UTC) + timedelta(hours=at) for at in range(720)]
    cells = [moment.astimezone(ZoneInfo(zone)).strftime(form) for moment in utc]

    found = read(cells, time_zone=zone)

    assert found.times.tolist() == [(moment - EPOCH) // timedelta(microseconds=1) for moment in utc]
    assert found.notes == ()
    assert found.format.zone == zone
    assert found.format.write(found.times // 1_000_000) == cells


def test_without_a_zone_a_repeated_hour_is_refused_and_the_setting_is_named() -> None:
    utc = [datetime(2024, 10, 7, tzinfo=UTC) + timedelta(hours=at) for at in range(720)]
    cells = [moment.astimezone(ZoneInfo("Europe/Berlin")).strftime("%Y-%m-%d %H:%M:%S") for moment in utc]

    error = refused(cells)

    assert (error.code, error.field) == ("repeated_local_hour", "TIME_ZONE")
    assert "row 482, column date: the hour from 2024-10-27 02:00 on occurs twice" in error.message
    assert "TIME_ZONE=Europe/Berlin" in error.message


def test_without_a_zone_a_missing_hour_is_noted_with_the_setting() -> None:
    utc = [datetime(2024, 3, 10, tzinfo=UTC) + timedelta(hours=at) for at in range(720)]
    cells = [moment.astimezone(ZoneInfo("Europe/Berlin")).strftime("%Y-%m-%d %H:%M:%S") for moment in utc]

    [note] = read(cells).notes

    assert "the hour from 2024-03-31 02:00 on is missing before row 506" in note
    assert "TIME_ZONE=Europe/Berlin" in note


def test_a_time_that_never_was_is_refused_by_its_row() -> None:
    cells = hours("%Y-%m-%d %H:%M", 48, datetime(2024, 3, 30, tzinfo=UTC))

    error = refused(cells, time_zone="Europe/Berlin")

    assert (error.code, error.field) == ("no_such_time", "date")
    assert "row 27, column date: the clocks of Europe/Berlin never showed 2024-03-31 02:00:00" in error.message


def test_offsets_decide_and_the_zone_is_for_writing() -> None:
    found = read(["2024-07-01T12:00:00+05:00", "2024-07-01T13:00:00+05:00"], time_zone="Europe/Berlin")

    assert texts(found) == ["2024-07-01T07:00:00", "2024-07-01T08:00:00"]
    assert found.format.write(found.times // 1_000_000)[0] == "2024-07-01T09:00:00+02:00"


def test_without_a_zone_the_common_offset_of_the_cells_is_written_again() -> None:
    cells = ["2024-07-01T12:00:00-03:30", "2024-07-01T13:00:00-03:30"]
    found = read(cells)

    assert found.format.write(found.times // 1_000_000) == cells


def test_only_cells_without_an_offset_are_on_the_local_clock() -> None:
    cells = ["2024-07-01T12:00", "2024-07-01T11:00Z", "2024-07-01 14:00"]

    assert texts(read(cells, time_zone="Europe/Berlin")) == [f"2024-07-01T{hour}:00:00" for hour in (10, 11, 12)]
    assert texts(read(cells)) == [f"2024-07-01T{hour}:00:00" for hour in (12, 11, 14)]


def test_spaces_of_other_kinds_are_spaces() -> None:
    assert texts(read(["13/03/2024\u00a012:00\u202fPM"])) == ["2024-03-13T12:00:00"]


def test_fractions_are_kept_to_the_microsecond() -> None:
    found = read(["2024-03-01 00:00:00.123456", "13/03/2024 00:00:00"][:1])
    other = read(["13/03/2024 00:00:00,1234567"])

    assert found.times[0] % 1_000_000 == 123_456
    assert other.times[0] % 1_000_000 == 123_457


def test_no_cells_have_no_times() -> None:
    assert len(read([]).times) == 0


CHARACTERS = st.text("0123456789", min_size=1, max_size=5) | st.sampled_from(
    [
        "-",
        "/",
        ".",
        ":",
        " ",
        "T",
        "Z",
        "+",
        "AM",
        "pm",
        "Q",
        "W",
        "M",
        "Jan",
        "February",
        ",",
        "UTC",
        "e",
        "\u00e4",
        "\u202f",
    ]
)


@given(
    cells=st.lists(st.lists(CHARACTERS, max_size=9).map("".join), min_size=1, max_size=4),
    zone=st.sampled_from(["", "Europe/Berlin"]),
    setting=st.sampled_from(["", "", "", "DD/MM/YY HH:mm AM", "HH:mm YYYY-MM-DD", "YYYY-Www-D", "excel", "epoch us"]),
)
@example(cells=["0001-01-01"], zone="Europe/Berlin", setting="")
@example(cells=["9999-12-31 24:00"], zone="", setting="")
@example(cells=["9999-W52-7", "9998-W01-1"], zone="Europe/Berlin", setting="YYYY-Www-D")
@example(cells=["0001-01-01T00:00+23:59"], zone="", setting="")
def test_cells_of_any_kind_are_read_or_refused(cells: list[str], zone: str, setting: str) -> None:
    codes = {"bad_time", "ambiguous_time", "missing_time", "no_such_time", "repeated_local_hour"}
    try:
        found = read(cells, block=2, time_zone=zone, time_format=setting)
    except RejectedError as refusal:
        answer = refusal.code in codes and refusal.field in {"date", "TIME_ZONE"}
    else:
        answer = len(found.format.write(found.times // 1_000_000)) == len(cells)
    assert answer
