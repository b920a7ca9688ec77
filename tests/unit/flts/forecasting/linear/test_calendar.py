from __future__ import annotations

import numpy as np

from flts.forecasting.grid import DAY, HOUR
from flts.forecasting.linear.calendar import Calendar, find_calendar


def test_harmonics_need_two_periods_and_more_than_two_rows_per_wave() -> None:
    hours, days = np.arange(15 * 24 + 1) * HOUR, np.arange(800) * DAY

    assert find_calendar(hours, HOUR) == Calendar(day=3, week=2, year=0)
    assert find_calendar(hours[: 7 * 24], HOUR) == Calendar(day=3, week=0, year=0)
    assert find_calendar(hours[::8], 8 * HOUR) == Calendar(day=1, week=2, year=0)
    assert find_calendar(days, DAY) == Calendar(day=0, week=2, year=1)
    assert find_calendar(days[:0], DAY).width == 0


def test_features_are_waves_of_the_clock_and_products_of_day_and_week() -> None:
    calendar = Calendar(day=1, week=1, year=0)

    features = calendar(np.array([[6 / 24, 6 / 168, 0.0]]))  # Monday, 6 o'clock

    assert features.shape == (1, calendar.width)
    week = 2 * np.pi / 28
    expected = [1, 0, np.sin(week), np.cos(week), np.sin(week), np.cos(week), 0, 0]
    np.testing.assert_allclose(features[0], expected, atol=1e-12)
