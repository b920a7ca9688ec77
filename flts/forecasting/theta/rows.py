"""The rows that THETA is fitted on."""

from __future__ import annotations

import numpy as np

from flts.forecasting.fitted import FittedRecipe
from flts.forecasting.linear.table import LinearTable
from flts.forecasting.places import season_places
from flts.forecasting.recipe import Features, observed_targets, unscale_targets
from flts.forecasting.season_tests import table_seasons
from flts.forecasting.theta.fit import ThetaRows


def theta_rows(recipe: FittedRecipe, features: Features, *, stop: int) -> ThetaRows:
    """Return the varying targets in raw units with the seasons that the rows before ``stop`` show by a test.

    Parameters
    ----------
    recipe, features : FittedRecipe, Features
        As `flts.forecasting.recipe.targets_only` returns them.
    """
    seasons = theta_seasons(recipe, features, stop)
    table = LinearTable(
        values=unscale_targets(recipe, features.values[:, recipe.varying_columns]),
        observed=~features.imputed[:, recipe.varying_columns],
        segments=features.segments(),
        seasons=seasons,
        places=season_places(features.grid, features.times, seasons),
        clock=np.empty((len(features), 0)),
    )
    positions = features.grid.split(features.times)[0]
    return ThetaRows(table, positions - positions[0])


def theta_seasons(recipe: FittedRecipe, features: Features, stop: int) -> tuple[int, ...]:
    """Return the seasons, in rows, that a test finds in the rows before ``stop``, the shortest first."""
    observed = observed_targets(recipe, features)[:stop]
    return table_seasons(observed, features.times[:stop], features.grid)
