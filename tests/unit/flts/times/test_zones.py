from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from flts.errors import RejectedError
from flts.times import to_local, to_utc, zone_of
from flts.times.zones import _changes_of_year, _steps_of_year

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR = 3_600_000_000
ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "America/Sao_Paulo", "UTC"]


def micros(*texts: str) -> NDArray[np.int64]:
    return np.array(texts, "datetime64[us]").astype(np.int64)


def texts(times: NDArray[np.int64]) -> list[str]:
    return [str(text)[:16].replace("T", " ") for text in times.astype("datetime64[us]")]


@pytest.mark.parametrize("zone", ZONES)
@given(seconds=st.lists(st.integers(-1_500_000_000, 4_000_000_000), min_size=1, max_size=20))
def test_the_local_clock_is_the_one_of_the_standard_library(zone: str, seconds: list[int]) -> None:
    times = np.array(seconds) * 1_000_000

    local = to_local(times, zone)

    expected = [(EPOCH + timedelta(seconds=at)).astimezone(ZoneInfo(zone)).replace(tzinfo=UTC) for at in seconds]
    assert local.tolist() == [(clock - EPOCH) // timedelta(microseconds=1) for clock in expected]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("year", [1799, 2087, 2499, 2500, 3024, 9997])
def test_the_local_clock_of_any_year_is_the_one_of_the_standard_library(zone: str, year: int) -> None:
    start = datetime(year, 1, 1, tzinfo=UTC)
    moments = [start + timedelta(hours=hours) for hours in range(0, 366 * 24, 7)]

    local = to_local(np.array([(at - EPOCH) // timedelta(microseconds=1) for at in moments]), zone)

    expected = [at.astimezone(ZoneInfo(zone)).replace(tzinfo=UTC) for at in moments]
    assert local.tolist() == [(clock - EPOCH) // timedelta(microseconds=1) for clock in expected]


def test_times_thousands_of_years_apart_scan_the_changes_of_few_years(monkeypatch: pytest.MonkeyPatch) -> None:
    scanned: list[int] = []

    def counted(year: int) -> Iterator[tuple[datetime, datetime]]:
        scanned.append(year)
        return _steps_of_year(year)

    monkeypatch.setattr("flts.times.zones._steps_of_year", counted)
    _changes_of_year.cache_clear()

    to_utc(micros("0002-01-01T00:00", "9997-01-01T00:00"), "Europe/Berlin")

    assert (min(scanned), max(scanned), len(scanned)) == (1800, 2499, 700)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("minutes", [15, 30, 60])
@given(day=st.integers(12_000, 20_000))
def test_local_times_of_any_week_become_utc_again(zone: str, minutes: int, day: int) -> None:
    times = (day * 1440 + minutes * np.arange(7 * 1440 // minutes)) * 60_000_000
    local = to_local(times, zone)

    assert to_utc(local, zone).micros.tolist() == times.tolist()
    assert to_utc(local[::-1], zone).micros.tolist() == times[::-1].tolist()


@pytest.mark.parametrize(
    ("local", "utc"),
    [
        # hourly: first pass, second pass
        (["01:00", "02:00", "02:00", "03:00"], ["23:00", "00:00", "01:00", "02:00"]),
        # half-hourly: one pass after the other
        (["02:00", "02:30", "02:00", "02:30", "03:00"], ["00:00", "00:30", "01:00", "01:30", "02:00"]),
        # sorted by the local clock: the passes alternate
        (["02:00", "02:00", "02:30", "02:30", "03:00"], ["00:00", "01:00", "00:30", "01:30", "02:00"]),
        # newest first
        (["03:00", "02:00", "02:00", "01:00"], ["02:00", "01:00", "00:00", "23:00"]),
        # one pass with even steps in summer time, and one in winter time
        (["22:00", "00:00", "02:00", "03:00", "05:00"], ["20:00", "22:00", "00:00", "02:00", "04:00"]),
        (["21:00", "23:00", "01:00", "02:00", "04:00"], ["19:00", "21:00", "23:00", "01:00", "03:00"]),
        # the file begins in the second pass
        (["02:00", "03:00", "04:00"], ["01:00", "02:00", "03:00"]),
        # the file ends with the second pass, and with the first
        (["00:30", "01:30", "02:30", "02:30"], ["22:30", "23:30", "00:30", "01:30"]),
        (["00:30", "01:30", "02:30"], ["22:30", "23:30", "00:30"]),
    ],
)
def test_the_order_of_the_rows_decides_on_the_repeated_hour(local: list[str], utc: list[str]) -> None:
    late = {"21:00", "22:00", "23:00"} if local[0] in {"21:00", "22:00"} else set()
    times = micros(*(f"2024-10-{26 if clock in late else 27}T{clock}" for clock in local))

    answer = to_utc(times, "Europe/Berlin")

    assert [text[11:] for text in texts(answer.micros)] == utc
    assert answer.guessed == ()


def test_a_time_of_the_repeated_hour_that_nothing_explains_is_summer_time_and_named() -> None:
    times = micros("2024-10-27T00:00", "2024-10-27T01:00", "2024-10-27T02:00", "2024-10-27T03:00", "2024-10-27T04:00")

    answer = to_utc(times, "Europe/Berlin")

    assert texts(answer.micros)[2] == "2024-10-27 00:00"
    assert answer.guessed == (2,)


def test_each_series_of_a_long_file_passes_the_repeated_hour_on_its_own() -> None:
    series = micros("2024-10-27T01:00", "2024-10-27T02:00", "2024-10-27T02:00", "2024-10-27T03:00")

    answer = to_utc(np.concatenate([series, series]), "Europe/Berlin")

    assert texts(answer.micros)[:4] == texts(answer.micros)[4:]
    assert texts(answer.micros)[1:3] == ["2024-10-27 00:00", "2024-10-27 01:00"]


@pytest.mark.parametrize(
    ("zone", "text"),
    [
        ("Europe/Berlin", "2024-03-31T02:00"),
        ("Europe/Berlin", "2024-03-31T02:59"),
        ("America/New_York", "2024-03-10T02:30"),
        ("Australia/Lord_Howe", "2024-10-06T02:15"),
    ],
)
def test_a_local_time_that_never_was_is_refused_by_its_row_and_zone(zone: str, text: str) -> None:
    times = micros("2024-01-01T00:00", text)

    with pytest.raises(RejectedError) as refusal:
        to_utc(times, zone, field="date")

    assert (refusal.value.code, refusal.value.field) == ("no_such_time", "date")
    assert f"row 2, column date: the clocks of {zone} never showed {text.replace('T', ' ')}" in refusal.value.message


@pytest.mark.parametrize(
    ("zone", "text", "utc"),
    [
        ("Europe/Berlin", "2024-03-31T01:59", "2024-03-31 00:59"),
        ("Europe/Berlin", "2024-03-31T03:00", "2024-03-31 01:00"),
        ("America/New_York", "2024-11-03T00:59", "2024-11-03 04:59"),
        ("America/New_York", "2024-11-03T02:00", "2024-11-03 07:00"),
        ("Australia/Lord_Howe", "2024-04-07T01:29", "2024-04-06 14:29"),
        ("Australia/Lord_Howe", "2024-04-07T02:00", "2024-04-06 15:30"),
    ],
)
def test_the_minutes_beside_a_clock_change_are_read_exactly(zone: str, text: str, utc: str) -> None:
    assert texts(to_utc(micros(text), zone).micros) == [utc]


@pytest.mark.parametrize(
    ("name", "words"),
    [("Europe/Berln", "Europe/Berlin"), ("berlin", "Europe/Berlin"), ("new york", "America/New_York"), ("../etc", "")],
)
def test_an_unknown_zone_is_refused_with_similar_names(name: str, words: str) -> None:
    with pytest.raises(RejectedError) as refusal:
        zone_of(name)

    assert (refusal.value.code, refusal.value.field) == ("bad_setting", "TIME_ZONE")
    assert words in refusal.value.message
