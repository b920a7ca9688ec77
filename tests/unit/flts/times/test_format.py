from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flts.errors import RejectedError
from flts.times import TimeFormat

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]
NOON = 1_706_702_400  # 2024-01-31 12:00 UTC
# Patterns, and the shortest time that they can express: a second, a minute, a day, a week, a month, a quarter, a year.
PATTERNS = [
    *[(f"{date} HH:mm:ss", 1) for date in ("YYYY-MM-DD", "DD.MM.YYYY", "M/D/YYYY", "D-Mon-YYYY")],
    ("YYYY-MM-DDTHH:mm:ss", 1),
    ("YYYY-MM-DDTHH:mm:ssZ", 1),
    ("YYYY-MM-DD HH:mm:ss.SSS+00:00", 1),
    ("YYYY-MM-DD HH:mm:ss +0000", 1),
    ("DD/MM/YYYY HH:mm:ss UTC", 1),
    ("MM/DD/YYYY H:mm:ss AM", 1),
    ("D. M. YYYY HH:mm:ss am", 1),
    ("HH:mm:ss DD/MM/YYYY", 1),
    ("Month D, YYYY HH:mm:ss", 1),
    ("YYYYMMDDHHmmss", 1),
    ("YYYYMMDDTHHmmss", 1),
    ("epoch", 1),
    ("epoch ms", 1),
    ("epoch us", 1),
    ("excel", 1),
    ("DD MON YYYY HH:mm", 60),
    ("MM-DD-YYYY HH:mm AM", 60),
    ("YYYYMMDDHHmm", 60),
    ("YYYY/MM/DD HH", 3600),
    ("YYYY-MM-DD", 86_400),
    ("DD.MM.YYYY", 86_400),
    ("YYYYMMDD", 86_400),
    ("Mon DD, YYYY", 86_400),
    ("DDMonYYYY", 86_400),
    ("YYYY-Www-D", 86_400),
    ("YYYY-Www", "week"),
    ("YYYY-MM", "month"),
    ("MM/YYYY", "month"),
    ("YYYY[M]MM", "month"),
    ("Mon YYYY", "month"),
    ("Month, YYYY", "month"),
    ("YYYYQq", "quarter"),
    ("Qq YYYY", "quarter"),
    ("YYYY", "year"),
]  # fmt: skip


def seconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(seconds=1)


def truncated(moment: datetime, unit: int | str) -> datetime:
    """Return the last moment that a pattern of this unit expresses."""
    if isinstance(unit, int):
        return EPOCH + (moment - EPOCH) // timedelta(seconds=unit) * timedelta(seconds=unit)
    day = moment.replace(hour=0, minute=0, second=0)
    if unit == "week":
        return day - timedelta(days=day.weekday())
    month = {"month": day.month, "quarter": (day.month - 1) // 3 * 3 + 1, "year": 1}[unit]
    return day.replace(day=1, month=month)


MOMENTS = st.lists(
    st.one_of(
        st.datetimes(datetime(1905, 1, 1), datetime(2095, 1, 1)),  # noqa: DTZ001 - made UTC below
        st.sampled_from([datetime(year, 2, 28, 23, 59, 59) for year in (1999, 2000, 2023, 2024)]),  # noqa: DTZ001
        st.sampled_from([datetime(2024, month, 1) - timedelta(seconds=1) for month in range(1, 13)]),  # noqa: DTZ001
    ),
    min_size=1,
    max_size=8,
)


@pytest.mark.parametrize(("pattern", "unit"), PATTERNS)
@settings(max_examples=30)
@given(moments=MOMENTS)
def test_what_is_written_is_read_as_the_same_times(pattern: str, unit: int | str, moments: list[datetime]) -> None:
    times = np.array([seconds(truncated(at.replace(microsecond=0, tzinfo=UTC), unit)) for at in moments])
    form = TimeFormat(pattern)

    assert form.read(form.write(times)).tolist() == times.tolist()


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(
    "pattern", ["YYYY-MM-DD HH:mm:ss+00:00", "DD/MM/YYYY HH:mm +0000", "epoch", "YYYY-MM-DDTHH:mmZ"]
)
@settings(max_examples=40)
@given(start=st.integers(0, 2 * 365 * 48))
def test_every_half_hour_around_both_clock_changes_can_be_told_apart_if_the_form_has_an_offset(
    pattern: str, zone: str, start: int
) -> None:
    times = 1_704_067_200 + 1800 * np.arange(start, start + 60)
    form = TimeFormat(pattern, zone)

    written = form.write(times)

    assert form.read(written).tolist() == times.tolist()
    assert len(set(written)) == len(times)


@pytest.mark.parametrize("zone", ZONES)
@settings(max_examples=40)
@given(start=st.integers(0, 2 * 365 * 48))
def test_evenly_spaced_local_times_are_read_as_the_times_that_were_written(zone: str, start: int) -> None:
    times = 1_704_067_200 + 1800 * np.arange(start, start + 200)
    form = TimeFormat("DD.MM.YYYY HH:mm", zone)

    assert form.read(form.write(times)).tolist() == times.tolist()
    assert form.read(form.write(times[::-1])).tolist() == times[::-1].tolist()


@pytest.mark.parametrize("zone", [*ZONES, "America/Sao_Paulo"])
@settings(max_examples=40)
@given(first=st.dates(datetime(2005, 1, 1).date(), datetime(2024, 1, 1).date()))  # noqa: DTZ001 - only its date
def test_local_days_are_read_as_their_first_instants(zone: str, first: datetime) -> None:
    days = [first + timedelta(days=at) for at in range(100)]
    form = TimeFormat("YYYY-MM-DD", zone)
    texts = [day.isoformat() for day in days]

    times = form.read(texts)

    assert form.write(times) == texts
    clocks = [datetime.fromtimestamp(second, ZoneInfo(zone)) for second in times.tolist()]
    before = [datetime.fromtimestamp(second - 1, ZoneInfo(zone)) for second in times.tolist()]
    assert [clock.date() for clock in clocks] == days
    assert all(clock.date() < day for clock, day in zip(before, days, strict=True))


@pytest.mark.parametrize(
    ("pattern", "texts", "expected"),
    [
        ("DD/MM/YYYY HH:mm", ["01/02/2024 13:45"], "2024-02-01T13:45:00"),
        ("DD/MM/YYYY HH:mm", ["1/2/2024 3:45"], "2024-02-01T03:45:00"),
        ("DD/MM/YYYY HH:mm", ["01/02/2024"], "2024-02-01T00:00:00"),
        ("DD/MM/YYYY", ["01/02/2024 13:45:07"], "2024-02-01T13:45:07"),
        ("MM/DD/YYYY HH:mm AM", ["03/01/2024 12:00 AM"], "2024-03-01T00:00:00"),
        ("MM/DD/YYYY HH:mm AM", ["03/01/2024 12:00 PM"], "2024-03-01T12:00:00"),
        ("MM/DD/YYYY HH:mm AM", ["03/01/2024\u202f1:05 pm"], "2024-03-01T13:05:00"),
        ("YYYY-MM-DD HH:mm", ["2024-02-29 24:00"], "2024-03-01T00:00:00"),
        ("YYYY-MM-DD HH:mm:ss", ["2024-02-29T12:00:00.5+02:30"], "2024-02-29T09:30:01"),
        ("YYYY-MM-DD HH:mm:ss", ["2024-02-29T12:00:00,499-0230"], "2024-02-29T14:30:00"),
        ("YYYY-Www", ["2020-W53"], "2020-12-28T00:00:00"),
        ("YYYY-Www", ["2021-W01"], "2021-01-04T00:00:00"),
        ("YYYYQq", ["2020q4"], "2020-10-01T00:00:00"),
        ("Mon-YY", ["Jan-49"], "1949-01-01T00:00:00"),
        ("Mon-YY", ["DEC-39"], "2039-12-01T00:00:00"),
        ("DD Mon YYYY", ["3 September 2021"], "2021-09-03T00:00:00"),
        ("DD Mon YYYY", ["3 Sept 2021"], "2021-09-03T00:00:00"),
        ("YYYY", [1885], "1885-01-01T00:00:00"),
        ("YYYYMMDD", [20240229.0], "2024-02-29T00:00:00"),
        ("excel", [45200], "2023-10-01T00:00:00"),
        ("excel", ["45200.0416666667"], "2023-10-01T01:00:00"),
        ("epoch ms", ["1709251200499"], "2024-03-01T00:00:00"),
        ("epoch ms", ["1709251200500"], "2024-03-01T00:00:01"),
        ("epoch us", ["1709251200000000"], "2024-03-01T00:00:00"),
    ],
)
def test_reads_these_texts_as_these_times(pattern: str, texts: list[str], expected: str) -> None:
    times = TimeFormat(pattern).read(texts)

    assert times.astype("datetime64[s]").astype(str).tolist() == [expected]


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("DD/MM/YYYY", "31/04/2024"),
        ("DD/MM/YYYY", "29/02/2023"),
        ("DD/MM/YYYY", "01/13/2024"),
        ("DD/MM/YYYY", "2024-01-31"),
        ("DD/MM/YYYY", ""),
        ("YYYY-MM-DD", "2024-01-01 24:01"),
        ("YYYY-MM-DD", "2024-01-01 12:60"),
        ("YYYY-MM-DD", "2024-01-01X12:00"),
        ("YYYY-MM-DD", "0000-01-01"),
        ("YYYY-MM-DD", "2024-01-01T00:00+24:00"),
        ("MM/DD/YYYY HH:mm AM", "03/01/2024 13:00 PM"),
        ("MM/DD/YYYY HH:mm AM", "03/01/2024 01:00"),
        ("MM/DD/YYYY HH:mm", "03/01/2024 01:00 AM"),
        ("YYYY-Www", "2021-W53"),
        ("YYYY-Www", "2021-Q01"),
        ("YYYYQq", "2021Q5"),
        ("YYYYQq", "2021M4"),
        ("DD Mon YYYY", "3 Mai 2021"),
        ("epoch", "soon"),
        ("epoch", "1e18"),
        ("excel", "60"),
    ],
)
def test_a_text_that_is_no_such_time_is_refused_by_row_and_form(pattern: str, text: str) -> None:
    form = TimeFormat(pattern)
    good = form.write(np.array([1_704_067_200]))[0]  # 1 January 2024, a Monday

    with pytest.raises(RejectedError) as refusal:
        form.read([good, text], field="date")

    assert (refusal.value.code, refusal.value.field) == ("bad_time", "date")
    assert f"date: row 2 is {text!r}" in refusal.value.message
    assert pattern in refusal.value.message


@pytest.mark.parametrize(
    ("form", "times", "expected"),
    [
        (TimeFormat("YYYY-MM"), [-315_619_200], ["1960-01"]),
        (TimeFormat("YYYY-MM"), [-315_619_200, -315_532_800], ["1960-01-01", "1960-01-02"]),
        (TimeFormat("YYYY-MM-DD"), [NOON], ["2024-01-31T12:00"]),
        (TimeFormat("DD/MM/YYYY"), [NOON + 1], ["31/01/2024 12:00:01"]),
        (TimeFormat("DD/MM/YYYY HH:mm"), [NOON], ["31/01/2024 12:00"]),
        (TimeFormat("DD/MM/YYYY HH:mm"), [NOON, NOON + 30], ["31/01/2024 12:00:00", "31/01/2024 12:00:30"]),
        (TimeFormat("YYYYMMDDHH"), [NOON + 60], ["202401311201"]),
        (TimeFormat("D-MON-YY H:mm AM"), [NOON + 46_800], ["1-FEB-24 1:00 AM"]),
        (TimeFormat("YYYY-MM-DD HH:mm", "Asia/Kolkata"), [NOON], ["2024-01-31 17:30"]),
        (TimeFormat("YYYY-MM-DDTHH:mm:ss+00:00", "Asia/Kolkata"), [NOON], ["2024-01-31T17:30:00+05:30"]),
        (TimeFormat("YYYY-MM-DDTHH:mm:ss+00:00", offset_seconds=-9_000), [NOON], ["2024-01-31T09:30:00-02:30"]),
        (TimeFormat("YYYY-MM-DDTHH:mm:ssZ", "Asia/Kolkata"), [NOON], ["2024-01-31T12:00:00Z"]),
        (TimeFormat("epoch"), [NOON], [NOON]),
        (TimeFormat("epoch", is_float=True), [NOON], [float(NOON)]),
        (TimeFormat("epoch ms"), [NOON], [NOON * 1000]),
        (TimeFormat("excel"), [NOON - 43_200], [45_322]),
        (TimeFormat("excel"), [NOON], [45_322.5]),
        (TimeFormat("YYYY-Www"), [NOON - 43_200], ["2024-01-31"]),
        (TimeFormat("YYYY-Www"), [1_706_486_400], ["2024-W05"]),
        (TimeFormat("YYYY-MM-DD HH:mm:ss"), [], []),
    ],
)
def test_writes_times_as_the_file_does(form: TimeFormat, times: list[int], expected: list[str | float]) -> None:
    written = form.write(np.array(times, np.int64))

    assert written == expected
    assert [type(value) for value in written] == [type(value) for value in expected]


def test_both_passes_of_the_repeated_hour_are_written_with_their_offsets() -> None:
    times = 1_729_983_600 + 3600 * np.arange(4)  # from 2024-10-26T23:00Z

    written = TimeFormat("YYYY-MM-DD HH:mm+00:00", "Europe/Berlin").write(times)

    assert written == [
        "2024-10-27 01:00+02:00",
        "2024-10-27 02:00+02:00",
        "2024-10-27 02:00+01:00",
        "2024-10-27 03:00+01:00",
    ]


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("DD/MM/YYYY HH:mm", "DD/MM/YYYY HH:mm"),
        ("dd/mm/yyyy hh:mm:ss", "DD/MM/YYYY HH:mm:ss"),
        ("MM/DD/YYYY HH:MM", "MM/DD/YYYY HH:mm"),
        ("%d.%m.%Y %H:%M:%S", "DD.MM.YYYY HH:mm:ss"),
        ("%m/%d/%y %I:%M %p", "MM/DD/YY HH:mm AM"),
        ("%Y-%m-%dT%H:%M:%S.%f%z", "YYYY-MM-DDTHH:mm:ss.SSSSSS+0000"),
        ("%YM%m", "YYYY[M]MM"),
        ("%G-W%V", "YYYY-Www"),
        ("%b %Y", "Mon YYYY"),
        ("YYYY-MM-DDTHH:mm:ssZ", "YYYY-MM-DDTHH:mm:ssZ"),
        (" Epoch MS ", "epoch ms"),
        ("epoch_us", "epoch us"),
        ("EXCEL", "excel"),
        ("year", "YYYY"),
    ],
)
def test_a_setting_is_a_pattern_a_strptime_format_or_a_word(text: str, pattern: str) -> None:
    form = TimeFormat.of_setting(text, zone="Europe/Berlin")

    assert form == TimeFormat(pattern, "Europe/Berlin")
    assert TimeFormat.of_setting(form.pattern, zone="Europe/Berlin") == form


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("soon", "unknown part at 'oon'"),
        ("HH:mm", "no year"),
        ("YYYY[[M]MM", "unknown part at '[[M]MM'"),
        ("YYYY[-]MM", "unknown part at '[-]MM'"),
        ("DD/MM", "no year"),
        ("YYYY-MM-DD-DD", "two parts for the day"),
        ("YYYY-DD", "a day and no month"),
        ("YYYY-MM HH:mm", "a time of day and no day"),
        ("%Y-%q", "the unknown code '%q'"),
        ("YYYY" * 20, "longer than 60"),
        ("YYYY YY", "two parts for the year"),
    ],
)
def test_an_unusable_setting_is_refused_by_its_name(text: str, words: str) -> None:
    with pytest.raises(RejectedError) as refusal:
        TimeFormat.of_setting(text)

    assert (refusal.value.code, refusal.value.field) == ("bad_setting", "TIME_FORMAT")
    assert words in refusal.value.message


@pytest.mark.parametrize(
    "form",
    [
        TimeFormat("DD/MM/YY HH:mm", "Europe/Berlin", first_year=1960),
        TimeFormat("epoch ms", is_float=True),
        TimeFormat("YYYY-MM-DD HH:mm+00:00", offset_seconds=-3600),
    ],
)
def test_a_format_is_stored_as_json(form: TimeFormat) -> None:
    assert TimeFormat.from_dict(form.to_dict()) == form


@pytest.mark.parametrize(
    "change",
    [
        {"pattern": "soon"},
        {"pattern": 5},
        {"zone": "Europe/Nowhere"},
        {"zone": 1},
        {"offset_seconds": 86_400},
        {"offset_seconds": True},
        {"first_year": 0},
        {"is_float": "no"},
    ],
)
def test_a_stored_format_that_is_not_valid_is_a_bad_recipe(change: dict[str, object]) -> None:
    stored = TimeFormat("YYYY-MM-DD").to_dict()

    with pytest.raises(RejectedError) as refusal:
        TimeFormat.from_dict({**stored, **change})
    assert refusal.value.code == "bad_recipe"
    with pytest.raises(RejectedError) as refusal:
        TimeFormat.from_dict({name: value for name, value in stored.items() if name not in change})
    assert refusal.value.code == "bad_recipe"


def test_only_a_form_that_tells_a_repeated_hour_apart_has_an_offset() -> None:
    with_offset = [TimeFormat("YYYY-MM-DD HH:mmZ"), TimeFormat("epoch"), TimeFormat("DD/MM/YYYY HH:mm +0000")]
    without = [TimeFormat("YYYY-MM-DD HH:mm"), TimeFormat("excel"), TimeFormat("YYYY-MM")]

    assert [form.has_offset for form in with_offset + without] == [True] * 3 + [False] * 3


def test_the_package_needs_neither_pandas_nor_arrow() -> None:
    code = (
        "import sys; from flts.times import TimeFormat\n"
        "TimeFormat('DD/MM/YYYY HH:mm', 'Europe/Berlin').read(['01/02/2024 00:00'])\n"
        "sys.exit(any(name in sys.modules for name in ('pandas', 'pyarrow')))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
