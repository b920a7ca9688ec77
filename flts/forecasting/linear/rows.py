"""LINEAR's table of the features of training rows."""

from __future__ import annotations

import numpy as np

from flts.forecasting.fitted import FittedRecipe
from flts.forecasting.grid import Grid
from flts.forecasting.linear.calendar import Calendar, find_calendar
from flts.forecasting.linear.table import LEAST_SEASONS, LinearTable
from flts.forecasting.places import clock_turns, season_places
from flts.forecasting.recipe import Features, unscale_targets
from flts.forecasting.series import BoolArray

ROUNDING = 1e-9
"""Share of a target's range; scaling and unscaling a value of 0 can make it negative by less than this."""


def table_of(features: Features, *, fit_stop: int) -> tuple[LinearTable, Calendar]:
    """Return the table of rows without time features and lags, and its calendar.

    The calendar and the seasons are those that the rows before ``fit_stop`` can show.

    Parameters
    ----------
    features : Features
        Made with the recipe of `flts.forecasting.recipe.measured_only`.
    fit_stop : int
        End of the rows that LINEAR is fitted on to choose.
    """
    grid, times = features.grid, features.times
    calendar = find_calendar(grid.clock(times[:fit_stop]), grid.step_seconds)
    seasons = seasons_shown(grid, fit_stop)
    table = LinearTable(
        values=features.values,
        observed=~features.imputed,
        segments=features.segments(),
        seasons=seasons,
        places=season_places(grid, times, seasons),
        clock=calendar(clock_turns(grid, times)),
    )
    return table, calendar


def seasons_shown(grid: Grid, fit_stop: int) -> tuple[int, ...]:
    """Return the seasons of the grid that ``fit_stop`` rows contain often enough, in rows."""
    return tuple(rows for rows in grid.seasons if fit_stop >= LEAST_SEASONS * rows)


def never_negative(recipe: FittedRecipe, features: Features) -> BoolArray:
    """Return which varying targets have observed cells and no negative one, (m,)."""
    at = recipe.varying_columns
    raw = unscale_targets(recipe, features.values[:, at])
    lowest = np.where(features.imputed[:, at], np.inf, raw).min(axis=0)
    known: BoolArray = (lowest >= -ROUNDING * recipe.scales_of_targets) & np.isfinite(lowest)
    return known
