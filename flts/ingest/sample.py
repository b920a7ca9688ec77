"""The data set that FLTS ships: generated, seeded, and such that a recurrent network earns its place.

Six weeks of ten-minute readings of a small computing site. The load follows its day and week, and its deviation from
them obeys a threshold law: above a limit it is throttled and swings back, below it builds up; how strongly depends on
the hour. A straight line cannot follow that, the last value even less.
"""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from flts.forecasting.series import FloatArray

SAMPLE_IDENTIFIER = "sample"
STEP_SECONDS = 600
TRAIN_ROWS = 3_000
TEST_ROWS = 750
START = datetime(2024, 1, 1, tzinfo=UTC)  # a Monday
COLUMNS = ("load", "temperature", "requests", "queue")
_BURN_IN = 500


def write_sample(
    folder: Path, *, seed: int = 7, train_rows: int = TRAIN_ROWS, test_rows: int = TEST_ROWS
) -> tuple[Path, Path]:
    """Write ``train.csv`` and ``test.csv`` into a folder; the same seed writes the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    values = generate_sample(train_rows + test_rows, seed=seed)
    train, test = folder / "train.csv", folder / "test.csv"
    _write(train, values[:train_rows], first_row=0)
    _write(test, values[train_rows:], first_row=train_rows)
    return train, test


def generate_sample(rows: int, *, seed: int = 7) -> FloatArray:
    """Return (rows, 4) values of `COLUMNS` in raw units."""
    random = np.random.default_rng(seed)
    steps = np.arange(-_BURN_IN, rows)
    day = 2 * np.pi * (steps * STEP_SECONDS % 86_400) / 86_400
    weekday = (steps * STEP_SECONDS // 86_400) % 7
    busy = 0.5 - 0.5 * np.cos(day - 0.6)  # 0 at night, 1 in the afternoon
    season = 40 + 25 * busy * np.where(weekday < 5, 1.0, 0.55)  # noqa: PLR2004 - Monday to Friday
    noise = random.standard_normal((len(steps), len(COLUMNS)))
    load, temperature, requests, queue = (np.empty(len(steps)) for _ in COLUMNS)
    before, earlier, warmth, waiting = 0.0, 0.0, 0.0, 0.0
    for at in range(len(steps)):
        # Threshold autoregression: throttled above the limit, building up below it, both stronger when busy.
        pull = -0.75 if before > 2 * busy[at] else 0.55
        swing = pull * before - 0.35 * earlier * busy[at] + 6.0 * np.tanh(waiting / 3) * (1 - busy[at])
        deviation = swing + (1.0 + 0.6 * busy[at]) * noise[at, 0]
        waiting = 0.6 * waiting + 0.25 * max(before, 0.0) * busy[at] - 0.3 + 0.3 * noise[at, 3]
        earlier, before = before, deviation
        load[at] = season[at] + 1.6 * deviation
        warmth = 0.93 * warmth + 0.012 * (load[at] - 50) + 0.06 * noise[at, 1]
        temperature[at] = 24 + 5 * warmth
        requests[at] = 900 + 14 * load[at] * (1 + 0.2 * busy[at]) + 12 * noise[at, 2]
        queue[at] = 20 + 4 * waiting
    return np.column_stack([load, temperature, requests, queue])[_BURN_IN:]


def _write(path: Path, values: FloatArray, *, first_row: int) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["time", *COLUMNS])
        for at, row in enumerate(values, start=first_row):
            moment = START + timedelta(seconds=at * STEP_SECONDS)
            writer.writerow([moment.strftime("%Y-%m-%d %H:%M:%S"), *(f"{value:.3f}" for value in row)])
