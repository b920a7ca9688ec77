"""Files whose rows follow a calendar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import islice

import numpy as np

from tests.case_files.case import Case, Moments, Read, cells, csv_of, days, hours, seconds, texts, wave

START = datetime(2011, 1, 1)  # noqa: DTZ001 - files have no zone


def calendar_cases() -> Iterator[Case]:
    """Yield files of months, quarters, years, weeks, business days and opening hours."""
    yield _case("first-of-month", months(144), "1 month, first day", season=12)
    yield _case("last-of-month", _month_ends(144, 1), "1 month, last day", season=12)
    yield _case("fifteenth-of-month", months(120, day=15), "1 month, day 15", season=12)
    yield _case("first-of-quarter", months(96, step=3), "3 months, first day", season=4)
    yield _case("last-of-quarter", _month_ends(88, 3), "3 months, last day", season=4)
    yield _case("first-of-year", months(80, step=12, year=1931), "1 year, first day", season=11)
    yield _case("mondays", [START + timedelta(days=2 + 7 * at) for at in range(180)], "1 week", season=52)
    yield _case("half-hours", [START + timedelta(minutes=30 * at) for at in range(500)], "30 min", "%Y-%m-%d %H:%M")
    yield _case("days-at-six", days(400, datetime(2022, 6, 13, 6)), "1 day", "%Y-%m-%d %H:%M")  # noqa: DTZ001
    yield _year_month()
    yield _month_names()
    yield _quarter_names()
    yield _weeks()
    holidays = {"2022-08-15", "2022-12-26", "2023-04-10"}
    working = [day for day in days(700) if day.weekday() < 5 and f"{day:%Y-%m-%d}" not in holidays]
    yield _case("business-days", working, "1 business day", "%Y-%m-%d", season=5)
    closing = [day.replace(hour=17, minute=30) for day in working]
    yield _case("business-days-at-a-time", closing, "1 business day at 17:30", "%Y-%m-%d %H:%M", season=5)
    open_days = [day for day in days(560) if day.weekday() < 6 and f"{day:%Y-%m-%d}" not in holidays]
    yield _case("closed-on-sundays", open_days, "1 day, Monday to Saturday", "%Y-%m-%d", season=6)
    yield _hours("nine-to-eighteen", lambda when: 9 <= when.hour <= 18, "1 h, 09:00 to 18:00")
    yield _hours(
        "shop-hours", lambda when: when.weekday() < 6 and 8 <= when.hour <= 19, "1 h, Monday to Saturday 08:00 to 19:00"
    )
    yield _hours(
        "two-shifts",
        lambda when: 6 <= when.hour <= 10 or 14 <= when.hour <= 20,
        "1 h, 06:00 to 10:00 and 14:00 to 20:00",
    )


def months(rows: int, *, step: int = 1, day: int = 1, year: int = 2011) -> list[datetime]:
    counts = (year * 12 + at * step for at in range(rows))
    return [datetime(count // 12, count % 12 + 1, day) for count in counts]  # noqa: DTZ001 - files have no zone


def _month_ends(rows: int, step: int) -> list[datetime]:
    """Return the last days of months; a month ends a day before the next one begins."""
    starts = months(rows * step + 1)
    return [starts[at + step] - timedelta(days=1) for at in range(0, rows * step, step)]


def _case(
    name: str, moments: Moments, step: str, form: str = "%Y-%m-%d", *, season: int = 24, words: tuple[str, ...] = ()
) -> Case:
    values = wave(len(moments), season=season, level=900, spread=120, seed=len(name), decimals=1)
    text = csv_of(texts(moments, form), {"turnover": cells(values, 1)}, time="date")
    return Case(name, text.encode(), Read(step, seconds(moments), {"turnover": values}, words=words))


def _hours(name: str, is_open: Callable[[datetime], bool], step: str) -> Case:
    moments = list(islice(filter(is_open, hours(24 * 90)), 800))
    season = len({when.hour for when in moments})
    return _case(name, moments, step, "%Y-%m-%d %H:%M:%S", season=season)


def _year_month() -> Case:
    moments = months(132, year=1998)
    values = np.round(wave(132, season=12, level=400, spread=90, seed=3))
    text = csv_of([f'"{when:%Y-%m}"' for when in moments], {'"Guests"': cells(values, 0)}, time='"Month"')
    right = Read("1 month, first day", seconds(moments), {"Guests": values}, words=("column Month (TIME_COLUMN)",))
    return Case("year-and-month-quoted", text.encode(), right)


def _month_names() -> Case:
    moments = months(120)
    values = wave(120, season=12, seed=4)
    text = csv_of(texts(moments, "%b %Y"), {"rain": cells(values)}, time="Period")
    return Case("month-names", text.encode(), Read("1 month, first day", seconds(moments), {"rain": values}))


def _quarter_names() -> Case:
    moments = months(72, step=3)
    values = wave(72, season=4, seed=5)
    names = [f"{when.year}Q{when.month // 3 + 1}" for when in moments]
    text = csv_of(names, {"output": cells(values)}, time="quarter")
    return Case("quarter-names", text.encode(), Read("3 months, first day", seconds(moments), {"output": values}))


def _weeks() -> Case:
    mondays = [datetime(2019, 1, 7) + timedelta(weeks=at) for at in range(160)]  # noqa: DTZ001 - files have no zone
    values = wave(160, season=52, seed=6)
    names = ["{}-W{:02d}".format(*when.isocalendar()) for when in mondays]
    text = csv_of(names, {"output": cells(values)}, time="week")
    return Case("week-numbers", text.encode(), Read("1 week", seconds(mondays), {"output": values}))
