"""Files whose rows follow a calendar: months, business days, opening hours, the clock of a time zone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np


@dataclass(frozen=True)
class CalendarFile:
    """A kind of file, and what its rows have in common."""

    name: str
    step: str
    """Step as the report shows it."""
    rows: int
    moments: Callable[[], list[datetime]]
    season: Callable[[datetime], float]
    """Share of the season at a time. It follows the calendar, so that a missing row does not move it."""
    contains: Callable[[datetime], bool]
    """Whether the calendar contains a time."""
    settings: dict[str, str] = field(default_factory=dict)
    """Settings that the file needs."""

    def write(self, folder: Path) -> Path:
        """Write the file: a trend, a clear season and a little noise, so that the closed form passes the gate."""
        moments = self.moments()
        at = np.arange(len(moments))
        season = np.array([self.season(when) for when in moments])
        noise = np.random.default_rng(11).normal(0, 1.5, len(moments))
        values = 200 + 0.2 * at + 30 * np.sin(2 * np.pi * season) + noise
        lines = [
            "date,sales",
            *(f"{when:%Y-%m-%dT%H:%M:%S},{value:.2f}" for when, value in zip(moments, values, strict=True)),
        ]
        path = folder / f"{self.name}.csv"
        path.write_text("\n".join(lines) + "\n")
        return path


BERLIN = ZoneInfo("Europe/Berlin")


def _months() -> list[datetime]:
    return [datetime(2012 + at // 12, at % 12 + 1, 1, tzinfo=UTC) for at in range(132)]


def _business_days() -> list[datetime]:
    days = [datetime(2022, 1, 3, tzinfo=UTC) + timedelta(days=at) for at in range(560)]
    holidays = {(2022, 4, 15), (2022, 12, 26), (2023, 1, 2), (2023, 4, 10)}
    return [day for day in days if day.weekday() < 5 and (day.year, day.month, day.day) not in holidays]


def _opening_hours() -> list[datetime]:
    hours = [datetime(2024, 3, 1, tzinfo=UTC) + timedelta(hours=at) for at in range(24 * 60)]
    return [hour for hour in hours if 8 <= hour.hour <= 17]


def _berlin_hours() -> list[datetime]:
    """Return every hour from before the end of summer time until after its next start, on the clock of Berlin."""
    first = datetime(2023, 10, 23, tzinfo=BERLIN).astimezone(UTC)
    return [(first + timedelta(hours=at)).astimezone(BERLIN) for at in range(24 * 165)]


MONTHS = CalendarFile(
    "months",
    "1 month, first day",
    132,
    _months,
    lambda when: when.month / 12,
    lambda when: (when.day, when.hour) == (1, 0),
)
BUSINESS_DAYS = CalendarFile(
    "business-days",
    "1 business day",
    396,
    _business_days,
    lambda when: when.weekday() / 5,
    lambda when: when.weekday() < 5 and when.hour == 0,
)
OPENING_HOURS = CalendarFile(
    "opening-hours",
    "1 h, 08:00 to 17:00",
    600,
    _opening_hours,
    lambda when: (when.hour - 8) / 10,
    lambda when: 8 <= when.hour <= 17,
)
BERLIN_HOURS = CalendarFile(
    "berlin-hours",
    "1 h",
    3960,
    _berlin_hours,
    lambda when: when.hour / 24,
    lambda _: True,
    settings={"TIME_ZONE": "Europe/Berlin"},
)
