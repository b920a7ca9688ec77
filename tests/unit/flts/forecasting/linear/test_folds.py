from __future__ import annotations

import numpy as np
import pytest

from flts.bundle.forecaster import Forecaster
from flts.bundle.model import BundleModel
from flts.forecasting.folds import Fold, expanding_folds, forecast_after
from flts.forecasting.linear.folds import LINEAR_FORM
from flts.forecasting.recipe import RecipeSpec, fit_recipe, measured_only, transform
from flts.forecasting.series import FloatArray, Series
from flts.forecasting.splits import as_train, tails
from flts.settings import WindowSettings
from flts.training.bundling import Identity
from flts.training.dataset import training_set
from flts.training.linear import make_linear
from tests.chance_folds import SHARES, monthly, trend_and_season

HORIZON = 6


def folds_of(series: Series, *, horizon: int = HORIZON, season: int | None = 12, most: int = 1_000) -> list[Fold]:
    recipe = fit_recipe(as_train(series), RecipeSpec())
    features = transform(recipe, series)
    return list(
        expanding_folds(
            LINEAR_FORM,
            recipe,
            features,
            horizon=horizon,
            shares=SHARES,
            season=season,
            most=most,
            alive=lambda: None,
        )
    )


def values(rows: int = 132) -> FloatArray:
    return trend_and_season(3)[:rows]


def test_each_fold_forecasts_the_rows_after_its_own() -> None:
    folds = folds_of(monthly(values()))

    # 132 rows end at 52, 72, 92, 112 and 132; the last origin has six rows from it on.
    assert [fold.rows.tolist() for fold in folds] == [list(range(stop, stop + 15)) for stop in (52, 72, 92, 112)]
    for fold in folds:
        ahead = fold.rows[:, None] + np.arange(HORIZON)
        assert fold.actual[..., 0] == pytest.approx(values()[ahead])
        assert np.abs(fold.candidate - fold.actual).mean() < 5
        assert fold.baselines["PERSISTENCE"][..., 0] == pytest.approx(np.repeat(values()[fold.rows - 1][:, None], 6, 1))
        assert fold.baselines["SEASONAL_NAIVE"][..., 0] == pytest.approx(values()[ahead - 12])


def test_the_mean_of_a_fold_is_that_of_its_rows_before_the_calibration_tail() -> None:
    [first, *_] = folds_of(monthly(values()))

    assert first.baselines["MEAN"] == pytest.approx(np.full((15, HORIZON, 1), values()[:46].mean()))


def test_seasonal_naive_repeats_the_last_season_and_falls_back_to_persistence() -> None:
    [*_, last] = folds_of(monthly(values()), season=4)
    at = int(last.rows[0])
    assert last.baselines["SEASONAL_NAIVE"][0, :, 0] == pytest.approx(
        values()[[at - 4, at - 3, at - 2, at - 1, at - 4, at - 3]]
    )

    long = folds_of(monthly(values()), season=60)[0].baselines
    assert long["SEASONAL_NAIVE"][:8] == pytest.approx(long["PERSISTENCE"][:8])  # rows 52 to 59
    assert long["SEASONAL_NAIVE"][8, :, 0] == pytest.approx(values()[:6])
    assert set(folds_of(monthly(values()), season=None)[0].baselines) == {"PERSISTENCE", "MEAN"}


def test_a_fold_that_shows_fewer_seasons_or_is_short_of_the_horizon_is_left_out() -> None:
    # 115 rows end at 46, 63, 80, 97 and 115; 46 rows are fewer than four times 12.
    assert [int(fold.rows[0]) for fold in folds_of(monthly(values(115)), horizon=11)] == [46, 63, 80, 97]
    assert [int(fold.rows[0]) for fold in folds_of(monthly(values(115)), horizon=12)] == [63, 80, 97]
    assert [int(fold.rows[0]) for fold in folds_of(monthly(values(105)))] == [57, 73, 89]
    assert folds_of(monthly(values(60)), horizon=10) == []


def test_origins_are_thinned_evenly() -> None:
    [first, *_] = folds_of(monthly(values()), most=8)

    assert first.rows.tolist() == [52, 54, 56, 58, 60, 62, 64, 66]


def test_a_fold_is_what_linear_trained_on_its_rows_alone_forecasts() -> None:
    series = monthly(values())
    own = series.rows(0, 92)
    recipe = fit_recipe(as_train(own), RecipeSpec())
    features = transform(recipe, own)
    data = training_set(features, recipe, WindowSettings(stop_tail=SHARES[0], calibration_tail=SHARES[1]))
    bundle = make_linear(
        data, Identity("m", "c" * 64, "LINEAR", "e" * 64), horizon=HORIZON, threads=1, alive=lambda: None
    )

    fold = folds_of(series)[2]

    expected = Forecaster(BundleModel(*bundle)).forecast_origins(series, fold.rows, HORIZON)
    assert fold.candidate == pytest.approx(expected, rel=1e-3)


def test_no_later_row_changes_a_forecast() -> None:
    changed = values()
    changed[92:] = changed[92:][::-1]

    before, after = (folds_of(monthly(each))[2] for each in (values(), changed))

    assert before.candidate[0] == pytest.approx(after.candidate[0], rel=1e-6)
    assert before.actual[0] != pytest.approx(after.actual[0], rel=1e-2)


def test_forecasts_of_values_that_were_never_negative_are_not_negative() -> None:
    falling = np.maximum(np.linspace(60, -40, 132), 0) + 0.01 * np.random.default_rng(0).random(132)
    series = monthly(falling)
    recipe = fit_recipe(as_train(series), RecipeSpec())
    own, features = measured_only(recipe, transform(recipe, series))
    shares = tails(70, stop_tail=SHARES[0], calibration_tail=SHARES[1])

    fold = forecast_after(LINEAR_FORM, shares, own, features, horizon=12, season=None, most=100)
    free = forecast_after(
        LINEAR_FORM, shares, own, features, horizon=12, season=None, most=100, limit_rules=(None, 70.0)
    )

    assert fold.candidate.min() == 0
    assert free.candidate.min() < 0
    np.testing.assert_array_equal(fold.candidate, np.maximum(free.candidate, 0))
