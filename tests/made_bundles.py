"""Bundles of LINEAR and the baselines, made of a series with skewed noise, with any settings."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from flts.bundle.format import Bundle
from flts.forecasting.grid import FixedGrid
from flts.forecasting.recipe import RecipeSpec, fit_recipe, transform
from flts.forecasting.series import Series
from flts.forecasting.splits import as_train
from flts.settings import WindowSettings
from flts.training.baselines import make_baseline
from flts.training.bundling import Identity
from flts.training.dataset import training_set
from flts.training.linear import LINEAR, make_linear

HORIZON = 12


def skewed_series(rows: int = 600) -> Series:
    """Return two hourly columns: a cycle with exponential noise, never negative, and a lower one that often is."""
    rng = np.random.default_rng(0)
    cycle = np.sin(2 * np.pi * np.arange(rows) / 24)
    high = np.maximum(3 * cycle, 0) + rng.exponential(2.0, rows)
    low = cycle - 1 - rng.exponential(1.0, rows)
    return Series(3_600 * np.arange(rows), ("high", "low"), np.column_stack([high, low]), FixedGrid(3_600))


@functools.cache
def made_bundle(model_type: str, rows: int = 600, **settings: Any) -> tuple[Bundle, bytes]:
    """Return the bundle of LINEAR or of a baseline of `skewed_series`, and its model file."""
    series = skewed_series(rows)
    windows = WindowSettings(input_seq_len=6, **settings)
    recipe = fit_recipe(as_train(series), RecipeSpec())
    data = training_set(transform(recipe, series), recipe, windows)
    identity = Identity("made", "c" * 64, model_type, "d" * 64)
    if model_type == LINEAR:
        return make_linear(data, identity, horizon=HORIZON, threads=1, alive=lambda: None)
    return make_baseline(data, identity, windows, horizon=HORIZON, threads=1, alive=lambda: None)
