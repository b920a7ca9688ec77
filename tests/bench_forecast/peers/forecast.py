"""Forecast with statsforecast and LightGBM, in an environment of their own: ``python forecast.py FOLDER``.

The folder holds ``task.npz`` (see `tests.bench_forecast.peer_runs`). The program writes ``NAME.npz`` for each peer:
``mean`` (n, H, m), ``cpu_seconds`` and, where the peer has intervals, the bounds of 90 %, ``lower`` and ``upper``. For
a peer that fails it writes ``NAME.txt`` with the error.

Every peer is fitted once on the training rows. At each origin it then sees all rows before the origin, as the bundles
of FLTS do: statsforecast's ``forward`` filters the new rows with the fitted parameters.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
from statsforecast import models

FILTERED_ROWS, FILTERED_SEASONS = 1_000, 3
"""Last training rows that a statistical model sees, and the longest seasons in them at least: MSTL decomposes the rows
again at every origin, 0.2 s for 1,000 rows."""
LONGEST_ETS_SEASON = 24
"""AutoETS accepts no longer season; it then is fitted without one."""
LAGS, DAY = 24, 86_400
BOOSTING = {
    "learning_rate": 0.05,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "feature_fraction": 0.8,
    "deterministic": True,
    "num_threads": 1,
    "verbose": -1,
}


@dataclass(frozen=True)
class Task:
    values: np.ndarray
    """(rows, m); a missing cell holds the value before it, because the peers accept no missing cells."""
    times: np.ndarray
    """(rows,) epoch seconds."""
    origins: np.ndarray
    """(n,) row of the first step of each forecast."""
    train_rows: int
    horizon: int
    seasons: list[int]
    """In rows, the shortest first; empty without a season."""
    seed: int


Forecast = tuple[np.ndarray, "np.ndarray | None", "np.ndarray | None"]


def main() -> int:
    warnings.filterwarnings("ignore")
    folder = Path(sys.argv[1])
    given = np.load(folder / "task.npz")
    task = Task(
        _carried(given["values"]),
        given["times"],
        given["origins"],
        int(given["train_rows"]),
        int(given["horizon"]),
        sorted(int(season) for season in given["seasons"]),
        int(given["seed"]),
    )
    for name, forecast in PEERS.items():
        began = time.process_time()
        try:
            mean, lower, upper = forecast(task)
        except Exception as error:  # noqa: BLE001 - a peer that cannot forecast these rows has no row in the table
            (folder / f"{name}.txt").write_text(f"{type(error).__name__}: {error}"[:500])
            continue
        bounds = {} if lower is None else {"lower": lower, "upper": upper}
        np.savez(folder / f"{name}.npz", mean=mean, cpu_seconds=time.process_time() - began, **bounds)
    return 0


def _carried(values: np.ndarray) -> np.ndarray:
    rows = np.arange(len(values))[:, None]
    known = np.isfinite(values)
    before = np.maximum.accumulate(np.where(known, rows, -1), axis=0)
    first = np.where(known, rows, len(values)).min(axis=0)
    return np.take_along_axis(values, np.where(before < 0, first, before), axis=0)


def statistical(make: Callable[[Task, np.ndarray], Any]) -> Callable[[Task], Forecast]:
    """Return the forecasts of one of statsforecast's models, column by column."""

    def forecast(task: Task) -> Forecast:
        rows = max(FILTERED_ROWS, FILTERED_SEASONS * max(task.seasons, default=0))
        shape = (len(task.origins), task.horizon, task.values.shape[1])
        mean, lower, upper = (np.empty(shape) for _ in range(3))
        for column, series in enumerate(task.values.T):
            # All rows from the same first one on: `forward` starts with the states that were fitted for that row.
            first = max(0, task.train_rows - rows)
            fit = series[first : task.train_rows]
            model = make(task, fit)
            model.fit(fit)
            for at, origin in enumerate(task.origins):
                answer = model.forward(y=series[first:origin], h=task.horizon, level=[90])
                mean[at, :, column] = answer["mean"]
                lower[at, :, column], upper[at, :, column] = answer["lo-90"], answer["hi-90"]
        return mean, lower, upper

    return forecast


def _ets(task: Task, _: np.ndarray) -> Any:
    return models.AutoETS(season_length=next((s for s in task.seasons if s <= LONGEST_ETS_SEASON), 1))


def _theta(task: Task, fit: np.ndarray) -> Any:
    kind = "multiplicative" if fit.min() > 0 else "additive"
    return models.AutoTheta(season_length=min(task.seasons, default=1), decomposition_type=kind)


def _mstl(task: Task, fit: np.ndarray) -> Any:
    seasons = [season for season in task.seasons if 2 * season <= len(fit)]
    if not seasons:
        msg = "no season is seen twice"
        raise ValueError(msg)
    return models.MSTL(season_length=seasons, trend_forecaster=models.AutoETS(model="ZZN"))


def _seasonal_naive(task: Task, fit: np.ndarray) -> Any:
    return models.SeasonalNaive(season_length=max((s for s in task.seasons if 2 * s <= len(fit)), default=1))


def boosted(task: Task) -> Forecast:
    """Return LightGBM's forecasts: one step from lags, seasonal lags, means and the calendar, fed back step by step."""
    most = task.train_rows // 6
    lags = [lag for lag in range(2, LAGS + 1) if lag <= most]
    lags += [lag for s in task.seasons for lag in (s - 1, s, s + 1, 2 * s) if 2 <= lag <= task.train_rows // 3]
    lags = sorted(set(lags))
    means = [rows for rows in (7, LAGS, *task.seasons) if 1 < rows <= most]
    first = max([1, *lags, *means])
    calendar = np.column_stack(
        [
            task.times % DAY,
            (task.times // DAY + 3) % 7,
            task.times.astype("datetime64[s]").astype("datetime64[M]").astype(int) % 12,
        ]
    )

    def inputs(paths: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the inputs of the row after each path; differences keep the trees within the range that they saw."""
        last = paths[:, -1]
        parts = [last, *(paths[:, -lag] - last for lag in lags)]
        parts += [paths[:, -rows_:].mean(axis=1) - last for rows_ in means]
        return np.column_stack([*parts, calendar[rows]])

    mean = np.empty((len(task.origins), task.horizon, task.values.shape[1]))
    for column, series in enumerate(task.values.T):
        rows = np.arange(first, task.train_rows)
        paths = np.lib.stride_tricks.sliding_window_view(series, first)
        fit = lightgbm.Dataset(inputs(paths[rows - first], rows), series[rows] - series[rows - 1])
        model = lightgbm.train({**BOOSTING, "seed": task.seed}, fit, num_boost_round=300)
        path = paths[task.origins - first]
        for step in range(task.horizon):
            change = model.predict(inputs(path, task.origins + step))
            path = np.column_stack([path[:, 1:], path[:, -1] + change])
            mean[:, step, column] = path[:, -1]
    return mean, None, None


PEERS: dict[str, Callable[[Task], Forecast]] = {
    "SeasonalNaive": statistical(_seasonal_naive),
    "AutoETS": statistical(_ets),
    "AutoTheta": statistical(_theta),
    "MSTL": statistical(_mstl),
    "LightGBM": boosted,
}

if __name__ == "__main__":
    raise SystemExit(main())
