from __future__ import annotations

import numpy as np

from flts.forecasting.references import persistence, seasonal_naive


def test_persistence_repeats_the_last_value_before_each_origin() -> None:
    values = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])

    assert persistence(values, np.array([1, 3]), 2).tolist() == [[[1, 10], [1, 10]], [[3, 30], [3, 30]]]


def test_seasonal_naive_repeats_the_last_season_also_further_than_one_ahead() -> None:
    values = np.arange(8.0)[:, None]

    forecast = seasonal_naive(values, np.arange(8) * 60, np.array([6, 8]), 7, season_steps=3, step_seconds=60)

    assert forecast[0, :, 0].tolist() == [3, 4, 5, 3, 4, 5, 3]
    assert forecast[1, :, 0].tolist() == [5, 6, 7, 5, 6, 7, 5]


def test_seasonal_naive_finds_rows_by_time_and_falls_back_to_the_last_value() -> None:
    times = np.array([0, 60, 120, 300, 360, 420])
    values = np.array([10.0, 11, 12, 15, 16, 17])[:, None]

    forecast = seasonal_naive(values, times, np.array([6]), 3, season_steps=6, step_seconds=60)

    # Six rows before 480, 540 and 600 s are 120, 180 and 240 s; only the first of these is there.
    assert forecast[0, :, 0].tolist() == [12, 17, 17]
