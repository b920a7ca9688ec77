"""Count false seasons in generated series without a season: ``python -m tests.false_seasons 1000``.

A test in ``tests/unit/flts/forecasting/test_season_tests.py`` does the same with fewer series.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import numpy as np

from flts.forecasting.grid import BUSINESS_DAYS, DAY, HOUR, FixedGrid, Grid, IntArray, MonthGrid, WeekGrid
from flts.forecasting.season_tests import find_seasons
from flts.forecasting.series import FloatArray

FIRST = 1_451_606_400  # 2016-01-01 00:00 UTC, a Friday
GRIDS: dict[str, tuple[Grid, int]] = {
    "hours": (FixedGrid(HOUR), 1_500),
    "half hours": (FixedGrid(HOUR // 2), 700),
    "days": (FixedGrid(DAY), 1_200),
    "business days": (WeekGrid(DAY, tuple(((0, 0),) if day in BUSINESS_DAYS else () for day in range(7))), 400),
    "months": (MonthGrid(1), 132),
    "few months": (MonthGrid(1), 40),
    "quarters": (MonthGrid(3), 48),
}
"""Grids and numbers of rows."""


def white_noise(noise: FloatArray) -> FloatArray:
    return noise


def random_walk(noise: FloatArray) -> FloatArray:
    return noise.cumsum()


def trend(noise: FloatArray) -> FloatArray:
    return 0.1 * np.arange(len(noise)) + noise


def quadratic_trend(noise: FloatArray) -> FloatArray:
    return 1e-3 * np.arange(len(noise)) ** 2 + noise


def growth(noise: FloatArray) -> FloatArray:
    """Return growth to 20 times the first value, with noise of 1 %."""
    smooth: FloatArray = 100 * np.exp(np.linspace(0, 3, len(noise)))
    return smooth * (1 + 0.01 * noise)


def autoregression(noise: FloatArray) -> FloatArray:
    values = np.empty(len(noise))
    last = 0.0
    for at, shock in enumerate(noise.tolist()):
        last = 0.9 * last + shock
        values[at] = last
    return values


KINDS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "white noise": white_noise,
    "random walk": random_walk,
    "trend": trend,
    "quadratic trend": quadratic_trend,
    "growth": growth,
    "autoregression": autoregression,
}


def times_of(grid: Grid, rows: int) -> IntArray:
    first = grid.split(np.array([FIRST]))[0]
    return grid.at(first + np.arange(rows))


def false_seasons(kind: str, on: str, *, series: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield the seed and the seasons of each generated series in which a season was found."""
    grid, rows = GRIDS[on]
    times = times_of(grid, rows)
    for seed in range(series):
        values = KINDS[kind](np.random.default_rng(seed).standard_normal(rows))
        found = find_seasons(values[:, None], times, grid)
        if found.steps:
            yield seed, found.steps


def main() -> None:
    series = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    for kind in KINDS:
        for on in GRIDS:
            found = list(false_seasons(kind, on, series=series))
            sys.stdout.write(f"{kind}, {on}: {len(found)} of {series} {found[:5]}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
