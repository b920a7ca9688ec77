"""Residuals of the baselines in the folds of the training rows, computed by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flts.forecasting.baseline_folds import baseline_residuals
from flts.forecasting.expanding import FoldResiduals
from flts.forecasting.recipe import RecipeSpec, fit_recipe, transform
from flts.forecasting.series import FloatArray, Series
from flts.forecasting.splits import as_train
from tests.chance_folds import SHARES, monthly, trend_and_season

VALUES: FloatArray = trend_and_season(3)[:120]
HORIZON = 15


def residuals(kind: str, series: Series, season: int | None = None) -> list[FoldResiduals]:
    recipe = fit_recipe(as_train(series), RecipeSpec(max_gap_steps=2))
    features = transform(recipe, series)
    return baseline_residuals(kind, recipe, features, horizon=HORIZON, shares=SHARES, season=season)


def test_a_forecast_may_end_after_its_fold_but_not_after_the_training_rows() -> None:
    folds = residuals("PERSISTENCE", monthly(VALUES))

    assert [fold.rows.tolist() for fold in folds] == [list(range(at, at + 18)) for at in (48, 66, 84, 102)]
    actual = np.append(VALUES, np.full(HORIZON, np.nan))
    for fold in folds:
        path = actual[fold.rows[:, None] + np.arange(HORIZON)]
        expected = path - VALUES[fold.rows - 1][:, None]
        assert fold.residuals[..., 0] == pytest.approx(expected, nan_ok=True)
    assert np.isfinite(folds[2].residuals).all()
    assert np.isnan(folds[3].residuals).sum() == sum(range(1, HORIZON))


def test_seasonal_naive_needs_a_whole_season_before_an_origin() -> None:
    [first, *_] = residuals("SEASONAL_NAIVE", monthly(VALUES), season=50)

    assert first.rows.tolist() == list(range(50, 66))
    assert first.residuals[0, :, 0] == pytest.approx(VALUES[50:65] - VALUES[:15])


def test_the_mean_is_that_of_the_fold_s_own_rows_before_its_calibration_tail() -> None:
    [first, *_] = residuals("MEAN", monthly(VALUES))

    own = VALUES[: 48 - 5]  # a tenth of 48 rows, rounded up
    assert first.residuals[0, :, 0] == pytest.approx(VALUES[48:63] - own.mean())


def test_no_forecast_begins_after_a_gap_or_is_compared_with_a_row_behind_it() -> None:
    series = monthly(VALUES)
    kept = np.r_[0:60, 70:120]
    series = replace(series, times=series.times[kept], values=series.values[kept])

    [first, *_] = residuals("PERSISTENCE", series)

    assert 60 not in first.rows  # the row after the gap
    before = first.residuals[first.rows == 58][0, :, 0]
    assert np.isfinite(before[:2]).all()
    assert np.isnan(before[2:]).all()
