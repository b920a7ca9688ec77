from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from flts.forecasting.grid import BUSINESS_DAYS, FixedGrid, Grid, MonthGrid, WeekGrid
from flts.forecasting.holidays import holiday_table

# 25 and 26 December 2024, 1 January 2025; 24 December.
DAYS = {"holiday": (20_082, 20_083, 20_089), "before": (20_081,)}
BUSINESS = WeekGrid(86_400, tuple(((0, 0),) if day in BUSINESS_DAYS else () for day in range(7)))


def at(*texts: str) -> np.ndarray:
    return np.array([int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) for text in texts])


@pytest.mark.parametrize("grid", [FixedGrid(60), FixedGrid(3_600), FixedGrid(86_400), BUSINESS])
def test_rows_of_up_to_a_day_have_the_features_of_their_own_day(grid: Grid) -> None:
    table = holiday_table(DAYS, grid)

    found = table(at("2024-12-24T23:59", "2024-12-25", "2024-12-26T12:00", "2024-12-27", "2025-01-01T08:00"))

    assert found.tolist() == [[0, 1], [1, 0], [1, 0], [0, 0], [1, 0]]


def test_longer_rows_count_the_days_up_to_the_next_row() -> None:
    weeks = holiday_table(DAYS, FixedGrid(7 * 86_400))
    assert weeks(at("2024-12-16", "2024-12-23", "2024-12-30")).tolist() == [[0, 0], [2, 1], [1, 0]]

    months = holiday_table(DAYS, MonthGrid(1))
    assert months(at("2024-11-01", "2024-12-01", "2025-01-01", "2025-02-01")).tolist() == [
        [0, 0], [2, 1], [1, 0], [0, 0],
    ]  # fmt: skip
    mid_months = holiday_table(DAYS, MonthGrid(1, day=15))
    assert mid_months(at("2024-11-15", "2024-12-15", "2025-01-15")).tolist() == [[0, 0], [3, 1], [0, 0]]


def test_a_row_on_the_last_day_of_a_month_counts_its_month() -> None:
    months = holiday_table(DAYS, MonthGrid(1, day=31))

    assert months(at("2024-11-30", "2024-12-31", "2025-01-31")).tolist() == [[0, 0], [2, 1], [1, 0]]


def test_days_far_from_the_listed_ones_have_no_features() -> None:
    table = holiday_table(DAYS, FixedGrid(86_400))

    assert not table(at("1800-01-01", "2999-12-31")).any()
