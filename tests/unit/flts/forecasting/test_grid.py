"""Grids: times to positions and back, over month ends, leap years and closed days."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flts.errors import RejectedError
from flts.forecasting.grid import DAY, HOUR, WEEK, FixedGrid, Grid, MonthGrid, WeekGrid, grid_from_dict, step_text
from flts.forecasting.step_setting import grid_of

OPEN = ((8 * HOUR, 17 * HOUR),)
SHORT = ((8 * HOUR, 12 * HOUR),)
NIGHT = ((0, 2 * HOUR), (17 * HOUR, 23 * HOUR))
ONCE = ((0, 0),)
GRIDS: dict[str, Grid] = {
    "90 s": FixedGrid(90),
    "10 min": FixedGrid(600),
    "1 h": FixedGrid(HOUR),
    "1 day": FixedGrid(DAY),
    "2 weeks": FixedGrid(2 * WEEK),
    "1 month, first day": MonthGrid(1),
    "1 month, last day": MonthGrid(1, day=31),
    "1 month, day 30 at 06:30": MonthGrid(1, day=30, second=6 * HOUR + 1800),
    "3 months, day 15": MonthGrid(3, phase=1, day=15),
    "1 year, first day": MonthGrid(12, phase=6),
    "2 years, first day": MonthGrid(24, phase=7),
    "1 business day": WeekGrid(DAY, (ONCE,) * 5 + ((), ())),
    "1 day, Monday to Saturday": WeekGrid(DAY, (ONCE,) * 6 + ((),)),
    "1 day, Monday, Wednesday and Friday at 18:00": WeekGrid(
        DAY, tuple(((18 * HOUR, 18 * HOUR),) if day in (0, 2, 4) else () for day in range(7))
    ),
    "1 h, 08:00 to 17:00": WeekGrid(HOUR, (OPEN,) * 7),
    "1 h, 00:00 to 02:00 and 17:00 to 23:00": WeekGrid(HOUR, (NIGHT,) * 7),
    "1 h, Monday to Friday 08:00 to 17:00, Saturday 08:00 to 12:00": WeekGrid(HOUR, (OPEN,) * 5 + (SHORT, ())),
}
SEASONS: dict[str, tuple[int, ...]] = {
    "10 min": (144, 1008),
    "1 h": (24, 168),
    "1 day": (7, 365),
    "1 month, first day": (12,),
    "3 months, day 15": (4,),
    "1 year, first day": (),
    "1 business day": (5,),
    "1 day, Monday to Saturday": (6,),
    "1 h, 08:00 to 17:00": (10, 70),
    "1 h, Monday to Friday 08:00 to 17:00, Saturday 08:00 to 12:00": (55,),
}
each_grid = pytest.mark.parametrize("text", GRIDS)


def utc(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp())  # type: ignore[misc,arg-type]


@each_grid
@settings(max_examples=25, deadline=None)
@given(positions=st.lists(st.integers(-2_000, 60_000), min_size=1, max_size=20))
def test_a_position_is_the_position_of_its_time(text: str, positions: list[int]) -> None:
    grid = GRIDS[text]
    wanted = np.array(positions)

    found, remainders = grid.split(grid.at(wanted))

    np.testing.assert_array_equal(found, wanted)
    assert not remainders.any()


@each_grid
@settings(max_examples=25, deadline=None)
@given(time=st.integers(utc(1890, 1, 1), utc(2150, 1, 1)), steps=st.integers(1, 400))
def test_the_times_after_a_time_are_its_neighbours_and_begin_nowhere_before_it(
    text: str, time: int, steps: int
) -> None:
    grid = GRIDS[text]
    last = np.array([time])

    after = grid.after(last, steps)[0]

    assert after.shape == (steps,)
    assert (np.diff(after) > 0).all()
    assert not grid.breaks(after).any()
    assert (grid.before(after[-1:], steps)[0] == after).all()


@each_grid
def test_a_grid_survives_json_and_is_written_as_step_reads_it(text: str) -> None:
    grid = GRIDS[text]

    assert grid.text == text
    assert grid_from_dict(grid.to_dict()) == grid
    first = grid.at(np.array([1000]))
    read = grid_of(np.concatenate([first, grid.after(first, 30)[0]]), text)
    if isinstance(grid, FixedGrid):
        # A fixed step leaves closed days and hours to the rows; these rows have none.
        assert read.step_seconds == grid.step_seconds
    assert read == grid


@pytest.mark.parametrize(("text", "seasons"), SEASONS.items())
def test_the_calendar_suggests_seasons(text: str, seasons: tuple[int, ...]) -> None:
    assert GRIDS[text].seasons == seasons


def test_months_end_on_their_own_last_days() -> None:
    after = MonthGrid(1, day=31).after(np.array([utc(2024, 1, 31)]), 4)[0]

    assert after.tolist() == [utc(2024, 2, 29), utc(2024, 3, 31), utc(2024, 4, 30), utc(2024, 5, 31)]


def test_a_quarter_of_february_goes_on_in_may() -> None:
    grid = MonthGrid(3, phase=1)

    assert grid.after(np.array([utc(2023, 11, 1)]), 2)[0].tolist() == [utc(2024, 2, 1), utc(2024, 5, 1)]


def test_no_business_day_is_a_saturday_or_a_sunday() -> None:
    grid = GRIDS["1 business day"]

    after = grid.after(np.array([utc(2024, 3, 1)]), 3)[0]  # a Friday

    assert after.tolist() == [utc(2024, 3, 4), utc(2024, 3, 5), utc(2024, 3, 6)]
    weekdays = (grid.at(np.arange(5_000)) // DAY + 3) % 7
    assert weekdays.max() == 4


def test_opening_hours_go_on_in_the_morning() -> None:
    grid = GRIDS["1 h, Monday to Friday 08:00 to 17:00, Saturday 08:00 to 12:00"]

    after = grid.after(np.array([utc(2024, 3, 2, 11)]), 3)[0]  # a Saturday

    assert after.tolist() == [utc(2024, 3, 2, 12), utc(2024, 3, 4, 8), utc(2024, 3, 4, 9)]


def test_a_time_off_the_calendar_has_a_remainder_and_no_neighbour() -> None:
    grid = GRIDS["1 business day"]
    times = np.array([utc(2024, 3, 1), utc(2024, 3, 2), utc(2024, 3, 4)])  # Friday, Saturday, Monday

    positions, remainders = grid.split(times)

    assert np.diff(positions).tolist() == [0, 1]
    assert remainders.tolist() == [0, DAY, 0]
    assert grid.breaks(times).tolist() == [True, True]
    assert grid.breaks(times[[0, 2]]).tolist() == [False]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"kind": "moon"},
        {"kind": "fixed", "step_seconds": 0},
        {"kind": "fixed", "step_seconds": True},
        {"kind": "months", "months": 0, "phase": 0, "day": 1, "second": 0},
        {"kind": "months", "months": 3, "phase": 3, "day": 1, "second": 0},
        {"kind": "months", "months": 1, "phase": 0, "day": 32, "second": 0},
        {"kind": "months", "months": 1, "phase": 0, "day": 1, "second": DAY},
        {"kind": "week", "step_seconds": HOUR, "days": [[]] * 7},
        {"kind": "week", "step_seconds": HOUR, "days": [[[0, HOUR]]] * 6},
        {"kind": "week", "step_seconds": HOUR, "days": [[[0, HOUR + 1]]] * 7},
        {"kind": "week", "step_seconds": HOUR, "days": [[[HOUR, 2 * HOUR], [2 * HOUR, 3 * HOUR]]] * 7},
        {"kind": "week", "step_seconds": DAY, "days": [[[0, 0]]] * 6 + [[[HOUR, HOUR]]]},
        {"kind": "week", "step_seconds": 1, "days": [[[0, 10]]] * 7},
        {"kind": "week", "step_seconds": HOUR, "days": 7},
    ],
)
def test_a_stored_grid_that_makes_no_sense_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(RejectedError) as refused:
        grid_from_dict(values)

    assert (refused.value.code, refused.value.field) == ("bad_recipe", "grid")


@pytest.mark.parametrize(
    ("seconds", "text"), [(1, "1 s"), (90, "90 s"), (60, "1 min"), (7200, "2 h"), (DAY, "1 day"), (WEEK, "1 week")]
)
def test_a_step_is_written_in_its_largest_whole_unit(seconds: int, text: str) -> None:
    assert step_text(seconds) == text


ZONED: dict[str, Grid] = {
    "hours": FixedGrid(HOUR, "Europe/Berlin"),
    "days": WeekGrid(DAY, (ONCE,) * 7, "Europe/Berlin"),
    "six hours": WeekGrid(6 * HOUR, (((0, 18 * HOUR),),) * 7, "America/New_York"),
    "business days": WeekGrid(DAY, (ONCE,) * 5 + ((), ()), "Australia/Lord_Howe"),
    "months": MonthGrid(1, day=31, zone="America/Sao_Paulo"),
    "opening hours": WeekGrid(HOUR, (OPEN,) * 7, "Europe/Berlin"),
}


@pytest.mark.parametrize("name", ZONED)
@settings(max_examples=25, deadline=None)
@given(positions=st.lists(st.integers(-2_000, 20_000), min_size=1, max_size=20))
def test_a_position_is_the_position_of_its_time_in_a_zone(name: str, positions: list[int]) -> None:
    grid = ZONED[name]
    wanted = np.array(positions)

    found, remainders = grid.split(grid.at(wanted))

    np.testing.assert_array_equal(found, wanted)
    assert not remainders.any()
    assert grid_from_dict(grid.to_dict()) == grid


def test_a_day_in_a_zone_begins_at_its_midnight_in_summer_and_winter() -> None:
    days = ZONED["days"].after(np.array([utc(2024, 3, 29, 23)]), 4)[0]  # midnight of Saturday 30 March in Berlin

    assert days.tolist() == [
        utc(2024, 3, 30, 23),  # Sunday, on which the clock is advanced
        utc(2024, 3, 31, 22),
        utc(2024, 4, 1, 22),
        utc(2024, 4, 2, 22),
    ]


def test_hours_in_a_zone_follow_each_other_through_both_clock_changes() -> None:
    grid = ZONED["hours"]
    autumn = grid.after(np.array([utc(2024, 10, 26, 23)]), 4)[0]

    assert np.diff(autumn).tolist() == [HOUR] * 3
    assert (grid.clock(autumn) // HOUR % 24).tolist() == [2, 2, 3, 4]
    spring = grid.after(np.array([utc(2024, 3, 30, 23)]), 3)[0]
    assert (grid.clock(spring) // HOUR % 24).tolist() == [1, 3, 4]


def test_opening_hours_in_a_zone_follow_its_clock() -> None:
    grid = ZONED["opening hours"]
    after = grid.after(np.array([utc(2024, 3, 30, 16)]), 1)[0]  # 17:00 in winter

    assert after.tolist() == [utc(2024, 3, 31, 6)]  # 08:00 in summer


def test_a_zone_that_does_not_exist_is_refused() -> None:
    with pytest.raises(RejectedError) as refused:
        grid_from_dict({"kind": "fixed", "step_seconds": HOUR, "zone": "Europe/Atlantis"})

    assert (refused.value.code, refused.value.field) == ("bad_recipe", "grid")
