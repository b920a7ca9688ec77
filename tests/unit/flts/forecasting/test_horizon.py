from __future__ import annotations

import pytest

from flts.errors import RejectedError
from flts.forecasting.grid import BUSINESS_DAYS, DAY, HOUR, MINUTE, WEEK, FixedGrid, Grid, MonthGrid, Ranges, WeekGrid
from flts.forecasting.horizon import Horizon, default_steps, find_horizon, steps_of


def _days(days: tuple[int, ...], ranges: Ranges, step: int) -> WeekGrid:
    return WeekGrid(step, tuple(ranges if day in days else () for day in range(7)))


MIDNIGHT: Ranges = ((0, 0),)
OFFICE: Ranges = ((9 * HOUR, 17 * HOUR),)
BUSINESS = _days(BUSINESS_DAYS, MIDNIGHT, DAY)
MONDAYS = _days((0,), MIDNIGHT, DAY)
SIX_DAYS = _days((0, 1, 2, 3, 4, 5), MIDNIGHT, DAY)
EVERY_DAY = _days(tuple(range(7)), ((7 * HOUR, 7 * HOUR),), DAY)
OFFICE_HOURS = _days(BUSINESS_DAYS, OFFICE, HOUR)
SHOP_HOURS = _days(tuple(range(7)), OFFICE, HOUR)


@pytest.mark.parametrize(
    ("setting", "grid", "steps"),
    [
        ("48", FixedGrid(HOUR), 48),
        (48, MonthGrid(1), 48),
        (" 7 ", OFFICE_HOURS, 7),
        ("24h", FixedGrid(HOUR), 24),
        ("24 hours", FixedGrid(10 * MINUTE), 144),
        ("90min", FixedGrid(30 * MINUTE), 3),
        ("14 days", FixedGrid(DAY), 14),
        ("2 Weeks", FixedGrid(6 * HOUR), 56),
        ("13 weeks", FixedGrid(WEEK), 13),
        ("12 months", MonthGrid(1), 12),
        ("8 quarters", MonthGrid(3), 8),
        ("8 quarters", MonthGrid(1), 24),
        ("5 years", MonthGrid(12), 5),
        ("2 years", MonthGrid(3), 8),
        ("10 business days", BUSINESS, 10),
        ("2 weeks", BUSINESS, 10),
        ("14 days", BUSINESS, 10),
        ("13 weeks", MONDAYS, 13),
        ("2 weeks", SIX_DAYS, 12),
        ("3 days", EVERY_DAY, 3),
        ("2 business days", OFFICE_HOURS, 18),
        ("1 week", OFFICE_HOURS, 45),
        ("48h", SHOP_HOURS, 18),
    ],
)
def test_a_horizon_is_a_number_of_steps_or_a_duration(setting: str | int, grid: Grid, steps: int) -> None:
    assert steps_of(setting, grid) == steps


@pytest.mark.parametrize(
    ("setting", "grid", "why"),
    [
        ("0", FixedGrid(HOUR), "at least 1 step"),
        (0, FixedGrid(HOUR), "at least 1 step"),
        ("0 days", FixedGrid(HOUR), "at least 1 step"),
        ("-3", FixedGrid(HOUR), "horizons are written as"),
        ("day", FixedGrid(HOUR), "horizons are written as"),
        ("1.5h", FixedGrid(HOUR), "horizons are written as"),
        ("3 fortnights", FixedGrid(HOUR), "unknown unit 'fortnights'"),
        ("90min", FixedGrid(HOUR), "no whole number of steps of 1 h"),
        ("1 day", FixedGrid(7 * MINUTE), "no whole number of steps of 7 min"),
        ("12h", FixedGrid(DAY), "no whole number of steps of 1 day"),
        ("4 months", MonthGrid(3), "no whole number of steps"),
        ("1 month", FixedGrid(DAY), "give minutes, hours, days or weeks"),
        ("1 year", FixedGrid(WEEK), "give minutes, hours, days or weeks"),
        ("5 business days", FixedGrid(DAY), "give minutes, hours, days or weeks"),
        ("30 days", MonthGrid(1), "give months, quarters or years"),
        ("5 days", BUSINESS, "give weeks or a number of steps"),
        ("5 business days", SIX_DAYS, "give weeks or a number of steps"),
        ("8h", OFFICE_HOURS, "give weeks or a number of steps"),
        ("1 month", BUSINESS, "give weeks or a number of steps"),
    ],
)
def test_a_horizon_that_is_no_whole_number_of_steps_is_refused(setting: str | int, grid: Grid, why: str) -> None:
    with pytest.raises(RejectedError, match=why) as refused:
        steps_of(setting, grid)

    assert (refused.value.code, refused.value.field) == ("bad_setting", "HORIZON")


@pytest.mark.parametrize(
    ("grid", "steps"),
    [
        (FixedGrid(HOUR), 24),
        (FixedGrid(30 * MINUTE), 48),
        (FixedGrid(10 * MINUTE), 144),
        (FixedGrid(2 * MINUTE), 168),
        (FixedGrid(1), 168),
        (FixedGrid(25 * MINUTE), 57),
        (FixedGrid(6 * HOUR), 28),
        (FixedGrid(12 * HOUR), 14),
        (FixedGrid(DAY), 14),
        (FixedGrid(3 * DAY), 9),
        (FixedGrid(WEEK), 13),
        (FixedGrid(2 * WEEK), 26),
        (FixedGrid(30 * DAY), 12),
        (MonthGrid(1), 12),
        (MonthGrid(2), 12),
        (MonthGrid(3), 8),
        (MonthGrid(6), 10),
        (MonthGrid(12), 5),
        (MonthGrid(120), 1),
        (BUSINESS, 10),
        (SIX_DAYS, 12),
        (EVERY_DAY, 14),
        (MONDAYS, 13),
        (OFFICE_HOURS, 9),
        (_days(BUSINESS_DAYS, ((8 * HOUR, 16 * HOUR),), 4 * HOUR), 15),
    ],
)
def test_the_default_horizon_follows_from_the_step(grid: Grid, steps: int) -> None:
    assert default_steps(grid) == steps


def test_the_horizon_is_at_most_a_tenth_of_the_rows_and_at_least_one_step() -> None:
    assert find_horizon("auto", FixedGrid(HOUR), 240) == Horizon(24, 24)
    assert find_horizon("", FixedGrid(HOUR), 239) == Horizon(23, 24)
    assert find_horizon("", FixedGrid(HOUR), 5) == Horizon(1, 24)
    assert find_horizon(1, FixedGrid(HOUR), 5) == Horizon(1, 1)


def test_a_shorter_horizon_than_the_setting_is_explained() -> None:
    assert find_horizon("48h", FixedGrid(HOUR), 100) == Horizon(
        10, 48, "HORIZON=48h is 48 steps, more than a tenth of 100 rows; 10 steps are forecast"
    )
    assert find_horizon(12, MonthGrid(1), 8).note == (
        "HORIZON=12 is 12 steps, more than a tenth of 8 rows; 1 step is forecast"
    )
