"""The grid that the times of training rows show, and the grid that STEP sets."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from flts.errors import RejectedError, SeriesTooShortError
from flts.forecasting.grid import DAY, HOUR, FixedGrid, Grid, IntArray, MonthGrid
from flts.forecasting.observed_grid import find_grid, observed_step, snapped
from flts.forecasting.step_setting import grid_of
from flts.times.numbers import LAST_SECOND
from tests.unit.flts.forecasting.test_grid import GRIDS, ZONED


def utc(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp())  # type: ignore[misc,arg-type]


def rows(grid: Grid, count: int, *, start: int | None = None) -> IntArray:
    return grid.after(np.array([start or utc(2021, 12, 31, 23)]), count)[0]


@pytest.mark.parametrize(("text", "count"), [(text, 200) for text in GRIDS] + [("1 month, last day", 24)])
def test_the_grid_of_complete_rows_is_found(text: str, count: int) -> None:
    grid = GRIDS[text]

    assert find_grid(rows(grid, count)) == grid


@pytest.mark.parametrize("text", ["1 business day", "1 day, Monday to Saturday", "1 h, 08:00 to 17:00", "1 h", "1 day"])
def test_a_tenth_of_lost_rows_changes_no_grid(text: str) -> None:
    times = rows(GRIDS[text], 400)
    kept = np.random.default_rng(3).random(400) > 0.1

    assert find_grid(times[kept]) == GRIDS[text]


def test_lost_months_change_no_grid() -> None:
    times = rows(MonthGrid(1), 60)

    assert find_grid(np.delete(times, [5, 6, 20])) == MonthGrid(1)


def test_the_last_working_day_of_a_month_is_its_last_day() -> None:
    times = np.array([utc(2024, 1, 31), utc(2024, 2, 29), utc(2024, 3, 29), utc(2024, 4, 30), utc(2024, 5, 31)])

    grid = find_grid(times)

    assert grid == MonthGrid(1, day=31)
    assert snapped(times, grid).tolist() == [*times[:2].tolist(), utc(2024, 3, 31), *times[3:].tolist()]


@pytest.mark.parametrize("days", [28, 30])
def test_rows_every_28_or_30_days_are_no_months(days: int) -> None:
    assert find_grid(utc(2021, 1, 1) + days * DAY * np.arange(40)) == FixedGrid(days * DAY)


def test_an_outage_of_a_weekend_closes_no_weekend() -> None:
    times = rows(FixedGrid(DAY), 60, start=utc(2022, 1, 1))
    weekday = (times // DAY + 3) % 7
    lost = (weekday >= 5) & (np.arange(60) < 10)

    assert find_grid(times[~lost]) == FixedGrid(DAY)


def test_a_shop_that_opens_on_four_sundays_a_year_is_closed_on_sundays() -> None:
    times = rows(FixedGrid(DAY), 730, start=utc(2022, 1, 1))
    sunday = (times // DAY + 3) % 7 == 6
    open_sundays = np.flatnonzero(sunday)[[49, 50, 51, 52, 101, 102, 103]]
    sunday[open_sundays] = False

    assert find_grid(times[~sunday]) == GRIDS["1 day, Monday to Saturday"]


def test_a_few_days_show_no_closed_days() -> None:
    times = rows(GRIDS["1 business day"], 8)

    assert find_grid(times) == FixedGrid(DAY)


def test_sparse_times_close_no_hours() -> None:
    times = np.unique(np.random.default_rng(0).integers(0, 30 * DAY, 300) // 60 * 60)

    assert not find_grid(times).is_calendar


def test_the_step_is_the_most_common_difference_and_the_smaller_of_two_equally_common_ones() -> None:
    assert observed_step(np.array([0, 60, 120, 180, 500])) == 60
    assert observed_step(np.array([0, 60, 180])) == 60


def test_one_row_has_no_step() -> None:
    with pytest.raises(SeriesTooShortError) as refused:
        observed_step(np.array([0]))

    assert refused.value.field == "train"


def test_rows_that_vary_around_a_usual_step_have_it() -> None:
    late = np.random.default_rng(1).integers(-20, 21, 300)
    times = 600 * np.arange(300) + late

    assert find_grid(times) == FixedGrid(600)
    assert (np.diff(snapped(times, FixedGrid(600))) == 600).all()


def test_a_step_near_a_usual_one_that_the_times_keep_is_found() -> None:
    assert find_grid(607 * np.arange(300)) == FixedGrid(607)
    assert find_grid(DAY * np.arange(300) + np.arange(300) % 3) == FixedGrid(DAY)


def test_rows_far_from_the_grid_are_not_moved() -> None:
    times = np.array([0, 600, 1200, 1861, 2400])  # 61 s are more than a tenth of the step

    assert snapped(times, FixedGrid(600)).tolist() == times.tolist()


def test_rows_that_would_meet_are_not_moved() -> None:
    times = np.array([0, 600, 603, 1200])

    assert snapped(times, FixedGrid(600)).tolist() == times.tolist()


@pytest.mark.parametrize(
    ("step", "grid"),
    [
        ("1h", FixedGrid(HOUR)),
        ("15 min", FixedGrid(900)),
        ("1 day, every day", FixedGrid(DAY)),
        ("1 h, all hours", FixedGrid(HOUR)),
        ("B", GRIDS["1 business day"]),
        ("1 Business Day", GRIDS["1 business day"]),
        ("1 quarter, last day", MonthGrid(3, phase=0, day=31)),
        ("month, first day", MonthGrid(1)),
        ("1 day, monday to saturday", GRIDS["1 day, Monday to Saturday"]),
    ],
)
def test_step_sets_the_grid(step: str, grid: Grid) -> None:
    assert grid_of(rows(FixedGrid(HOUR), 400, start=utc(2022, 1, 1)), step) == grid


def test_a_step_without_hours_leaves_the_hours_to_the_rows() -> None:
    times = rows(GRIDS["1 h, 08:00 to 17:00"], 200)

    assert grid_of(times, "1 h") == GRIDS["1 h, 08:00 to 17:00"]
    assert grid_of(times, "1 h, all hours") == FixedGrid(HOUR)


@pytest.mark.parametrize(
    "step",
    ["often", "0 h", "1 moon", "1 month, day 32", "1 month, noon", "1 h, 25:00 to 26:00", "1 h, 17:00 to 08:00",
     "1 day, Funday", "7 h, 08:00 to 17:00", "2 business days", "1 month"],
)  # fmt: skip
def test_a_step_that_is_none_is_refused_with_examples(step: str) -> None:
    with pytest.raises(RejectedError) as refused:
        grid_of(rows(FixedGrid(HOUR), 100), step)

    assert (refused.value.code, refused.value.field) == ("bad_setting", "STEP")
    assert step in refused.value.message


def test_rows_of_another_phase_are_moved_only_to_a_phase_that_is_given() -> None:
    times = 5 + 600 * np.arange(4)

    assert snapped(times, FixedGrid(600)).tolist() == times.tolist()
    assert snapped(times, FixedGrid(600), phase=0).tolist() == (600 * np.arange(4)).tolist()


def test_a_row_is_not_moved_into_the_year_10000() -> None:
    times = np.array([0, HOUR, 2 * HOUR, LAST_SECOND])

    assert snapped(times, FixedGrid(HOUR)).tolist() == times.tolist()


@pytest.mark.parametrize("name", ZONED)
def test_the_grid_of_rows_in_a_zone_is_found_though_the_clock_changes(name: str) -> None:
    grid = ZONED[name]
    times = grid.after(np.array([utc(2023, 12, 31)]), 120 if name == "months" else 4_000)[0]

    assert find_grid(times, grid.zone) == grid


def test_days_in_a_zone_are_found_in_winter_alone() -> None:
    times = ZONED["days"].after(np.array([utc(2023, 12, 31)]), 50)[0]

    assert find_grid(times, "Europe/Berlin") == ZONED["days"]


def test_step_in_a_zone_means_the_days_of_the_zone() -> None:
    times = ZONED["hours"].after(np.array([utc(2024, 3, 1, 22)]), 2_000)[0]

    assert grid_of(times, "1 day", "Europe/Berlin") == ZONED["days"]
    assert grid_of(times, "1 h", "Europe/Berlin") == ZONED["hours"]
