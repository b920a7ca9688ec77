"""A data set on which a recurrent network beats a linear model one step ahead, generated with a fixed seed.

Seven weeks of ten-minute readings of a server room. The load has a daily and a weekly course. A controller overshoots
around it: the further the load is from its target, to either side, the larger the next swing back. This is a threshold
law (a noisy tent map). The last value explains little of the next value, a linear model of the last ten rows explains
half of it, and the error of a network that has learnt the threshold is only the noise.

The length is the shortest at which networks with the default ten epochs beat the linear model clearly. On 3,000 rows
GRU only equals Ridge. On 6,000 rows GRU has half of Ridge's error, and LSTM has a tenth less.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from flts.forecasting.series import FloatArray
from flts.ingest.sample import write_files

STEP_SECONDS = 600
TRAIN_ROWS = 6_000
TEST_ROWS = 1_500
START = datetime(2024, 1, 1, tzinfo=UTC)  # a Monday, because `generate_swinging` counts the days of the week from here
COLUMNS = ("load", "power", "requests")
WORKING_DAYS = 5
_DAY_SECONDS = 86_400
_BURN_IN = 500
_BEND = 1.5  # slope of the tent map (module docstring); with a slope above 1 the values keep oscillating
_REACH = 1.6


def write_swinging(
    folder: Path, *, seed: int = 7, train_rows: int = TRAIN_ROWS, test_rows: int = TEST_ROWS
) -> tuple[Path, Path]:
    """Write ``train.csv`` and ``test.csv`` into a folder; the same seed writes the same bytes."""
    values = generate_swinging(train_rows + test_rows, seed=seed)
    step = timedelta(seconds=STEP_SECONDS)
    return write_files(folder, values, COLUMNS, first=START, step=step, train_rows=train_rows, form=".3f")


def generate_swinging(rows: int, *, seed: int = 7) -> FloatArray:
    """Return (rows, 3) values of `COLUMNS` in raw units."""
    random = np.random.default_rng(seed)
    seconds = np.arange(-_BURN_IN, rows) * STEP_SECONDS
    noise = random.standard_normal((len(seconds), 4))
    swing = np.empty(len(seconds))
    at = 0.0
    for row, disturbance in enumerate(noise[:, 0]):
        at = float(np.clip(1 - _BEND * abs(at) + 0.1 * disturbance, -_REACH, _REACH))
        swing[row] = at
    before = np.roll(swing, 1)
    hour_angle = 2 * np.pi * (seconds % _DAY_SECONDS) / _DAY_SECONDS
    working = np.where((seconds // _DAY_SECONDS) % 7 < WORKING_DAYS, 1.0, 0.6)
    busy = (0.5 - 0.5 * np.cos(hour_angle - 0.6)) * working  # 0 at night, 1 on a weekday's afternoon
    load = 50 + 10 * busy + 12 * swing + 0.5 * noise[:, 1]
    power = 120 + 25 * busy + 16 * (swing + before) + noise[:, 2]
    requests = 900 + 250 * busy - 150 * (swing - 0.5 * before) + 5 * noise[:, 3]
    return np.column_stack([load, power, requests])[_BURN_IN:]
