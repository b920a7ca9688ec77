"""Forecasts of a closed form and of the baselines from expanding folds of the training rows.

A fold is fitted on the first rows and forecasts the rows after them. A closed form (LINEAR, THETA) costs little to
solve again. Other model types have no folds, because each of their fits needs the model's own trainer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import numpy as np

from flts.errors import RejectedError
from flts.forecasting.fitted import FittedRecipe
from flts.forecasting.limits import AUTOMATIC, LimitRules, find_limits
from flts.forecasting.recipe import Features, observed_targets, unscale_targets
from flts.forecasting.series import FloatArray, IntArray, segment_starts
from flts.forecasting.splits import Tails, tails

EDGES = (0.4, 0.55, 0.7, 0.85, 1.0)
"""Shares of the training rows: a fold is fitted on the rows before an edge and forecasts the rows up to the next."""


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
    split = partial(tails, stop_tail=shares[0], calibration_tail=shares[1])
    seasons = closed_form.seasons(recipe, features, split(len(features)))
    for stop, end in pairwise(int(len(features) * edge) for edge in EDGES):
        own = split(stop)
        if end - stop < horizon or stop < closed_form.rows_per_step * horizon or own.fit_stop < 1:
            continue
        if closed_form.seasons(recipe, features, own) != seasons:
            continue
        alive()
        try:
            fold = forecast_after(
                closed_form,
                own,
                recipe,
                _before(features, end),
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
    limits = find_limits(recipe, _before(features, own.n_rows), limit_rules)
    return Fold(
        rows,
        actual,
        np.clip(actual - residuals, *limits),
        _baselines(recipe, features, own, observed, rows, horizon, season),
    )


def _baselines(  # noqa: PLR0917 - all that one fold is made of
    recipe: FittedRecipe,
    features: Features,
    own: Tails,
    observed: FloatArray,
    rows: IntArray,
    horizon: int,
    season: int | None,
) -> dict[str, FloatArray]:
    """Return the forecasts of the baselines by the rules of `flts.forecasting.baselines`.

    The mean is that of the rows before the calibration tail. An origin without a whole season before it in its segment
    gets persistence's forecast.
    """
    filled = unscale_targets(recipe, features.values[:, recipe.varying_columns])
    last = np.repeat(filled[rows - 1][:, None], horizon, axis=1)
    known = np.isfinite(observed[: own.stop_stop])
    counts = known.sum(axis=0)
    sums = np.where(known, observed[: own.stop_stop], 0.0).sum(axis=0)
    mean = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    found = {"PERSISTENCE": last, "MEAN": np.broadcast_to(mean, last.shape)}
    if season is not None:
        whole = rows - segment_starts(features.times, features.grid)[rows - 1] >= season
        before = rows[:, None] - season + np.arange(horizon) % season
        found["SEASONAL_NAIVE"] = np.where(whole[:, None, None], filled[np.maximum(before, 0)], last)
    return found


def _before(features: Features, stop: int) -> Features:
    return replace(
        features, times=features.times[:stop], values=features.values[:stop], imputed=features.imputed[:stop]
    )
