"""PROPHET: one Prophet per varying target, fitted without the calibration tail for residuals, then on all rows."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from flts.errors import SeriesTooShortError
from flts.forecasting.intervals import calibration_steps
from flts.forecasting.recipe import observed_targets, scale_targets
from flts.training.fitting import FittedModel, Report, TrainingSet
from flts.training.onnx_file import to_bytes
from nonML_container.domain.closed_form import prophets_to_onnx
from nonML_container.domain.errors import error_metrics
from nonML_container.domain.fit import LEAST_ROWS, fit_prophet, predict

if TYPE_CHECKING:
    from prophet import Prophet

    from nonML_container.settings import NonmlSettings

CHECKED_TIMES = 32
"""Number of last rows, and of times after them, at which the ONNX file must repeat Prophet's own forecast."""
SCORED_ROWS = 4096
"""Most training rows, evenly spread, for the training error; forecasting a million rows again is slow."""


def hash_parts(settings: NonmlSettings) -> Mapping[str, Any]:
    """Return the optimiser and Prophet's version."""
    return {"optimiser": settings.prophet_optimiser, "prophet": importlib.metadata.version("prophet")}


def fit(data: TrainingSet, settings: NonmlSettings, report: Report) -> FittedModel:
    """Fit one Prophet per varying target on all training rows; residuals are from fits without the calibration tail.

    Raises
    ------
    SeriesTooShortError
        If a target has fewer than two values before the calibration tail.
    """
    # Prophet sees what the clock of the data set shows, so that a season of a day follows summer time.
    recipe, times = data.recipe, data.recipe.grid.clock(data.features.times)
    raw = observed_targets(recipe, data.features)  # missing cells stay NaN, which Prophet ignores
    stop = data.tails.stop_stop
    tail_forecast = np.zeros((len(times) - stop, len(recipe.varying_targets)))
    scaled_tail = scale_targets(recipe, raw[stop:])
    models: list[Prophet] = []
    for column, name in enumerate(recipe.varying_targets):
        if np.isfinite(raw[:stop, column]).sum() < LEAST_ROWS:
            msg = f"{name} has fewer than {LEAST_ROWS} values before the calibration tail"
            raise SeriesTooShortError(msg, field=name)
        early = fit_prophet(times[:stop], raw[:stop, column], settings, settings.prophet_optimiser)
        tail_forecast[:, column] = predict(early, times[stop:])
        report.alive(f"{name}, without the calibration tail")
        models.append(fit_prophet(times, raw[:, column], settings, settings.prophet_optimiser))
        report.epoch_done(
            column + 1,
            len(recipe.varying_targets),
            error_metrics("target_", scaled_tail[:, [column]], scale_targets(recipe, tail_forecast)[:, [column]]),
            loss=None,
        )
    check_times = np.concatenate(
        [times[-CHECKED_TIMES:], recipe.grid.clock(recipe.grid.after(data.features.times[-1:], CHECKED_TIMES)[0])]
    )
    check_raw = np.stack([predict(model, check_times) for model in models], axis=1)
    some = np.unique(np.linspace(0, len(times) - 1, min(SCORED_ROWS, len(times))).astype(np.int64))
    fitted_raw = np.stack([predict(model, times[some]) for model in models], axis=1)
    residuals = raw[stop:] - tail_forecast
    scored = {"train_": (raw[some], fitted_raw), "val_": (raw[stop:], tail_forecast)}
    return FittedModel(
        model_bytes=to_bytes(prophets_to_onnx(models, recipe)),
        input_kind="timestamps",
        check_inputs=check_times,
        check_outputs=scale_targets(recipe, check_raw),
        metrics={
            name: value
            for prefix, rows in scored.items()
            for name, value in error_metrics(prefix, *(scale_targets(recipe, each) for each in rows)).items()
        },
        rows_required=1,
        fitted_rows=len(times),
        # The forecast depends on the time only and not on the step ahead, so every step has the same residuals.
        residuals=dict.fromkeys(calibration_steps(data.tails.calibration_rows), residuals),
    )
