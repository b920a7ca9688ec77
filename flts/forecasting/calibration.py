"""Compute residuals for the intervals: forecasts from many origins, of rows that the model was not fitted on."""

from __future__ import annotations

import numpy as np

from flts.forecasting.fitted import FittedRecipe
from flts.forecasting.intervals import calibration_steps
from flts.forecasting.recipe import Features, observed_targets, unscale_targets
from flts.forecasting.rolling import RollState, WindowModel, origins_a_batch, roll_forecast
from flts.forecasting.series import FloatArray, IntArray
from flts.forecasting.splits import Tails
from flts.forecasting.windows import target_rows

MAX_ROLLED_ORIGINS = 128
"""Most origins for steps beyond one pass: each can cost hundreds of passes, and neighbours have similar residuals."""
BATCH_ORIGINS = 1024
"""Most origins in one batch of windows."""


def rolled_residuals(
    model: WindowModel,
    recipe: FittedRecipe,
    features: Features,
    tails: Tails,
    *,
    input_seq_len: int,
    output_seq_len: int,
    max_rolled_origins: int = MAX_ROLLED_ORIGINS,
) -> dict[int, FloatArray]:
    """Return residuals (actual - forecast, raw units) by steps ahead, (n, m) each, for `intervals.calibrate`.

    Every row of the calibration tail with enough rows before it is an origin for the steps of one pass. Further steps
    are forecast from evenly spread origins. A residual is NaN if the actual value is missing, was imputed or is after a
    gap. If the recipe has inputs that no model forecasts, only the steps of one pass are returned.

    Parameters
    ----------
    features : Features
        Features of the training rows.
    tails : Tails
        Split of the ``len(features)`` rows.
    """
    scaled = features.values[:, : len(recipe.columns)]
    actual = observed_targets(recipe, features)
    steps = calibration_steps(tails.calibration_rows)
    context = input_seq_len + recipe.warmup_rows
    origins = target_rows(
        features.segments(), context_rows=context, first_row=max(tails.stop_stop, context), last_row=len(features)
    )

    def residuals(from_rows: IntArray, wanted: list[int]) -> dict[int, FloatArray]:
        size = origins_a_batch(input_seq_len * len(recipe.feature_names), most=BATCH_ORIGINS)
        batches = [from_rows[start : start + size] for start in range(0, len(from_rows), size)]
        found: dict[int, list[FloatArray]] = {step: [] for step in wanted}
        for batch in batches:
            state = RollState.at_origins(
                recipe, scaled=scaled, times=features.times, origins=batch, input_seq_len=input_seq_len
            )
            forecast = unscale_targets(recipe, roll_forecast(model, state, wanted[-1]))
            for step in wanted:
                found[step].append(_actual_at(features, actual, batch, step) - forecast[:, step - 1])
        return {step: np.concatenate(parts) for step, parts in found.items() if parts}

    one_pass = [step for step in steps if step <= output_seq_len]
    rolled = [step for step in steps if step > output_seq_len] if recipe.forecasts_its_inputs else []
    result = residuals(origins, one_pass) if one_pass else {}
    if rolled:
        reaching = origins[origins + rolled[-1] <= len(features)]
        chosen = np.unique(np.linspace(0, len(reaching) - 1, min(max_rolled_origins, len(reaching))).astype(np.int64))
        result |= residuals(reaching[chosen], rolled)
    return result


def _actual_at(features: Features, actual: FloatArray, origins: IntArray, step: int) -> FloatArray:
    rows = np.minimum(origins + step - 1, len(features) - 1)
    expected = features.grid.after(features.times[origins], step - 1)[:, -1] if step > 1 else features.times[origins]
    return np.where((features.times[rows] == expected)[:, None], actual[rows], np.nan)
