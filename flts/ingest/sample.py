"""The data set that FLTS ships: ten months of hours of a shop, generated with a fixed seed.

Visitors have a course of the day with a peak at noon and one after work, a course of the week, growth, and German
public holidays, on which the shop is closed but for its café. Two kinds of noise make some days busier than others and
each hour different from its forecast. Orders follow visitors, and power follows both and the heat of the afternoon.
"""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from flts.forecasting.series import FloatArray, IntArray

SAMPLE_IDENTIFIER = "sample"
STEP_SECONDS = 3_600
TRAIN_ROWS = 6_000
TEST_ROWS = 1_500
START = datetime(2024, 1, 1, tzinfo=UTC)  # a Monday, because `generate_sample` counts the days of the week from here
COLUMNS = ("visitors", "orders", "power")
WEEK = (0.85, 0.85, 0.9, 1.0, 1.15, 1.4, 0.35)
"""Visitors of each day of the week, Monday first, in units of a Thursday's."""
HOLIDAYS = (0, 88, 91, 121, 129, 140, 276, 359, 360)
"""Public holidays of Germany in 2024, in days after the first one; from 2025 on the sample has none."""
CLOSED = 0.25
"""Visitors of a holiday, in units of a Thursday's."""
GROWTH = 0.25
"""Growth of visitors in 300 days."""


def write_sample(
    folder: Path, *, seed: int = 7, train_rows: int = TRAIN_ROWS, test_rows: int = TEST_ROWS
) -> tuple[Path, Path]:
    """Write ``train.csv`` and ``test.csv`` into a folder; the same seed writes the same bytes."""
    values = generate_sample(train_rows + test_rows, seed=seed)
    return write_files(
        folder, values, COLUMNS, first=START, step=timedelta(seconds=STEP_SECONDS), train_rows=train_rows
    )


def write_files(
    folder: Path,
    values: FloatArray,
    columns: tuple[str, ...],
    *,
    first: datetime,
    step: timedelta,
    train_rows: int,
    form: str = "g",
) -> tuple[Path, Path]:
    """Write the first rows of values (n, m) as ``train.csv`` and the others as ``test.csv``.

    Parameters
    ----------
    first, step
        Time of the first row, and from one row to the next.
    train_rows : int
    form : str
        Format of a number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    train, test = folder / "train.csv", folder / "test.csv"
    for path, rows in ((train, range(train_rows)), (test, range(train_rows, len(values)))):
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["time", *columns])
            for row in rows:
                time = f"{first + row * step:%Y-%m-%d %H:%M:%S}"
                writer.writerow([time, *(format(value, form) for value in values[row].tolist())])
    return train, test


def generate_sample(rows: int, *, seed: int = 7) -> FloatArray:
    """Return (rows, 3) values of `COLUMNS`: people and orders an hour, and kilowatts."""
    random = np.random.default_rng(seed)
    hours = np.arange(rows)
    days = hours // 24
    hour = hours % 24
    of_week = np.where(np.isin(days, HOLIDAYS), CLOSED, np.array(WEEK)[days % 7])
    open_hours = 0.04 + _peak(hour, 12.5, 2.5) + 0.8 * _peak(hour, 17.5, 1.8)
    growth = 1 + GROWTH * days / 300
    mood = np.exp(0.10 * _autoregression(random.standard_normal(days[-1] + 1), 0.5))[days]
    weather = 0.06 * _autoregression(random.standard_normal(rows), 0.9)
    noise = random.standard_normal((rows, 3))
    expected = 220 * open_hours * of_week * growth * mood
    visitors = np.maximum(expected * np.exp(weather) + np.sqrt(expected) * noise[:, 0], 0)
    earlier = np.concatenate([visitors[:1], visitors[:-1]])
    orders = np.maximum(0.22 * (0.7 * visitors + 0.3 * earlier) + 0.5 * np.sqrt(expected) * noise[:, 1], 0)
    heat = _peak(hour, 15, 4) * (1 - np.cos(2 * np.pi * days / 366)) * np.exp(2 * weather)
    power = 35 + 0.12 * visitors + 14 * heat + 1.2 * noise[:, 2]
    return np.column_stack([np.round(visitors), np.round(orders), np.round(power, 1)])


def _peak(hour: IntArray, at: float, width: float) -> FloatArray:
    """Return a bell of height 1 around an hour of the day."""
    bell: FloatArray = np.exp(-np.square((hour - at) / width) / 2)
    return bell


def _autoregression(noise: FloatArray, coefficient: float) -> FloatArray:
    """Return x[t] = coefficient * x[t - 1] + noise[t], scaled to the deviation of the noise."""
    values = np.empty_like(noise)
    before = 0.0
    for at, disturbance in enumerate(noise.tolist()):
        before = coefficient * before + disturbance
        values[at] = before
    scaled: FloatArray = values * np.sqrt(1 - coefficient**2)
    return scaled
