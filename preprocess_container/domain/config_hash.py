"""The name of a data set: the hash of its content, its recipe and its settings."""

from __future__ import annotations

from typing import Any

from flts.contracts.ids import sha256_of
from flts.forecasting.grid import Grid
from flts.forecasting.recipe import RECIPE_VERSION
from flts.recipe_settings import RecipeSettings


def config_hash(
    settings: RecipeSettings, *, train_sha256: str, test_sha256: str | None, grid: Grid | None = None
) -> str:
    """Return the SHA-256 of the canonical JSON of recipe version, recipe settings, raw files and calendar.

    Parameters
    ----------
    grid : Grid, optional
        Grid of the training rows. A fixed step changes no hash. A calendar does, because release 0.1.0 put the same
        rows on a fixed step.
    """
    values = {
        "recipe_version": RECIPE_VERSION,
        "recipe": recipe_values(settings),
        "raw": {"train": train_sha256, "test": test_sha256},
    }
    return sha256_of(values | ({"grid": grid.to_dict()} if grid is not None and not grid.is_plain else {}))


def recipe_values(settings: RecipeSettings) -> dict[str, Any]:
    """Return the recipe's settings in effect, by their environment names, as plain JSON values.

    Settings of ``RecipeSettings.ADDED_LATER`` are left out while they have their default.
    """
    values = {
        name: getattr(settings, name)
        for name, field in RecipeSettings.model_fields.items()
        if name not in RecipeSettings.ADDED_LATER or getattr(settings, name) != field.default
    }
    return {name.upper(): list(value) if isinstance(value, tuple) else value for name, value in sorted(values.items())}
