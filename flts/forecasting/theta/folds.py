"""THETA on expanding folds of the training rows."""

from __future__ import annotations

from flts.forecasting.fitted import FittedRecipe
from flts.forecasting.folds import ClosedForm
from flts.forecasting.linear.model import path_residuals
from flts.forecasting.recipe import Features, targets_only
from flts.forecasting.series import FloatArray, IntArray
from flts.forecasting.splits import Tails
from flts.forecasting.theta.fit import NoThetaError, choose_theta, solve_theta
from flts.forecasting.theta.rows import theta_rows, theta_seasons


def _seasons(recipe: FittedRecipe, features: Features, own: Tails) -> tuple[int, ...]:
    return theta_seasons(recipe, features, own.stop_stop)


def _path_errors(
    recipe: FittedRecipe, features: Features, own: Tails, horizon: int, most: int
) -> tuple[IntArray, FloatArray]:
    """Choose on the rows before the calibration tail, and solve on all rows of the tails, as THETA's trainer does."""
    rows = theta_rows(recipe, features, stop=own.stop_stop)
    choice = choose_theta(rows, horizon=horizon, stop=own.stop_stop, alive=lambda: None)
    model = solve_theta(rows, choice, stop=own.n_rows)
    return path_residuals(model, rows.table, first=own.n_rows, stop=len(features), most=most, whole=True)


THETA_FORM = ClosedForm(targets_only, _seasons, _path_errors, NoThetaError, 1)
"""All steps share their parameters, so a fold needs no origins per step."""
