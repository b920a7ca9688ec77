"""Forecasts of a closed form and of the baselines from expanding folds of the training rows.

A fold is fitted on the first rows and forecasts the rows after them. A closed form (LINEAR, THETA) costs little to
solve again. Other model types have no folds, because each of their fits needs the model's own trainer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from flts.errors import RejectedError
from flts.forecasting.baseline_folds import baseline_forecasts
from flts.forecasting.expanding import fold_rows
from flts.forecasting.fitted import FittedRecipe
from flts.forecasting.limits import AUTOMATIC, LimitRules, find_limits
from flts.forecasting.recipe import Features, observed_targets
from flts.forecasting.series import FloatArray, IntArray
from flts.forecasting.splits import Tails, tails


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """The forecasts of one fold.

    Parameters
    ----------
    rows : (n,)
        Training rows of the first forecast steps, increasing.
    actual : (n, H, m)
        Observed values of the varying targets, raw; NaN where the cell was imputed.
    candidate : (n, H, m)
        Raw forecasts of the closed form; NaN where ``actual`` is NaN.
    baselines : mapping of (n, H, m)
        Raw forecasts by model type.
    """

    rows: IntArray
    actual: FloatArray
    candidate: FloatArray
    baselines: Mapping[str, FloatArray]


@dataclass(frozen=True, slots=True)
class ClosedForm:
    """How a model is fitted on the first rows of a table and forecasts those after them.

    Parameters
    ----------
    own_rows : callable
        Returns the recipe and the training rows that the model reads, from the run's.
    seasons : callable
        Returns the lengths of the seasons that the model reads if it is fitted on the rows of the tails.
    path_errors : callable
        Fits on the rows of the tails. Returns the rows (n,) of the first steps of the paths after them, at most so
        many, and their errors (n, H, m): observed less forecast in raw units, NaN where no value was observed.
    failure : type
        Error of a fit on too few rows.
    rows_per_step : int
        Rows to fit on per step of the horizon at least.
    """

    own_rows: Callable[[FittedRecipe, Features], tuple[FittedRecipe, Features]]
    seasons: Callable[[FittedRecipe, Features, Tails], tuple[int, ...]]
    path_errors: Callable[[FittedRecipe, Features, Tails, int, int], tuple[IntArray, FloatArray]]
    failure: type[RejectedError]
    rows_per_step: int


def expanding_folds(
    closed_form: ClosedForm,
    recipe: FittedRecipe,
    features: Features,
    *,
    horizon: int,
    shares: tuple[float, float],
    season: int | None,
    most: int,
    alive: Callable[[], None],
    limit_rules: LimitRules = AUTOMATIC,
) -> Iterator[Fold]:
    """Fit on the first 40, 55, 70 and 85 % of the training rows, and forecast the next 15 % of each.

    As in its trainer, the model chooses on a fold's own rows and is solved on all of them. So no choice depends on a
    later row. A fold is left out if its rows are too few for the model, fewer than its ``rows_per_step``
    per step of the horizon, or show other seasons than all training rows do: it would measure another model than the
    one in the bundle.

    Parameters
    ----------
    closed_form : ClosedForm
    recipe : FittedRecipe
        The run's.
    features : Features
        All training rows, made with ``recipe``.
    horizon : int
        H, steps.
    shares : (2,)
        Of the stopping tail and of the calibration tail (``STOP_TAIL``, ``CALIBRATION_TAIL``).
    season : int, optional
        Rows that seasonal-naive's bundle repeats; None if there is no such bundle.
    most : int
        Origins of a fold at most, evenly spread.
    alive : callable
        Called before each fold.
    limit_rules : LimitRules
        Of the run; they apply to the model, since a baseline of values within bounds is within them.
    """
    recipe, features = closed_form.own_rows(recipe, features)
    seasons = closed_form.seasons(
        recipe, features, tails(len(features), stop_tail=shares[0], calibration_tail=shares[1])
    )
    for rows in fold_rows(len(features), shares=shares):
        own, end = rows.own, rows.end
        if end - own.n_rows < horizon or own.n_rows < closed_form.rows_per_step * horizon:
            continue
        if closed_form.seasons(recipe, features, own) != seasons:
            continue
        alive()
        try:
            fold = forecast_after(
                closed_form,
                own,
                recipe,
                rows_before(features, end),
                horizon=horizon,
                season=season,
                most=most,
                limit_rules=limit_rules,
            )
        except closed_form.failure:
            continue
        if len(fold.rows):
            yield fold


def forecast_after(
    closed_form: ClosedForm,
    own: Tails,
    recipe: FittedRecipe,
    features: Features,
    *,
    horizon: int,
    season: int | None,
    most: int,
    limit_rules: LimitRules = AUTOMATIC,
) -> Fold:
    """Fit on the rows of ``own``, and forecast the rows after them up to the last one.

    Parameters
    ----------
    closed_form : ClosedForm
    own : Tails
        Of the rows to fit on.
    recipe, features : FittedRecipe, Features
        As `ClosedForm.own_rows` returns them; ``features`` also contains the rows to forecast.
    horizon, season, most, limit_rules
        See `expanding_folds`.

    Raises
    ------
    RejectedError
        ``closed_form.failure`` if the rows to fit on are too few.
    """
    rows, residuals = closed_form.path_errors(recipe, features, own, horizon, most)
    observed = observed_targets(recipe, features)
    actual = observed[rows[:, None] + np.arange(horizon)]
    limits = find_limits(recipe, rows_before(features, own.n_rows), limit_rules)
    return Fold(
        rows,
        actual,
        np.clip(actual - residuals, *limits),
        baseline_forecasts(recipe, features, own, rows, horizon=horizon, season=season),
    )


def rows_before(features: Features, stop: int) -> Features:
    """Return the first training rows."""
    return replace(
        features, times=features.times[:stop], values=features.values[:stop], imputed=features.imputed[:stop]
    )
