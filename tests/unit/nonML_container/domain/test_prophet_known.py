"""Prophet with inputs known ahead: its bundle repeats its own forecasts, and knows the effects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flts.bundle.forecaster import Forecaster
from flts.bundle.format import Bundle
from flts.bundle.model import BundleModel
from flts.forecasting.grid import FixedGrid
from flts.forecasting.recipe import observed_targets
from flts.forecasting.series import Series
from flts.training.bundling import Identity, make_bundle
from flts.training.fitting import TrainingSet
from nonML_container.domain.fit import fit_prophet, predict
from nonML_container.domain.models import prophet
from nonML_container.settings import NonmlSettings
from tests.known_ahead import DAY, EFFECT, sales, training_set, with_holidays
from tests.training_sets import SilentReport

IDENTITY = Identity("shop", "c" * 64, "PROPHET", "e" * 64)
COLUMNS = ("sales", "promotion")


def made(data: TrainingSet, **settings: Any) -> tuple[Bundle, Forecaster]:
    options = NonmlSettings.model_construct(prophet_optimiser="exact", **settings)
    fitted = prophet.fit(data, options, SilentReport())
    bundle, model = make_bundle(fitted, data, IDENTITY, threads=1, alive=lambda: None)
    return bundle, Forecaster(BundleModel(Bundle.from_json(bundle.to_json()), model))


@pytest.fixture(scope="module")
def series() -> Series:
    return sales(700)


@pytest.mark.parametrize("columns", [COLUMNS, (*COLUMNS, "dice")], ids=["known ahead", "with a measured column"])
def test_a_promotion_is_a_regressor_and_the_past_is_not_read(series: Series, columns: tuple[str, ...]) -> None:
    past = ("dice",) if "dice" in columns else ()
    data = training_set(series.rows(0, 600).select(columns), past_columns=past, future_columns=("promotion",))

    bundle, forecaster = made(data)
    # Longer than one pass; nothing of the past is needed to go on.
    forecast = forecaster.forecast(series.rows(0, 600).select(columns), 200, np.resize([[0.0], [1.0]], (200, 1)))

    assert (bundle.input_kind, bundle.inputs, bundle.future_columns) == (
        "direct",
        ("seconds", "future"),
        ("promotion",),
    )
    assert (bundle.rows_required, bundle.max_horizon_steps) == (1, None)
    pairs = forecast.mean[:14, 0].reshape(7, 2)
    assert np.diff(pairs).mean() == pytest.approx(EFFECT, abs=1)
    first = forecaster.forecast(series.rows(0, 600).select(columns), 100, series.values[600:700, [1]])
    assert np.abs(first.mean[:, 0] - series.values[600:700, 0]).mean() < 0.5  # the noise is 0.3


@pytest.mark.parametrize("mode", ["additive", "multiplicative"])
def test_the_bundle_repeats_prophets_own_forecast(series: Series, mode: str) -> None:
    rows = series.rows(0, 300).select(COLUMNS)
    data = training_set(rows, targets=("sales",), future_columns=("promotion",))

    _, forecaster = made(data, prophet_seasonality_mode=mode)

    options = NonmlSettings.model_construct(prophet_seasonality_mode=mode)
    known = rows.values[:, [1]]
    own = fit_prophet(rows.times, observed_targets(data.recipe, data.features)[:, 0], options, "exact", known)
    ahead = series.values[300:330, [1]]
    expected = predict(own, series.times[300:330], ahead)
    np.testing.assert_allclose(forecaster.forecast(rows, 30, ahead).mean[:, 0], expected, rtol=1e-4)


def test_holidays_follow_from_the_time_and_nothing_is_asked_for() -> None:
    series = with_holidays(1_000, FixedGrid(DAY), -6.0)

    bundle, forecaster = made(training_set(series.rows(0, 800), holidays=("DE",)))

    forecast = forecaster.forecast(series.rows(0, 800), 200)
    assert (bundle.input_kind, bundle.future_columns) == ("timestamps", ())
    assert np.abs(forecast.mean[:, 0] - series.values[800:, 0]).max() < 1.0  # the effect is 6
