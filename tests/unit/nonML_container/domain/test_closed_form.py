from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from prophet import Prophet

from flts.bundle.graph import check_graph
from flts.errors import RejectedError
from flts.forecasting.grid import FixedGrid
from flts.forecasting.recipe import RecipeSpec, fit_recipe, scale_targets
from flts.forecasting.series import Series
from flts.forecasting.splits import as_train
from flts.model_settings import ProphetSettings
from flts.training.onnx_file import to_bytes
from nonML_container.domain.closed_form import prophets_to_onnx
from nonML_container.domain.fit import fit_prophet, predict

STEP = 3600
TIMES = 1_699_999_200 + STEP * np.arange(24 * 21)


def values_of(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    hours = np.arange(len(TIMES))
    bend = np.maximum(hours - 200, 0) * 0.05
    return 10 ** (3 * seed) * (20 + bend + 5 * np.sin(2 * np.pi * hours / 24 + seed) + rng.normal(0, 1, len(hours)))


VALUES = np.stack([values_of(0), values_of(1)], axis=1)
SERIES = Series(TIMES, ("a", "b"), VALUES, FixedGrid(STEP))


def difference(options: ProphetSettings, values: np.ndarray = VALUES, **recipe: Any) -> float:
    """Return the largest difference between the graph and Prophet's own forecast, relative to each target's range."""
    fitted = fit_recipe(as_train(Series(TIMES, ("a", "b"), values, FixedGrid(STEP))), RecipeSpec(**recipe))
    models = [fit_prophet(TIMES, column, options, "exact") for column in values.T]
    data = to_bytes(prophets_to_onnx(models, fitted))
    check_graph(data)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    # The times are inside the history, at its ends, far before it and far after it, and some are not on a full hour.
    beyond = TIMES[-1] + np.array([1, 10**4, 10**8])
    seconds = np.concatenate([TIMES[::37], TIMES[:1] - 10**7, beyond])
    (answer,) = session.run(["forecast"], {"seconds": seconds})
    expected = scale_targets(fitted, np.stack([predict(model, seconds) for model in models], axis=1))
    assert answer.dtype == np.float64
    return float((np.abs(answer - expected).max(axis=0) / np.abs(expected).max(axis=0)).max())


@pytest.mark.parametrize(
    "options",
    [
        ProphetSettings(),
        ProphetSettings(prophet_seasonality_mode="multiplicative"),
        ProphetSettings(prophet_yearly_seasonality="true", prophet_weekly_seasonality="false"),
        ProphetSettings(prophet_n_changepoints=0),
        ProphetSettings(prophet_n_changepoints=3, prophet_changepoint_prior_scale=0.5, prophet_changepoint_range=1),
        ProphetSettings(
            prophet_daily_seasonality="false", prophet_weekly_seasonality="false", prophet_yearly_seasonality="false"
        ),
    ],
)
def test_the_graph_is_prophets_own_forecast_at_any_time(options: ProphetSettings) -> None:
    assert difference(options) < 1e-8


@pytest.mark.parametrize("scaler", ["StandardScaler", "RobustScaler", "none"])
def test_the_graph_answers_in_the_recipes_scaled_units(scaler: str) -> None:
    assert difference(ProphetSettings(), scaler=scaler, add_val=0.25) < 1e-8


def test_targets_with_histories_of_their_own_share_the_graph() -> None:
    values = np.stack([values_of(0), values_of(1)], axis=1)
    values[:30, 1] = np.nan
    values[100:110, 0] = np.nan

    assert difference(ProphetSettings(), values) < 1e-8


def test_the_same_fit_makes_the_same_bytes() -> None:
    recipe = fit_recipe(as_train(SERIES), RecipeSpec())

    def digest() -> str:
        models = [fit_prophet(TIMES, column, ProphetSettings(), "exact") for column in VALUES.T]
        return hashlib.sha256(to_bytes(prophets_to_onnx(models, recipe))).hexdigest()

    assert digest() == digest()


def frame(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"ds": pd.to_datetime(TIMES, unit="s"), "y": VALUES[:, 0], **columns})


def with_holidays() -> Prophet:
    days = pd.DataFrame({"ds": pd.to_datetime(["2023-11-20"]), "holiday": ["day off"]})
    return Prophet(holidays=days, uncertainty_samples=0).fit(frame())


def with_growth(growth: str) -> Prophet:
    return Prophet(growth=growth, uncertainty_samples=0).fit(frame(cap=100.0))


def with_regressor() -> Prophet:
    model = Prophet(uncertainty_samples=0)
    model.add_regressor("heat")
    return model.fit(frame(heat=np.arange(len(TIMES)) / 100))


def with_condition() -> Prophet:
    model = Prophet(uncertainty_samples=0, weekly_seasonality=False)
    model.add_seasonality("season", period=7, fourier_order=2, condition_name="on")
    return model.fit(frame(on=np.arange(len(TIMES)) % 2 == 0))


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (with_holidays, "holidays"),
        (lambda: with_growth("logistic"), "growth logistic"),
        (lambda: with_growth("flat"), "growth flat"),
        (with_regressor, "regressors heat"),
        (with_condition, "condition of seasonality season"),
    ],
)
def test_what_the_graph_does_not_hold_is_refused_rather_than_approximated(make: Any, what: str) -> None:
    recipe = fit_recipe(as_train(SERIES.select(("a",))), RecipeSpec())

    with pytest.raises(RejectedError, match=what) as refused:
        prophets_to_onnx([make()], recipe)
    assert refused.value.code == "unsupported_model"
