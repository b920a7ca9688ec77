"""The lowest and the highest value that forecasts of a target may have (``LOWER_BOUND``, ``UPPER_BOUND``)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np

from flts.errors import RejectedError
from flts.forecasting.fitted import FittedRecipe
from flts.forecasting.recipe import Features, observed_targets
from flts.forecasting.series import BoolArray, FloatArray

Limits = tuple[float | None, float | None]
"""Lowest and highest value in raw units, None without one."""
LimitRules = tuple[float | Literal["auto"] | None, float | None]
"""Lower and upper bound of a run: a number for every target, None for no bound, or ``auto``."""
AUTOMATIC: LimitRules = ("auto", None)
"""The rules of the settings' defaults."""
ROUNDING = 1e-9
"""Share of a target's range; scaling and unscaling a value of 0 can make it negative by less than this."""


def find_limits(recipe: FittedRecipe, features: Features, rules: LimitRules) -> tuple[FloatArray, FloatArray]:
    """Return the lowest and the highest value of each varying target, (m,) each, infinite without a limit.

    Parameters
    ----------
    recipe, features : FittedRecipe, Features
        The training rows, made with ``recipe``. Imputed cells do not count.
    rules : LimitRules
        The lower bound ``auto`` is 0 for a target whose values are not negative, and none for other targets.

    Raises
    ------
    RejectedError
        ``bad_setting`` if a value in the training rows is outside a bound; ``field`` names the setting.
    """
    observed = observed_targets(recipe, features)
    known = np.isfinite(observed)
    lowest = np.where(known, observed, np.inf).min(axis=0, initial=np.inf)
    highest = np.where(known, observed, -np.inf).max(axis=0, initial=-np.inf)
    rounding = ROUNDING * recipe.scales_of_targets
    lower, upper = rules
    if lower == "auto":
        lower_limits = np.where((lowest >= -rounding) & np.isfinite(lowest), 0.0, -np.inf)
    else:
        lower_limits = np.full(len(lowest), -np.inf if lower is None else lower)
        _refuse_outside(recipe, "LOWER_BOUND", lower, lowest, lowest < lower_limits - rounding)
    upper_limits = np.full(len(highest), np.inf if upper is None else upper)
    _refuse_outside(recipe, "UPPER_BOUND", upper, highest, highest > upper_limits + rounding)
    return lower_limits, upper_limits


def named_limits(recipe: FittedRecipe, limits: tuple[FloatArray, FloatArray]) -> Mapping[str, Limits]:
    """Return the limits (m,) of the varying targets by name, without the targets that have none."""
    pairs = zip(recipe.varying_targets, *(each.tolist() for each in limits), strict=True)
    return {
        name: (lower if math.isfinite(lower) else None, upper if math.isfinite(upper) else None)
        for name, lower, upper in pairs
        if math.isfinite(lower) or math.isfinite(upper)
    }


def _refuse_outside(
    recipe: FittedRecipe, setting: str, bound: float | None, extremes: FloatArray, outside: BoolArray
) -> None:
    for name, value, refused in zip(recipe.varying_targets, extremes.tolist(), outside, strict=True):
        if refused:
            msg = f"{setting} is {bound:.12g}, and {name} has the value {value:.12g} in the training rows"
            raise RejectedError(msg, code="bad_setting", field=setting)
