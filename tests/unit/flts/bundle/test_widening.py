"""Intervals widened by the forecasts that a bundle's model makes of rows after those that it was fitted on."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest

from flts.bundle.forecaster import Forecaster
from flts.bundle.model import BundleModel
from flts.bundle.widening import widened_by
from flts.forecasting.grid import FixedGrid
from flts.forecasting.intervals import Intervals
from flts.forecasting.recipe import RecipeSpec, fit_recipe, transform
from flts.forecasting.series import FloatArray, Series
from flts.forecasting.splits import as_train
from flts.settings import WindowSettings
from flts.training.baselines import make_baseline
from flts.training.bundling import Identity
from flts.training.dataset import training_set
from tests.serving import small_series, window_bundle

FITTED, HORIZON = 600, 4


def noise(rows: int, *, size: float) -> FloatArray:
    return 100 + size * np.random.default_rng(7).normal(size=rows)


def series_of(values: FloatArray) -> Series:
    return Series(1_700_000_000 // 600 * 600 + 600 * np.arange(len(values)), ("load",), values[:, None], FixedGrid(600))


@functools.cache
def forecaster_of(kind: str = "MEAN") -> Forecaster:
    train = series_of(noise(FITTED, size=1.0))
    recipe = fit_recipe(as_train(train), RecipeSpec())
    settings = WindowSettings(input_seq_len=4)
    data = training_set(transform(recipe, train), recipe, settings)
    identity = Identity("made", "c" * 64, kind, "d" * 64)
    made = make_baseline(data, identity, settings, horizon=HORIZON, threads=1, alive=lambda: None)
    return Forecaster(BundleModel(*made))


def widths(intervals: Intervals | None) -> FloatArray:
    assert intervals is not None
    assert intervals.lower is not None
    assert intervals.upper is not None
    width: FloatArray = (intervals.upper - intervals.lower)[:, 0]
    return width


def factor(forecaster: Forecaster, later: FloatArray, rows: int) -> FloatArray:
    values = np.concatenate([noise(FITTED, size=1.0), later])
    found = widened_by(forecaster, series_of(values).rows(len(values) - rows))
    ratio: FloatArray = widths(found) / widths(forecaster.intervals)
    return ratio


@pytest.mark.parametrize("kind", ["MEAN", "PERSISTENCE"])
def test_rows_that_are_twice_as_noisy_after_the_fit_widen_the_intervals(kind: str) -> None:
    forecaster = forecaster_of(kind)

    assert factor(forecaster, noise(400, size=2.0), 300) == pytest.approx(1.9, abs=0.25)
    assert factor(forecaster, noise(400, size=1.0), 300) == pytest.approx(1.0, abs=0.1)


def test_rows_that_were_fitted_show_nothing() -> None:
    forecaster = forecaster_of()
    until = forecaster.bundle.fitted_until
    assert until is not None
    train = series_of(noise(FITTED, size=1.0))
    fitted = train.rows(0, int(np.searchsorted(train.times, until)) + 1)

    assert widened_by(forecaster, fitted) is None
    assert widened_by(forecaster, train) is not None  # the mean is that of the rows before the calibration tail


def test_missing_cells_and_gaps_are_not_compared() -> None:
    forecaster = forecaster_of("PERSISTENCE")
    values = noise(400, size=2.0)
    series = series_of(values)
    gap = Series(np.where(np.arange(400) < 390, series.times, series.times + 6_000), *series_parts(series))
    gone = replace(series, values=np.where(np.arange(400)[:, None] < 390, values[:, None], np.nan))

    for other in (gap, gone):
        found = widened_by(forecaster, other)
        assert widths(found) == pytest.approx(widths(widened_by(forecaster, series.rows(0, 390))), rel=0.1)


def test_bundles_without_intervals_or_of_format_1_stay_as_they_are() -> None:
    series = small_series()
    old = Forecaster(BundleModel(*window_bundle(series)))
    bare = Forecaster(BundleModel(*window_bundle(series, calibrated=False)))

    assert (old.bundle.format_version, old.intervals is None, bare.intervals is None) == (1, False, True)
    assert widened_by(old, series) is None
    assert widened_by(bare, series) is None


def series_parts(series: Series) -> tuple[tuple[str, ...], FloatArray, FixedGrid]:
    assert isinstance(series.grid, FixedGrid)
    return series.columns, series.values, series.grid
