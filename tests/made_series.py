"""Series and a linear model for numerical tests."""

from __future__ import annotations

import numpy as np

from flts.forecasting.fitted import FittedRecipe
from flts.forecasting.grid import FixedGrid
from flts.forecasting.rolling import WindowModel
from flts.forecasting.series import FloatArray, Series
from flts.forecasting.windows import Float32Array

STEP_SECONDS = 120
START = 1_517_874_000  # 2018-02-05 23:40 UTC


def make_series(
    rows: int, columns: tuple[str, ...] = ("down", "up", "load"), *, seed: int = 0, missing: float = 0.0
) -> Series:
    """Return a daily wave plus a random walk in each column; the columns' scales differ by factors of 1,000."""
    rng = np.random.default_rng(seed)
    k = len(columns)
    wave = np.sin(np.arange(rows)[:, None] * 2 * np.pi / 720 + rng.uniform(0, 6, k))
    values = (10 + 3 * wave + rng.normal(0, 0.1, (rows, k)).cumsum(axis=0)) * 1000.0 ** np.arange(k)
    values[rng.random((rows, k)) < missing] = np.nan
    return Series(START + STEP_SECONDS * np.arange(rows), columns, values, FixedGrid(STEP_SECONDS))


def with_values(series: Series, values: FloatArray) -> Series:
    return Series(series.times, series.columns, values, series.grid)


def linear_model(recipe: FittedRecipe, *, window_steps: int, horizon_steps: int, seed: int = 0) -> WindowModel:
    """Return a window model whose forecasts stay bounded, because each output's absolute weights add up to 0.9."""
    features, targets = len(recipe.feature_names), len(recipe.varying_targets)
    weights = np.random.default_rng(seed).normal(size=(window_steps * features, horizon_steps * targets))
    weights *= 0.9 / np.abs(weights).sum(axis=0)

    def forecast(windows: Float32Array) -> FloatArray:
        flat = windows.reshape(len(windows), -1).astype(np.float64)
        # Each window is summed by itself, because sums over a whole batch are rounded differently for each batch size.
        answers = np.stack([(row[:, None] * weights).sum(axis=0) for row in flat])
        return answers.reshape(len(windows), horizon_steps, targets)

    return forecast
