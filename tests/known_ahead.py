"""Series with effects of inputs that are known ahead, and LINEAR's bundles of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from flts.bundle.format import Bundle
from flts.forecasting.grid import FixedGrid, Grid
from flts.forecasting.recipe import RecipeSpec, fit_recipe, transform
from flts.forecasting.series import FloatArray, Series
from flts.forecasting.splits import as_train
from flts.ingest.holiday_dates import holiday_days
from flts.settings import WindowSettings
from flts.training import dataset
from flts.training.bundling import Identity
from flts.training.fitting import TrainingSet
from flts.training.linear import make_linear

DAY = 86_400
DAYS = FixedGrid(DAY)
EFFECT = 5.0
IDENTITY = Identity("shop", "c" * 64, "LINEAR", "e" * 64)


def sales(rows: int = 600, *, level: FloatArray | None = None, seed: int = 1) -> Series:
    """Return days of a week's profile, a promotion on a seventh of the days that adds `EFFECT`, and a useless column.

    The columns are ``sales``, ``promotion`` and ``dice``.
    """
    rng = np.random.default_rng(seed)
    promotion = (rng.random(rows) < 1 / 7).astype(float)
    week = 3 * np.sin(2 * np.pi * np.arange(rows) / 7)
    values = 50 + week + EFFECT * promotion + rng.normal(0, 0.3, rows) + (0 if level is None else level)
    times = 19_000 * DAY + DAY * np.arange(rows)
    return Series(times, ("sales", "promotion", "dice"), np.column_stack([values, promotion, rng.random(rows)]), DAYS)


def training_set(series: Series, *, holidays: tuple[str, ...] = (), **spec: Any) -> TrainingSet:
    """Return a series as training rows; ``spec`` are fields of `RecipeSpec`."""
    days = holiday_days(holidays, *series.grid.clock(series.times[[0, -1]]).tolist())
    recipe = fit_recipe(as_train(series), RecipeSpec(**spec), holidays=days)
    return dataset.training_set(transform(recipe, series), recipe, WindowSettings())


def linear_bundle(
    series: Series, *, horizon: int = 14, holidays: tuple[str, ...] = (), **spec: Any
) -> tuple[Bundle, bytes]:
    """Return LINEAR's bundle of a series; ``spec`` are fields of `RecipeSpec`."""
    data = training_set(series, holidays=holidays, **spec)
    return make_linear(data, IDENTITY, horizon=horizon, threads=1, alive=lambda: None)


def with_holidays(rows: int, grid: Grid, effect: float, code: str = "DE", *, first_day: int = 18_262) -> Series:
    """Return rows of a week's profile and noise, with an effect on the holidays of a country; column ``visits``."""
    times = first_day * DAY + grid.step_seconds * np.arange(rows)
    days = times // DAY
    listed = holiday_days((code,), int(times[0]), int(times[-1]))[f"holiday_{code}"]
    noise = np.random.default_rng(rows).normal(0, 0.2, rows)
    values = 20 + np.sin(2 * np.pi * (days % 7) / 7) + effect * np.isin(days, listed) + noise
    return Series(times, ("visits",), values[:, None], grid)
