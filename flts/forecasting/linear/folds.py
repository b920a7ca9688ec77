"""LINEAR as a closed form for folds, and its residuals in expanding folds of the training rows, for intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from flts.forecasting.expanding import FoldResiduals, FoldRows, fold_rows, most_origins
from flts.forecasting.fitted import FittedRecipe
from flts.forecasting.folds import ClosedForm, rows_before
from flts.forecasting.linear.choice import LinearChoice
from flts.forecasting.linear.fit import choose_linear, solve_linear
from flts.forecasting.linear.fitting import ORIGINS_PER_STEP
from flts.forecasting.linear.known import TakenOut
from flts.forecasting.linear.model import LinearModel, path_residuals
from flts.forecasting.linear.rows import seasons_shown, table_of
from flts.forecasting.linear.table import LinearTable, NoLinearError
from flts.forecasting.recipe import Features, measured_only, observed_targets
from flts.forecasting.series import FloatArray, IntArray
from flts.forecasting.splits import Tails


def linear_residuals(
    recipe: FittedRecipe,
    features: Features,
    *,
    horizon: int,
    whole: Tails,
    limits: tuple[FloatArray, FloatArray],
    alive: Callable[[], None],
    choice: LinearChoice | None = None,
) -> list[FoldResiduals]:
    """Return the residuals of the folds of `flts.forecasting.folds.expanding_folds`, for intervals.

    Every row of a fold can be an origin here. The last steps of a forecast may be after the fold, since they are not
    fitted on either. Each fold is solved on its own rows, with the choice of all training rows: to choose again in each
    fold would cost twice as much as all else.

    Parameters
    ----------
    recipe, features : FittedRecipe, Features
        The run's recipe, and all training rows made with it.
    horizon : int
        H, steps.
    whole : Tails
        Of all training rows; the folds have the same shares.
    limits : ((m,), (m,))
        Lowest and highest value of the forecasts, raw.
    alive : callable
        Called before each fold.
    choice : LinearChoice, optional
        Of the training rows; made here if it is not given.
    """
    recipe, features = measured_only(recipe, features)
    observed = observed_targets(recipe, features)
    folds = []
    try:
        choice = choice or _choice(whole, recipe, features, horizon)
    except NoLinearError:
        return []
    for fold in _fitted(features, horizon, whole):
        alive()
        until = rows_before(features, fold.end + horizon - 1)
        try:
            model, table = _solved(fold.own, recipe, until, choice)
        except NoLinearError:
            continue
        most = most_origins(observed.shape[1])
        rows, residuals = path_residuals(model, table, first=fold.own.n_rows, stop=len(until), last=fold.end, most=most)
        if len(rows):
            actual = observed[np.minimum(rows[:, None] + np.arange(horizon), len(until) - 1)]
            forecast = np.clip(actual - residuals * recipe.scales_of_targets, *limits)
            folds.append(FoldResiduals(fold.number, rows, actual - forecast))
    return folds


def _fitted(features: Features, horizon: int, whole: Tails) -> Iterator[FoldRows]:
    """Yield the folds on whose rows LINEAR is the model of all training rows."""
    seasons = seasons_shown(features.grid, whole.fit_stop)
    for fold in fold_rows(len(features), shares=whole.shares):
        enough = fold.own.n_rows >= ORIGINS_PER_STEP * horizon
        if enough and seasons_shown(features.grid, fold.own.fit_stop) == seasons:
            yield fold


def _seasons(_recipe: FittedRecipe, features: Features, own: Tails) -> tuple[int, ...]:
    return seasons_shown(features.grid, own.fit_stop)


def _path_errors(
    recipe: FittedRecipe, features: Features, own: Tails, horizon: int, most: int
) -> tuple[IntArray, FloatArray]:
    """Choose on the stopping tail, and solve on all rows of the tails, as LINEAR's trainer does."""
    model, table = _solved(own, recipe, features, _choice(own, recipe, features, horizon))
    rows, errors = path_residuals(model, table, first=own.n_rows, stop=len(features), most=most, whole=True)
    return rows, errors * recipe.scales_of_targets


def _choice(own: Tails, recipe: FittedRecipe, features: Features, horizon: int) -> LinearChoice:
    """Return LINEAR's choice on the stopping tail of the rows of ``own``; NoLinearError if they are too few."""
    table, _ = table_of(features, fit_stop=own.fit_stop)
    return choose_linear(
        TakenOut.of(table, recipe, features).at(own.fit_stop)[0],
        horizon=horizon,
        fit_stop=own.fit_stop,
        stop_stop=own.stop_stop,
        targets=tuple(recipe.varying_columns.tolist()),
    )


def _solved(
    own: Tails, recipe: FittedRecipe, features: Features, choice: LinearChoice
) -> tuple[LinearModel, LinearTable]:
    """Return LINEAR solved on the rows of ``own``, and the table of all rows; NoLinearError if they are too few."""
    table, _ = table_of(features, fit_stop=own.fit_stop)
    table, _ = TakenOut.of(table, recipe, features).at(own.n_rows)
    return solve_linear(table, choice, stop=own.n_rows), table


LINEAR_FORM = ClosedForm(measured_only, _seasons, _path_errors, NoLinearError, ORIGINS_PER_STEP)
"""Its choices need some origins per step, because each step has weights of its own."""
