"""LINEAR on expanding folds of the training rows."""

from __future__ import annotations

from flts.forecasting.fitted import FittedRecipe
from flts.forecasting.folds import ClosedForm
from flts.forecasting.linear.fit import choose_linear, solve_linear
from flts.forecasting.linear.fitting import ORIGINS_PER_STEP
from flts.forecasting.linear.known import TakenOut
from flts.forecasting.linear.model import path_residuals
from flts.forecasting.linear.rows import seasons_shown, table_of
from flts.forecasting.linear.table import NoLinearError
from flts.forecasting.recipe import Features, measured_only
from flts.forecasting.series import FloatArray, IntArray
from flts.forecasting.splits import Tails


def _seasons(_recipe: FittedRecipe, features: Features, own: Tails) -> tuple[int, ...]:
    return seasons_shown(features.grid, own.fit_stop)


def _path_errors(
    recipe: FittedRecipe, features: Features, own: Tails, horizon: int, most: int
) -> tuple[IntArray, FloatArray]:
    """Choose on the stopping tail, and solve on all rows of the tails, as LINEAR's trainer does."""
    stop = own.n_rows
    table, _ = table_of(features, fit_stop=own.fit_stop)
    effects = TakenOut.of(table, recipe, features)
    choice = choose_linear(
        effects.at(own.fit_stop)[0],
        horizon=horizon,
        fit_stop=own.fit_stop,
        stop_stop=own.stop_stop,
        targets=tuple(recipe.varying_columns.tolist()),
    )
    table, _ = effects.at(stop)
    model = solve_linear(table, choice, stop=stop)
    rows, errors = path_residuals(model, table, first=stop, stop=len(features), most=most, whole=True)
    return rows, errors * recipe.scales_of_targets


LINEAR_FORM = ClosedForm(measured_only, _seasons, _path_errors, NoLinearError, ORIGINS_PER_STEP)
"""Its choices need some origins per step, because each step has weights of its own."""
