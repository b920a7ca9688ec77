"""Files that write their times in different forms."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np

from flts.forecasting.series import FloatArray
from tests.case_files.case import Case, Moments, Read, Refused, cells, csv_of, days, every, hours, seconds, texts, wave

HOURS = hours(400)
HOURLY = wave(400)
DAYS = days(400)
DAILY = wave(400, season=7, seed=2)
EXCEL_DAY_0 = datetime(1899, 12, 30)  # noqa: DTZ001 - files have no zone


def time_cases() -> Iterator[Case]:
    """Yield files with all forms of times."""
    yield _hourly("column-ds", texts(HOURS), time="ds")
    yield _hourly("column-datum", texts(HOURS, "%d.%m.%Y %H:%M"), time="Datum")
    yield _hourly("unknown-name-of-times", texts(HOURS), time="abgelesen", words=("column abgelesen (TIME_COLUMN)",))
    yield _hourly("day-first", texts(HOURS, "%d.%m.%Y %H:%M:%S"), time="Date Time")
    yield _hourly("month-first", texts(HOURS, "%m/%d/%Y %H:%M"), time="timestamp")
    yield _hourly("twelve-hours", texts(HOURS, "%m/%d/%Y %I:%M %p"), time="timestamp")
    yield _hourly("twelve-hours-short", [_short_twelve(when) for when in HOURS], time="Date/Time")
    yield _hourly("day-and-month-name", texts(HOURS, "%d-%b-%Y %H:%M"), time="when")
    yield _hourly(
        "short-years", texts(HOURS, "%d.%m.%y %H:%M"), words=("years of two digits are read as 2023 to 2023",)
    )
    yield _hourly("iso-with-z", texts(HOURS, "%Y-%m-%dT%H:%M:%SZ"))
    yield _hourly("iso-with-offset", [f"{when + timedelta(hours=2):%Y-%m-%dT%H:%M:%S}+02:00" for when in HOURS])
    yield _hourly("epoch-seconds", [str(second) for second in seconds(HOURS)])
    yield _hourly(
        "epoch-milliseconds", [f"{second}000" for second in seconds(HOURS)], words=("milliseconds since 1970",)
    )
    yield _hourly("epoch-microseconds", [f"{second}000000" for second in seconds(HOURS)], words=("microseconds since",))
    yield _hourly("compact-minutes", texts(HOURS, "%Y%m%d%H%M"))
    yield _hourly("excel-serial-hours", [f"{(when - EXCEL_DAY_0) / timedelta(days=1):.7f}" for when in HOURS])
    yield _hourly("twenty-four-hours", [_end_of_day(when) for when in HOURS])
    yield _hourly("whole-days-shorter", [f"{when:%Y-%m-%d}" if when.hour == 0 else str(when) for when in HOURS])
    yield _date_and_clock()
    yield _date_and_hour()
    yield from _parts()
    yield _daily("compact-days", texts(DAYS, "%Y%m%d"))
    yield _daily(
        "excel-serial-days",
        [str((when - EXCEL_DAY_0).days) for when in DAYS],
        words=("is read as an Excel day number", "13 June 2022", "TIME_FORMAT=epoch"),
    )
    yield _years()
    yield from _ambiguous()
    yield from _two_time_columns()
    yield from _summer_time()


def _hourly(name: str, times: list[str], *, time: str = "time", words: tuple[str, ...] = ()) -> Case:
    text = csv_of(times, {"flow": cells(HOURLY)}, time=time)
    return Case(name, text.encode(), Read("1 h", seconds(HOURS), {"flow": HOURLY}, words=words))


def _daily(name: str, times: list[str], *, words: tuple[str, ...] = ()) -> Case:
    text = csv_of(times, {"visits": cells(DAILY)}, time="date")
    return Case(name, text.encode(), Read("1 day", seconds(DAYS), {"visits": DAILY}, words=words))


def _short_twelve(when: datetime) -> str:
    return f"{when.month}/{when.day}/{when.year} {(when.hour - 1) % 12 + 1}:{when:%M:%S} {when:%p}"


def _end_of_day(when: datetime) -> str:
    return f"{when:%d.%m.%Y %H:%M}" if when.hour else f"{when - timedelta(days=1):%d.%m.%Y} 24:00"


def _date_and_clock() -> Case:
    columns = {"Time": texts(HOURS, "%H:%M:%S"), "NOx": cells(HOURLY), "T": cells(HOURLY + 1)}
    text = csv_of(texts(HOURS, "%d/%m/%Y"), columns, time="Date")
    right = Read("1 h", seconds(HOURS), {"NOx": HOURLY, "T": np.round(HOURLY + 1, 2)}, words=("Date", "Time"))
    return Case("date-and-clock", text.encode(), right)


def _date_and_hour() -> Case:
    text = csv_of(texts(HOURS, "%Y-%m-%d"), {"hour": texts(HOURS, "%-H"), "flow": cells(HOURLY)}, time="date")
    right = Read("1 h", seconds(HOURS), {"flow": HOURLY}, words=("date", "hour"))
    return Case("date-and-hour", text.encode(), right)


def _parts() -> Iterator[Case]:
    """Yield files whose times are in columns of years, months, days, hours and minutes."""
    columns = {"month": "%-m", "day": "%-d", "hour": "%-H"}
    parts = {name: texts(HOURS, form) for name, form in columns.items()}
    text = csv_of(texts(HOURS, "%Y"), {**parts, "flow": cells(HOURLY)}, time="year")
    right = Read("1 h", seconds(HOURS), {"flow": HOURLY}, words=("column year month day hour (TIME_COLUMN)",))
    yield Case("year-month-day-hour", text.encode(), right)
    moments = every(timedelta(minutes=5), 400, HOURS[0])
    flow = wave(len(moments), season=288, seed=9)
    columns = {"Mo": "%m", "Dy": "%d", "Hr": "%H", "Min": "%-M"}
    parts = {name: texts(moments, form) for name, form in columns.items()}
    text = csv_of(texts(moments, "%Y"), {**parts, "flow": cells(flow)}, time="YYYY")
    yield Case("year-to-minute", text.encode(), Read("5 min", seconds(moments), {"flow": flow}))
    moments = [datetime(1990 + at // 12, at % 12 + 1, 1) for at in range(144)]  # noqa: DTZ001 - files have no zone
    flow = wave(len(moments), season=12, seed=10)
    for name, form in (("year-and-month", "%-m"), ("year-and-month-name", "%B")):
        text = csv_of(texts(moments, "%Y"), {"month": texts(moments, form), "flow": cells(flow)}, time="year")
        yield Case(name, text.encode(), Read("1 month, first day", seconds(moments), {"flow": flow}))
    quarters = moments[::3]
    numbers = [str(when.month // 3 + 1) for when in quarters]
    text = csv_of(texts(quarters, "%Y"), {"quarter": numbers, "flow": cells(flow[::3])}, time="year")
    yield Case("year-and-quarter", text.encode(), Read("3 months, first day", seconds(quarters), {"flow": flow[::3]}))
    columns = {"j": "%Y", "m": "%-m", "t": "%-d", "s": "%-H"}
    parts = {name: texts(HOURS, form) for name, form in columns.items()}
    text = csv_of([str(at) for at in range(1, len(HOURS) + 1)], {**parts, "flow": cells(HOURLY)}, time="row")
    values = {"row": np.arange(1.0, len(HOURS) + 1), "flow": HOURLY}
    right = Read("1 h", seconds(HOURS), values)
    yield Case("parts-of-times-given", text.encode(), right, settings={"TIME_COLUMN": "j,m,t,s"})


def _years() -> Case:
    moments = [datetime(year, 1, 1) for year in range(1901, 1981)]  # noqa: DTZ001 - files have no zone
    values = np.round(wave(80, season=11, level=320, seed=6))
    text = csv_of(texts(moments, "%Y"), {"water": cells(values, 0)}, time="date")
    right = Read(
        "1 year, first day",
        seconds(moments),
        {"water": values},
        words=("numbers are read as years; TIME_FORMAT=epoch decides otherwise",),
    )
    return Case("year-numbers", text.encode(), right)


def _ambiguous() -> Iterator[Case]:
    """Yield the first twelve days of January, which may be the first days of twelve months."""
    moments = days(12, datetime(2024, 1, 1))  # noqa: DTZ001 - files have no zone
    values = wave(12, season=6)
    text = csv_of(texts(moments, "%d/%m/%Y"), {"flow": cells(values)}, time="date").encode()
    words = ("2 January", "1 February", "TIME_FORMAT=DD/MM/YYYY", "TIME_FORMAT=MM/DD/YYYY")
    yield Case("day-or-month", text, Refused("ambiguous_time", "date", words))
    proof = days(60, moments[0])
    values = wave(60, season=7)
    text = csv_of(texts(proof, "%d/%m/%Y"), {"flow": cells(values)}, time="date").encode()
    settings = {"TIME_FORMAT": "DD/MM/YYYY"}
    yield Case("time-format-given", text, Read("1 day", seconds(proof), {"flow": values}), settings=settings)
    numbers = [str(at) for at in range(50_000_000, 50_000_000 + 60 * 300, 300)]
    text = csv_of(numbers, {"flow": cells(values)}, time="timestamp").encode()
    words = ("seconds since 1970", "Excel day number", "year", "TIME_FORMAT")
    yield Case("small-integers", text, Refused("ambiguous_time", "timestamp", words))


def _two_time_columns() -> Iterator[Case]:
    later = [when + timedelta(days=3) for when in HOURS]
    columns = {"delivered": texts(later), "flow": cells(HOURLY)}
    text = csv_of(texts(HOURS), columns, time="ordered").encode()
    words = ("TIME_COLUMN=ordered", "TIME_COLUMN=delivered")
    yield Case("two-time-columns", text, Refused("two_time_columns", "delivered", words))
    right = Read("1 h", seconds(later), {"flow": HOURLY}, words=("column delivered (TIME_COLUMN)",))
    yield Case("two-time-columns-one-given", text, right, settings={"TIME_COLUMN": "delivered"})


def _summer_time() -> Iterator[Case]:
    zone = {"TIME_ZONE": "Europe/Berlin"}
    autumn = _local("Europe/Berlin", datetime(2023, 10, 2), 840)  # noqa: DTZ001 - a time of the local clock
    text, values = _written(autumn)
    words = ("occurs twice", "end of summer time", "TIME_ZONE=Europe/")
    yield Case("local-autumn", text, Refused("repeated_local_hour", "TIME_ZONE", words))
    yield Case("local-autumn-zone", text, Read("1 h", seconds(autumn), {"flow": values}), settings=zone)
    quarters = _local("America/New_York", datetime(2023, 10, 28), 1400, minutes=15)  # noqa: DTZ001
    text, values = _written(quarters)
    words = ("occurs twice", "end of summer time", "TIME_ZONE=America/New_York")
    yield Case("local-autumn-quarters", text, Refused("repeated_local_hour", "TIME_ZONE", words))
    right = Read("15 min", seconds(quarters), {"flow": values}, silent=("missing rows",))
    yield Case("local-autumn-quarters-zone", text, right, settings={"TIME_ZONE": "America/New_York"})
    spring = _local("Europe/Berlin", datetime(2023, 3, 6), 840)  # noqa: DTZ001 - a time of the local clock
    text, values = _written(spring)
    as_utc = seconds([when.replace(tzinfo=UTC) for when in spring])
    said = Read("1 h", as_utc, {"flow": values}, words=("beginning of summer time", "TIME_ZONE=Europe/"))
    yield Case("local-spring", text, said)
    right = Read("1 h", seconds(spring), {"flow": values}, silent=("missing rows",))
    yield Case("local-spring-zone", text, right, settings=zone)
    with_offsets = csv_of([when.isoformat() for when in spring], {"flow": cells(values)}).encode()
    yield Case("offsets-that-change", with_offsets, right)
    days_there = [day.replace(tzinfo=ZoneInfo("Europe/Berlin")) for day in DAYS]
    text = csv_of(texts(DAYS, "%Y-%m-%d"), {"visits": cells(DAILY)}, time="date").encode()
    right = Read("1 day", seconds(days_there), {"visits": DAILY}, silent=("missing rows", "off the step"))
    yield Case("local-days", text, right, settings=zone)


def _local(zone: str, start: datetime, rows: int, *, minutes: int = 60) -> list[datetime]:
    """Return times that are evenly spaced, on the clock of a zone."""
    first = start.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    return [(first + timedelta(minutes=minutes * at)).astimezone(ZoneInfo(zone)) for at in range(rows)]


def _written(moments: Moments) -> tuple[bytes, FloatArray]:
    """Return a file with what the clock showed, and its values."""
    values = wave(len(moments), seed=7)
    return csv_of(texts(moments), {"flow": cells(values)}).encode(), values
