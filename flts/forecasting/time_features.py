"""Features of time: the position within the day, the week and the year."""

from __future__ import annotations

import numpy as np

from flts.forecasting.series import FloatArray, IntArray

TIME_FEATURES = (
    "min_of_day_sin",
    "min_of_day_cos",
    "day_of_week_sin",
    "day_of_week_cos",
    "day_of_year_sin",
    "day_of_year_cos",
)
DAY_SECONDS = 86_400
WEEK_DAYS = 7
YEAR_DAYS = 365.25
EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday, day 3 where Monday is day 0


def time_features(times: IntArray) -> FloatArray:
    """Return sine and cosine of minute of day, day of week and day of year, (..., 6); all in [-1, 1].

    Parameters
    ----------
    times : (...)
        Seconds since 1970-01-01 00:00 on the clock of the data set (`Grid.clock`).
    """
    days, seconds = np.divmod(times, DAY_SECONDS)
    dates = days.astype("datetime64[D]")
    year_starts = dates.astype("datetime64[Y]").astype("datetime64[D]")
    turns = np.empty((*times.shape, 3))
    turns[..., 0] = seconds / DAY_SECONDS
    turns[..., 1] = ((days + EPOCH_WEEKDAY) % WEEK_DAYS) / WEEK_DAYS
    turns[..., 2] = (days - year_starts.astype(np.int64)) / YEAR_DAYS
    turns *= 2 * np.pi
    features = np.empty((*times.shape, len(TIME_FEATURES)))
    features[..., 0::2] = np.sin(turns)
    features[..., 1::2] = np.cos(turns)
    return features
