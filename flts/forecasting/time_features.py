"""Features of time: the position within the day, the week and the year."""

from __future__ import annotations

import numpy as np

from flts.forecasting.grid import DAY, EPOCH_WEEKDAY, WEEKDAYS
from flts.forecasting.series import FloatArray, IntArray

TIME_FEATURES = (
    "min_of_day_sin",
    "min_of_day_cos",
    "day_of_week_sin",
    "day_of_week_cos",
    "day_of_year_sin",
    "day_of_year_cos",
)
YEAR_DAYS = 365.25


def time_features(times: IntArray) -> FloatArray:
    """Return sine and cosine of minute of day, day of week and day of year, (..., 6); all in [-1, 1].

    Parameters
    ----------
    times : (...)
        Seconds since 1970-01-01 00:00 on the clock of the data set (`Grid.clock`).
    """
    days, seconds = np.divmod(times, DAY)
    dates = days.astype("datetime64[D]")
    year_starts = dates.astype("datetime64[Y]").astype("datetime64[D]")
    turns = np.empty((*times.shape, 3))
    turns[..., 0] = seconds / DAY
    turns[..., 1] = ((days + EPOCH_WEEKDAY) % len(WEEKDAYS)) / len(WEEKDAYS)
    turns[..., 2] = (days - year_starts.astype(np.int64)) / YEAR_DAYS
    turns *= 2 * np.pi
    features = np.empty((*times.shape, len(TIME_FEATURES)))
    features[..., 0::2] = np.sin(turns)
    features[..., 1::2] = np.cos(turns)
    return features
