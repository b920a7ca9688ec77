"""Forecasts and residuals of the baselines in expanding folds of the training rows: closed forms without a bundle."""

from __future__ import annotations

import numpy as np

from flts.forecasting.expanding import FoldResiduals, fold_rows, most_origins
from flts.forecasting.fitted import FittedRecipe
from flts.forecasting.recipe import Features, observed_targets, unscale_targets
from flts.forecasting.series import FloatArray, IntArray, paths_from, segment_starts
from flts.forecasting.splits import Tails


def baseline_residuals(
    model_type: str,
    recipe: FittedRecipe,
    features: Features,
    *,
    horizon: int,
    shares: tuple[float, float],
    season: int | None = None,
) -> list[FoldResiduals]:
    """Return the residuals of a baseline in the folds of the training rows.

    Seasonal-naive forecasts from the origins that have a whole season before them.

    Parameters
    ----------
    model_type : {"PERSISTENCE", "SEASONAL_NAIVE", "MEAN"}
    recipe, features : FittedRecipe, Features
        Of all training rows.
    horizon : int
        H, steps.
    shares : (2,)
        Of the stopping tail and of the calibration tail.
    season : int, optional
        Rows that seasonal-naive repeats.
    """
    observed = observed_targets(recipe, features)
    starts = segment_starts(features.times, features.grid)
    context = season if model_type == "SEASONAL_NAIVE" and season is not None else 1
    folds = []
    for fold in fold_rows(len(features), shares=shares):
        rows = np.arange(max(fold.own.n_rows, 1), fold.end)
        rows = rows[rows - starts[rows - 1] >= context]
        rows = rows[starts[rows] == starts[rows - 1]]  # the first row after a gap has no row before it
        most = most_origins(observed.shape[1])
        if len(rows) > most:
            rows = rows[np.arange(most) * (len(rows) - 1) // (most - 1)]
        if not len(rows):
            continue
        forecast = baseline_forecasts(recipe, features, fold.own, rows, horizon=horizon, season=season)[model_type]
        folds.append(FoldResiduals(fold.number, rows, paths_from(rows, horizon, observed, starts) - forecast))
    return folds


def baseline_forecasts(
    recipe: FittedRecipe, features: Features, own: Tails, rows: IntArray, *, horizon: int, season: int | None
) -> dict[str, FloatArray]:
    """Return the forecasts (n, H, m), raw, by the rules of `flts.forecasting.baselines`.

    The mean is that of the rows before the calibration tail. An origin without a whole season before it in its segment
    gets persistence's forecast.

    Parameters
    ----------
    recipe, features : FittedRecipe, Features
    own : Tails
        Of the rows to fit on.
    rows : (n,)
        Rows of the first forecast steps.
    horizon : int
    season : int, optional
        Rows that seasonal-naive repeats; without it there is no seasonal-naive.
    """
    observed = observed_targets(recipe, features)[: own.stop_stop]
    filled = unscale_targets(recipe, features.values[:, recipe.varying_columns])
    last = np.repeat(filled[rows - 1][:, None], horizon, axis=1)
    known = np.isfinite(observed)
    counts = known.sum(axis=0)
    sums = np.where(known, observed, 0.0).sum(axis=0)
    mean = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    found = {"PERSISTENCE": last, "MEAN": np.broadcast_to(mean, last.shape)}
    if season is not None:
        whole = rows - segment_starts(features.times, features.grid)[rows - 1] >= season
        before = rows[:, None] - season + np.arange(horizon) % season
        found["SEASONAL_NAIVE"] = np.where(whole[:, None, None], filled[np.maximum(before, 0)], last)
    return found
