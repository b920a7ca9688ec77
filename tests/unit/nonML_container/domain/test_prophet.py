"""Prophet corrected by its last residuals, made of training rows and read as a service reads it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flts.bundle.forecaster import Forecaster
from flts.bundle.format import Bundle
from flts.bundle.model import BundleModel
from flts.forecasting.recipe import forecast_or_known, observed_targets
from flts.forecasting.series import FloatArray, Series
from flts.training.bundling import Identity, make_bundle
from flts.training.fitting import TrainingSet
from nonML_container.domain.fit import fit_prophet, predict
from nonML_container.domain.models import prophet
from nonML_container.settings import NonmlSettings
from tests.known_ahead import EFFECT, sales, training_set
from tests.training_sets import SilentReport

IDENTITY = Identity("shop", "c" * 64, "PROPHET", "e" * 64)
HORIZON = 14


def options(**settings: Any) -> NonmlSettings:
    return NonmlSettings.model_construct(prophet_optimiser="exact", **settings)


def made(data: TrainingSet, **settings: Any) -> tuple[Bundle, Forecaster]:
    data = replace(data, horizon=HORIZON)
    fitted = prophet.fit(data, options(**settings), SilentReport())
    bundle, model = make_bundle(fitted, data, IDENTITY, threads=1, alive=lambda: None)
    return bundle, Forecaster(BundleModel(Bundle.from_json(bundle.to_json()), model))


def wandering(rows: int = 700, seed: int = 3) -> FloatArray:
    level: FloatArray = np.random.default_rng(seed).normal(0, 2, rows).cumsum()
    return level


@pytest.fixture(scope="module")
def series() -> Series:
    """A week's profile on a level that wanders, with a promotion."""
    return sales(700, level=wandering())


def test_a_forecast_is_prophets_own_plus_a_decaying_share_of_its_last_residuals(series: Series) -> None:
    rows = series.select(("sales",)).rows(0, 600)
    data = training_set(rows)
    bundle, forecaster = made(data)

    own = fit_prophet(rows.times, observed_targets(data.recipe, data.features)[:, 0], options(), "exact")
    free = predict(own, series.times[600 : 600 + HORIZON])
    moved = forecaster.forecast(rows, HORIZON).mean[:, 0] - free
    higher = replace(rows, values=rows.values + np.where(np.arange(600) < 600 - bundle.rows_required, 0, 10.0)[:, None])
    weights = (forecaster.forecast(higher, HORIZON).mean[:, 0] - free - moved) / 10

    assert (bundle.input_kind, bundle.inputs) == ("direct", ("past", "seconds"))
    assert bundle.rows_required == bundle.input_seq_len == 4  # 540 rows before the tail, 297 in the first fold
    assert (bundle.output_seq_len, bundle.max_horizon_steps, bundle.format_version) == (HORIZON, None, 2)
    last = rows.values[-1, 0] - predict(own, rows.times[-1:])[0]
    assert moved[0] == pytest.approx(last, abs=0.6)
    assert 0.9 < weights[0] < 1.1  # a random walk keeps its level
    assert weights[-1] < weights[0] + 0.05


def test_it_is_closer_than_the_forecast_without_the_rows_and_its_intervals_know(series: Series) -> None:
    rows = series.select(("sales",))
    data = training_set(rows.rows(0, 600))
    bundle, forecaster = made(data)
    plain, free = made(data, output_seq_len=1)

    origins = np.arange(610, 680)
    actual = rows.values[origins[:, None] + np.arange(HORIZON), 0]

    def error(model: Forecaster) -> FloatArray:
        return np.abs(model.forecast_origins(rows, origins, HORIZON)[..., 0] - actual).mean(axis=0)

    assert error(forecaster)[0] < 0.5 * error(free)[0]
    assert error(forecaster).mean() < 0.9 * error(free).mean()
    assert bundle.intervals is not None
    assert plain.intervals is not None
    corrected, uncorrected = (each.at_level(0.9) - each.at_level(0.1) for each in (bundle.intervals, plain.intervals))
    assert corrected[0, 0] < 0.6 * uncorrected[0, 0]
    assert corrected[0, 0] < corrected[-1, 0]  # the band widens over the steps


def test_an_explicit_output_seq_len_and_an_unknown_horizon_leave_the_model_as_it_was(series: Series) -> None:
    data = training_set(series.select(("sales",)).rows(0, 300))
    unknown = prophet.fit(data, options(), SilentReport())
    explicit = prophet.fit(replace(data, horizon=HORIZON), options(output_seq_len=3), SilentReport())

    assert explicit.model_bytes == unknown.model_bytes
    assert (explicit.input_kind, explicit.rows_required, explicit.recipe) == ("timestamps", 1, data.recipe)
    before = prophet.hash_parts(options(), None)
    assert prophet.hash_parts(options(output_seq_len=3), HORIZON) == before
    assert prophet.hash_parts(options(), HORIZON) == before | {"correction": 1, "horizon": HORIZON}


def test_residuals_without_memory_are_not_corrected() -> None:
    bundle, _ = made(training_set(sales(700, seed=8).select(("sales",)).rows(0, 400)))

    assert (bundle.input_kind, bundle.rows_required) == ("timestamps", 1)


def test_measured_columns_are_no_input_and_forecasts_beyond_the_horizon_are_fed_back(series: Series) -> None:
    columns = ("sales", "promotion", "dice")
    data = training_set(series.rows(0, 600), past_columns=("dice",), future_columns=("promotion",))
    bundle, forecaster = made(data)
    ahead = np.resize([[0.0], [1.0]], (60, 1))

    forecast = forecaster.forecast(series.rows(0, 600).select(columns), 60, ahead).mean[:, 0]

    assert bundle.recipe == forecast_or_known(data.recipe, data.features)[0]  # eval makes the same recipe
    assert bundle.recipe.columns == ("sales", "promotion")
    assert (bundle.inputs, bundle.max_horizon_steps) == (("past", "seconds", "future"), None)
    assert (forecast[1::2] - forecast[::2]).mean() == pytest.approx(EFFECT, abs=1)
    assert np.isfinite(forecast).all()


def test_missing_cells_and_a_gap_are_no_part_of_the_correction(series: Series) -> None:
    values = series.values[:, :1].copy()
    values[[100, 101, 597], 0] = np.nan
    kept = np.r_[0:300, 340:600]
    rows = Series(series.times[kept], ("sales",), values[kept], series.grid)

    bundle, forecaster = made(training_set(rows))

    forecast = forecaster.forecast(rows, HORIZON).mean[:, 0]
    assert bundle.inputs == ("past", "seconds")
    assert np.abs(forecast[0] - series.values[599, 0]) < 10
