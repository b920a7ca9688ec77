"""The baselines that a model must beat: the last value, the last season, Ridge and the mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np

from flts.errors import RejectedError
from flts.forecasting.recipe import Features, FittedRecipe, observed_targets, scale_targets, targets_only
from flts.forecasting.ridge import RidgeModel, fit_ridge
from flts.forecasting.seasons import best_season, seasons_within
from flts.forecasting.series import FloatArray, segment_starts
from flts.forecasting.splits import Tails
from flts.forecasting.windows import Float32Array, sliding_windows

STEPS = 60
"""Most steps that persistence and the last season forecast in one pass; longer horizons feed forecasts back."""
SEASON_MAX_CELLS = 50_000
"""Numbers in a window of one season; the bundle contains a window as its probe, 1 MB of JSON at this size."""
RIDGE_MAX_INPUTS = 2_000
"""Numbers in one window; the operations of the fit grow with their cube, 3 s at this size."""
RIDGE_MAX_COEFFICIENTS = 4_000_000
"""Inputs times outputs: 32 MB of float64 in the bundle, and several times that during the fit."""
RIDGE_MAX_CELLS = 100_000_000
"""Numbers in all windows that Ridge is fitted on, 0.4 GB of float32; older rows are left out."""
RIDGE_LEAST_ROWS = 1_000
"""Rows that Ridge is fitted on even if `RIDGE_MAX_CELLS` allows fewer."""


class NoBaselineError(RejectedError):
    """The baseline cannot be fitted on these training rows."""

    code = "no_baseline"


@dataclass(frozen=True, slots=True, eq=False)
class Repeat:
    """A `WindowModel` that repeats rows of its window.

    Parameters
    ----------
    window_rows : int
        L.
    rows : tuple of H positions
        The row of the window that each step repeats.
    columns : tuple of m positions
        Positions of the varying targets among the window's columns.
    """

    window_rows: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    def __call__(self, windows: Float32Array) -> Float32Array:
        """Forecast (b, H, m) from windows (b, L, f)."""
        repeated: Float32Array = windows[:, self.rows][..., self.columns]
        return repeated


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A model that forecasts the same values at any time.

    Parameters
    ----------
    values : (m,)
        Scaled varying targets.
    """

    values: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """A fitted baseline with its recipe and its training rows."""

    model: Repeat | RidgeModel | Constant
    window_rows: int
    """Rows of the model's window, 0 for a model without a window."""
    recipe: FittedRecipe
    features: Features
    """The training rows, transformed by ``recipe``."""
    fitted_rows: int = 0
    """Training rows, from the first one on, that determine the model; 0 for a model without fitted numbers."""


@dataclass(frozen=True, slots=True)
class WindowShape:
    """Window, pass and horizon of the run's models, in rows."""

    input_seq_len: int
    output_seq_len: int
    horizon: int = 1


def fit_baseline(
    model_type: str, features: Features, recipe: FittedRecipe, tails: Tails, shape: WindowShape
) -> Baseline:
    """Fit one baseline.

    Parameters
    ----------
    model_type : {"PERSISTENCE", "SEASONAL_NAIVE", "RIDGE", "MEAN"}
    features : Features
        Features of the training rows, made with `recipe`.
    tails : Tails
        Split of the training rows; no baseline is fitted on the calibration tail. If later rows follow the training
        rows, as in a refit, all rows are fitted.
    shape : WindowShape
        Window and pass of Ridge; seasonal-naive repeats the season that is best over the horizon.

    Raises
    ------
    NoBaselineError
        If the baseline cannot be fitted on these rows; the message contains the reason.
    """
    if not recipe.varying_targets:
        _refuse("no target ever changes")
    return _FITS[model_type](features, recipe, tails, shape)


def _persistence(features: Features, recipe: FittedRecipe, _tails: Tails, _shape: WindowShape) -> Baseline:
    return _repeat(features, recipe, 1, (0,) * STEPS)


def _seasonal_naive(features: Features, recipe: FittedRecipe, tails: Tails, shape: WindowShape) -> Baseline:
    seasons = seasons_within(features.grid, len(features))
    if not seasons:
        _refuse("the training rows do not hold two seasons")
    small = [season for season in seasons if season * len(recipe.targets) <= SEASON_MAX_CELLS]
    if not small:
        _refuse(
            f"a season of {seasons[0]:,} rows and {len(recipe.targets)} targets is more than {SEASON_MAX_CELLS:,} cells"
        )
    known = scale_targets(recipe, observed_targets(recipe, features))
    starts = segment_starts(features.times, features.grid)
    season = best_season(known, starts, small, horizon=shape.horizon, first_row=tails.fit_stop) or small[0]
    return replace(_repeat(features, recipe, season, tuple(range(min(season, STEPS)))), fitted_rows=len(features))


def _repeat(features: Features, recipe: FittedRecipe, window_rows: int, rows: tuple[int, ...]) -> Baseline:
    own, seen = targets_only(recipe, features)
    return Baseline(Repeat(window_rows, rows, tuple(own.varying_columns.tolist())), window_rows, own, seen)


def _ridge(features: Features, recipe: FittedRecipe, tails: Tails, shape: WindowShape) -> Baseline:
    width = shape.input_seq_len * len(features.names)
    outputs = shape.output_seq_len * len(recipe.varying_targets)
    if width > RIDGE_MAX_INPUTS or width * outputs > RIDGE_MAX_COEFFICIENTS:
        _refuse(f"its windows of {width:,} numbers for {outputs:,} are too wide")
    most_rows = max(RIDGE_LEAST_ROWS, RIDGE_MAX_CELLS // width)
    fit, stop = (
        sliding_windows(
            features.values,
            features.values[:, recipe.varying_columns],
            segments=features.segments(),
            window_steps=shape.input_seq_len,
            horizon_steps=shape.output_seq_len,
            first_target_row=first,
            last_target_row=last,
        )
        for first, last in ((max(0, tails.fit_stop - most_rows), tails.fit_stop), (tails.fit_stop, tails.stop_stop))
    )
    if not len(fit):
        _refuse("there are no windows to fit it on")
    model = fit_ridge(fit, stop)
    return Baseline(model, shape.input_seq_len, recipe, features, tails.stop_stop)


def _mean(features: Features, recipe: FittedRecipe, tails: Tails, _shape: WindowShape) -> Baseline:
    own, seen = targets_only(recipe, features, tails.n_rows)
    rows = tails.stop_stop if len(features) == tails.n_rows else len(features)
    observed = scale_targets(own, observed_targets(own, seen)[:rows])
    if np.isnan(observed).all(axis=0).any():
        _refuse("a target has no value before the calibration tail")
    return Baseline(Constant(np.nanmean(observed, axis=0)), 0, own, seen, rows)


def _refuse(message: str) -> NoReturn:
    raise NoBaselineError(message)


_FITS: dict[str, Callable[[Features, FittedRecipe, Tails, WindowShape], Baseline]] = {
    "PERSISTENCE": _persistence,
    "SEASONAL_NAIVE": _seasonal_naive,
    "RIDGE": _ridge,
    "MEAN": _mean,
}
