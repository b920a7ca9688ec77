from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flts.forecasting.grid import BUSINESS_DAYS, DAY, HOUR, WEEK, FixedGrid, Grid, MonthGrid, WeekGrid
from flts.forecasting.places import BELOW_ONE, clock_turns, season_places

BERLIN = "Europe/Berlin"
BUSINESS = WeekGrid(DAY, tuple(((0, 0),) if day in BUSINESS_DAYS else () for day in range(7)))
OPEN = WeekGrid(HOUR, tuple(((9 * HOUR, 17 * HOUR),) if day < 6 else () for day in range(7)), BERLIN)
EVERY_DAY = WeekGrid(DAY, (((0, 0),),) * 7, BERLIN)
EVERY_WEEK = WeekGrid(DAY, (((0, 0),), (), (), (), (), (), ()), BERLIN)
SEASONS: list[tuple[Grid, int]] = [
    (FixedGrid(HOUR), 24),
    (FixedGrid(HOUR), 168),
    (FixedGrid(HOUR, BERLIN), 24),
    (FixedGrid(HOUR, BERLIN), 11),
    (FixedGrid(900, "Asia/Kathmandu"), 96),
    (FixedGrid(DAY), 7),
    (MonthGrid(1), 12),
    (MonthGrid(1, day=31, zone=BERLIN), 12),
    (MonthGrid(3, phase=1), 4),
    (MonthGrid(12), 5),
    (BUSINESS, 5),
    (OPEN, 9),
    (OPEN, 54),
    (EVERY_DAY, 7),
]


def seconds(text: str) -> int:
    return int(np.datetime64(text, "s").astype(int))


def places_at(grid: Grid, season: int, *texts: str) -> list[int]:
    times = np.array([seconds(text) for text in texts])
    places: list[int] = season_places(grid, times, (season,))[:, 0].tolist()
    return places


@given(st.sampled_from(SEASONS), st.integers(-20_000, 20_000))
def test_neighbouring_rows_have_neighbouring_places_away_from_clock_changes(
    season: tuple[Grid, int], first: int
) -> None:
    grid, rows = season
    start = grid.split(np.array([seconds("2021-01-04")]))[0][0]
    times = grid.at(start + first + np.arange(3 * rows))

    places = season_places(grid, times, (rows,))[:, 0]

    assert ((places >= 0) & (places < rows)).all()
    clock = grid.clock(times) - times
    steady = np.diff(clock) == 0
    assert ((np.diff(places) - 1)[steady] % rows == 0).all()


@given(st.integers(-10_000, 60_000))
def test_a_year_of_days_or_weeks_has_its_places(first: int) -> None:
    days = FixedGrid(DAY, BERLIN)
    for grid, rows, most in ((days, 365, 365), (EVERY_DAY, 365, 365), (FixedGrid(WEEK), 52, 52), (EVERY_WEEK, 52, 52)):
        times = grid.at(first + np.arange(800))
        places = season_places(grid, times, (rows,))[:, 0]
        assert ((places >= 0) & (places < most)).all()
        steps = np.diff(places) % rows
        assert set(steps.tolist()) <= {0, 1}  # 29 February, and the 53rd row of a year, repeat a place
        assert (steps == 0).sum() <= 800 // rows + 2


def test_the_29th_of_february_has_the_place_of_the_28th() -> None:
    days = FixedGrid(DAY)

    assert places_at(days, 365, "2024-02-28", "2024-02-29", "2024-03-01", "2024-12-31") == [58, 58, 59, 364]
    assert places_at(days, 365, "2023-01-01", "2023-03-01", "2023-12-31") == [0, 59, 364]


def test_hours_follow_the_local_clock_over_both_changes() -> None:
    berlin = FixedGrid(HOUR, BERLIN)

    # On 31 March 2024 the clock goes from 2:00 to 3:00 at 1:00 UTC, on 27 October from 3:00 to 2:00.
    assert places_at(berlin, 24, "2024-03-31T00:00", "2024-03-31T01:00", "2024-03-31T02:00") == [1, 3, 4]
    assert places_at(berlin, 24, "2024-10-27T00:00", "2024-10-27T01:00", "2024-10-27T02:00") == [2, 2, 3]
    assert places_at(berlin, 168, "2024-07-07T22:00", "2024-07-08T21:00") == [0, 23]


def test_months_and_quarters_are_counted_from_january_and_open_slots_from_monday() -> None:
    assert places_at(MonthGrid(1), 12, "2024-01-01", "2024-12-01") == [0, 11]
    assert places_at(MonthGrid(3, phase=1), 4, "2024-02-01", "2024-11-01") == [0, 3]
    assert places_at(BUSINESS, 5, "2024-07-01", "2024-07-05", "2024-07-08") == [0, 4, 0]
    assert places_at(OPEN, 54, "2024-07-01T07:00", "2024-07-02T07:00", "2024-07-06T15:00") == [0, 9, 53]
    assert places_at(OPEN, 9, "2024-07-02T07:00", "2024-07-06T15:00") == [0, 8]


def test_several_seasons_and_any_shape() -> None:
    times = np.array([[0, HOUR], [DAY, DAY + HOUR]])

    places = season_places(FixedGrid(HOUR), times, (24, 168))

    assert places.dtype == np.int64
    assert places.tolist() == [[[0, 72], [1, 73]], [[0, 96], [1, 97]]]
    assert season_places(FixedGrid(HOUR), times, ()).shape == (2, 2, 0)


def test_turns_are_shares_of_the_local_day_week_and_year() -> None:
    times = np.array([seconds("2024-07-01T10:00"), seconds("2023-12-31T23:00"), seconds("2024-12-31T22:59:59")])

    turns = clock_turns(FixedGrid(1, BERLIN), times)

    assert turns[0] == pytest.approx([0.5, 0.5 / 7, (182 + 0.5) / 366])
    assert turns[1].tolist() == [0, 0, 0]
    assert (turns.astype(np.float32) < 1).all()
    assert turns.max() <= BELOW_ONE
