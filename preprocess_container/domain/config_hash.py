"""The name of a data set: the hash of its content, its recipe and its settings."""

from __future__ import annotations

from typing import Any

from flts.contracts.ids import sha256_of
from flts.forecasting.recipe import RECIPE_VERSION
from flts.settings import ReadSettings, RecipeSettings

ADDED = frozenset(ReadSettings.model_fields) - {"ignore_columns"}
"""Settings added after release ee7e1d3."""


def config_hash(settings: RecipeSettings, *, train_sha256: str, test_sha256: str | None) -> str:
    """Return the SHA-256 of the canonical JSON of recipe version, recipe settings and raw files."""
    return sha256_of(
        {
            "recipe_version": RECIPE_VERSION,
            "recipe": recipe_values(settings),
            "raw": {"train": train_sha256, "test": test_sha256},
        }
    )


def recipe_values(settings: RecipeSettings) -> dict[str, Any]:
    """Return the recipe's settings in effect, by their environment names, as plain JSON values.

    A setting of `ADDED` is left out while it has its default, so that data sets of earlier releases keep their names.
    """
    values = {
        name: getattr(settings, name)
        for name, field in RecipeSettings.model_fields.items()
        if name not in ADDED or getattr(settings, name) != field.default
    }
    return {name.upper(): list(value) if isinstance(value, tuple) else value for name, value in sorted(values.items())}
