from __future__ import annotations

import numpy as np
import pytest

from flts.forecasting.grid import FixedGrid
from flts.forecasting.seasons import best_season, seasons_within

DAY, WEEK = 24, 168


def week(weeks: int, weekend: float) -> np.ndarray:
    """Return hours of a day's wave; on two days of the week all values are lower."""
    hours = np.arange(weeks * WEEK)
    wave = np.sin(2 * np.pi * hours / DAY) - weekend * (hours // DAY % 7 >= 5)
    return (wave + 0.01 * np.random.default_rng(0).standard_normal(len(hours)))[:, None]


def test_the_seasons_are_those_that_the_rows_contain_twice() -> None:
    assert [seasons_within(FixedGrid(3_600), rows) for rows in (47, 48, 336)] == [(), (DAY,), (DAY, WEEK)]


@pytest.mark.parametrize(("weekend", "season"), [(0.0, DAY), (1.0, WEEK)])
def test_the_best_season_has_the_least_error_over_the_horizon(weekend: float, season: int) -> None:
    values = week(8, weekend)
    values[:: WEEK + 1] = np.nan

    assert best_season(values, np.zeros(len(values), int), (DAY, WEEK), horizon=48, first_row=6 * WEEK) == season


def test_the_errors_by_hand() -> None:
    values = np.array([0.0, 1.0, 5.0, 2.0, 1.0, 6.0])[:, None]
    starts = np.zeros(6, dtype=np.int64)

    # From row 4 on, season 2 repeats rows 2 and 3 one season before: errors 4, 4. Season 3 repeats rows 1 and 2: 0, 1.
    assert best_season(values, starts, (2, 3), horizon=2, first_row=4) == 3
    # At four steps season 3 also repeats rows two seasons before, of which there is none.
    assert best_season(values, starts, (2, 3), horizon=4, first_row=4) == 2
    assert best_season(values, np.full(6, 4), (2, 3), horizon=1, first_row=4) is None
