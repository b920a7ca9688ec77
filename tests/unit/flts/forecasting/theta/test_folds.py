from __future__ import annotations

import numpy as np
import pytest

from flts.bundle.forecaster import Forecaster
from flts.bundle.model import BundleModel
from flts.forecasting.folds import Fold, expanding_folds
from flts.forecasting.recipe import RecipeSpec, fit_recipe, transform
from flts.forecasting.series import Series
from flts.forecasting.splits import as_train
from flts.forecasting.theta.folds import THETA_FORM
from flts.settings import WindowSettings
from flts.training.bundling import Identity
from flts.training.dataset import training_set
from flts.training.theta import make_theta
from tests.chance_folds import SHARES, monthly, trend_and_season

HORIZON = 6


def folds_of(series: Series, horizon: int = HORIZON) -> list[Fold]:
    recipe = fit_recipe(as_train(series), RecipeSpec())
    features = transform(recipe, series)
    return list(
        expanding_folds(
            THETA_FORM, recipe, features, horizon=horizon, shares=SHARES, season=12, most=1_000, alive=lambda: None
        )
    )


def test_a_fold_is_what_theta_trained_on_its_rows_alone_forecasts() -> None:
    series = monthly(trend_and_season(3))
    own = series.rows(0, 92)
    recipe = fit_recipe(as_train(own), RecipeSpec())
    data = training_set(transform(recipe, own), recipe, WindowSettings(stop_tail=SHARES[0], calibration_tail=SHARES[1]))
    bundle = make_theta(
        data, Identity("m", "c" * 64, "THETA", "e" * 64), horizon=HORIZON, threads=1, alive=lambda: None
    )

    fold = folds_of(series)[2]

    assert fold.rows.tolist() == list(range(92, 107))
    expected = Forecaster(BundleModel(*bundle)).forecast_origins(series, fold.rows, HORIZON)
    assert fold.candidate == pytest.approx(expected, rel=1e-4)


def test_a_fold_whose_rows_do_not_show_the_season_is_left_out() -> None:
    values = trend_and_season(3)
    values[:12] = values[12] + 5 * np.random.default_rng(1).normal(size=12)

    assert [int(fold.rows[0]) for fold in folds_of(monthly(trend_and_season(3)))] == [52, 72, 92, 112]
    assert [int(fold.rows[0]) for fold in folds_of(monthly(values))] == [112]
