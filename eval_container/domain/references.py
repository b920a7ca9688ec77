"""The reference rows of a scoreboard: what anybody could forecast without a trainer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eval_container.domain.scoring import Contender
from flts.bundle.forecaster import longest_horizon, roll_origins
from flts.errors import SeriesTooShortError
from flts.forecasting.recipe import Features, FittedRecipe, imputed_rows, scaled_rows, unscale_targets
from flts.forecasting.references import persistence, seasonal_naive
from flts.forecasting.ridge import RidgeModel, fit_ridge
from flts.forecasting.series import FloatArray, IntArray, Series
from flts.forecasting.splits import tails
from flts.forecasting.windows import sliding_windows

PERSISTENCE, SEASONAL, RIDGE = "persistence", "seasonal-naive", "ridge"
RIDGE_MAX_INPUTS = 2_000
"""Numbers in one window; the fit takes their cube in operations, 3 s at this size."""
RIDGE_MAX_CELLS = 100_000_000
"""Numbers in all windows that it is fitted on; of more only the newest, 0.4 GB, are taken."""


@dataclass(frozen=True, slots=True)
class WindowShape:
    """How the candidates' windows are cut out of the training rows."""

    input_seq_len: int
    output_seq_len: int
    stop_tail: float
    calibration_tail: float


def persistence_contender(recipe: FittedRecipe, test: Series) -> Contender:
    """Return the forecast that repeats the last value."""
    values = _filled_targets(recipe, test)
    return Contender(lambda origins, horizon: persistence(values, origins, horizon))


def seasonal_contender(recipe: FittedRecipe, test: Series, train: Features, season_steps: int) -> Contender:
    """Return the forecast that repeats the last season; the first one is looked up in the training rows."""
    before = train.times < test.times[0]
    history = train_targets(recipe, train)[before][-season_steps:]
    values = np.concatenate([history, _filled_targets(recipe, test)])
    times = np.concatenate([train.times[before][-season_steps:], test.times])
    skipped = len(history)

    def forecast(origins: IntArray, horizon: int) -> FloatArray:
        return seasonal_naive(
            values,
            times,
            origins + skipped,
            horizon,
            season_steps=season_steps,
            step_seconds=test.step_seconds,
        )

    return Contender(forecast)


def ridge_contender(recipe: FittedRecipe, test: Series, train: Features, shape: WindowShape) -> Contender | None:
    """Return a linear model fitted on the candidates' fit windows; None where there are none or they are too wide."""
    width = shape.input_seq_len * len(train.names)
    if width > RIDGE_MAX_INPUTS:
        return None
    try:
        model = _fit(recipe, train, shape, most_rows=max(1_000, RIDGE_MAX_CELLS // width))
    except SeriesTooShortError:
        return None
    scaled, _ = scaled_rows(recipe, test)

    def forecast(origins: IntArray, horizon: int) -> FloatArray:
        rolled = roll_origins(
            model,
            recipe,
            scaled=scaled,
            times=test.times,
            origins=origins,
            horizon_steps=horizon,
            input_seq_len=shape.input_seq_len,
        )
        return unscale_targets(recipe, rolled)

    return Contender(forecast, max_horizon=longest_horizon(recipe, shape.output_seq_len))


def train_targets(recipe: FittedRecipe, train: Features) -> FloatArray:
    """Return the training rows' varying targets in raw units, (n, m), missing cells filled."""
    return unscale_targets(recipe, train.values[:, recipe.varying_columns])


def observed_train_targets(recipe: FittedRecipe, train: Features) -> FloatArray:
    """Return the training rows' varying targets in raw units, (n, m), NaN where they were missing."""
    return np.where(train.imputed[:, recipe.varying_columns], np.nan, train_targets(recipe, train))


def _filled_targets(recipe: FittedRecipe, test: Series) -> FloatArray:
    values, _ = imputed_rows(recipe, test)
    targets: FloatArray = values[:, recipe.varying_columns]
    return targets


def _fit(recipe: FittedRecipe, train: Features, shape: WindowShape, *, most_rows: int) -> RidgeModel:
    cut = tails(len(train), stop_tail=shape.stop_tail, calibration_tail=shape.calibration_tail)
    targets = train.values[:, recipe.varying_columns]
    ranges = ((max(0, cut.fit_stop - most_rows), cut.fit_stop), (cut.fit_stop, cut.stop_stop))
    fit, stop = (
        sliding_windows(
            train.values,
            targets,
            segments=train.segments(),
            window_steps=shape.input_seq_len,
            horizon_steps=shape.output_seq_len,
            first_target_row=first,
            last_target_row=last,
        )
        for first, last in ranges
    )
    return fit_ridge(fit, stop)
