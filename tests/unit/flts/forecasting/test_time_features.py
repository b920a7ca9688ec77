from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from flts.forecasting.series import FloatArray
from flts.forecasting.time_features import TIME_FEATURES, time_features


def at(year: int, month: int, day: int, hour: int = 0) -> FloatArray:
    moment = datetime(year, month, day, hour, tzinfo=UTC)
    return time_features(np.array([int(moment.timestamp())])).ravel()


def test_midnight_of_a_monday_that_begins_a_year_is_where_all_circles_begin() -> None:
    np.testing.assert_allclose(at(2018, 1, 1), [0, 1, 0, 1, 0, 1], atol=1e-15)


def test_six_in_the_morning_is_a_quarter_of_the_day() -> None:
    np.testing.assert_allclose(at(2018, 1, 1, 6)[:2], [1, 0], atol=1e-15)


def test_a_thursday_is_three_sevenths_of_the_week_and_the_hour_does_not_matter() -> None:
    angle = 2 * np.pi * 3 / 7
    for hour in (0, 23):
        np.testing.assert_allclose(at(2018, 2, 8, hour)[2:4], [np.sin(angle), np.cos(angle)], atol=1e-15)


def test_the_first_of_march_is_a_day_later_in_a_leap_year() -> None:
    for year, days in ((2018, 59), (2020, 60)):
        angle = 2 * np.pi * days / 365.25
        np.testing.assert_allclose(at(year, 3, 1)[4:], [np.sin(angle), np.cos(angle)], atol=1e-15)


def test_times_before_1970_are_like_others() -> None:
    np.testing.assert_allclose(at(1968, 1, 1, 6), [1, 0, 0, 1, 0, 1], atol=1e-15)


def test_a_batch_of_times_keeps_its_shape() -> None:
    times = np.arange(6).reshape(2, 3) * 86_400

    features = time_features(times)

    assert features.shape == (2, 3, len(TIME_FEATURES))
    np.testing.assert_array_equal(features[1, 2], time_features(times[1, 2:])[0])
