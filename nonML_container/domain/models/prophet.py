"""PROPHET: one Prophet per varying target, fitted without the calibration tail for residuals, then on all rows."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flts.errors import SeriesTooShortError
from flts.forecasting.direct import FUTURE, SECONDS
from flts.forecasting.intervals import calibration_steps
from flts.forecasting.known_inputs import KnownInputs
from flts.forecasting.recipe import observed_targets, scale_targets
from flts.forecasting.rolling import Inputs
from flts.forecasting.series import FloatArray, IntArray
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
PASS_STEPS = 168
"""Steps of one call of a model with future columns, and so the longest default horizon; longer forecasts are several
calls. It does not follow `HORIZON`, which is no part of train_hash, because the model is the same at any horizon."""
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
    known = KnownInputs.of(recipe)
    future = data.features.values[:, recipe.known_columns]
    inputs = None if known is None else known(future, times)
    raw = observed_targets(recipe, data.features)  # missing cells stay NaN, which Prophet ignores
    stop = data.tails.stop_stop
    tail_forecast = np.zeros((len(times) - stop, len(recipe.varying_targets)))
    scaled_tail = scale_targets(recipe, raw[stop:])
    models: list[Prophet] = []
    for column, name in enumerate(recipe.varying_targets):
        if np.isfinite(raw[:stop, column]).sum() < LEAST_ROWS:
            msg = f"{name} has fewer than {LEAST_ROWS} values before the calibration tail"
            raise SeriesTooShortError(msg, field=name)
        options = settings, settings.prophet_optimiser
        early = fit_prophet(times[:stop], raw[:stop, column], *options, _rows(inputs, slice(stop)))
        tail_forecast[:, column] = predict(early, times[stop:], _rows(inputs, slice(stop, None)))
        report.alive(f"{name}, without the calibration tail")
        models.append(fit_prophet(times, raw[:, column], *options, inputs))
        report.epoch_done(
            column + 1,
            len(recipe.varying_targets),
            error_metrics("target_", scaled_tail[:, [column]], scale_targets(recipe, tail_forecast)[:, [column]]),
            loss=None,
        )
    check_inputs, check_outputs = _checks(models, data, known, future)
    some = np.unique(np.linspace(0, len(times) - 1, min(SCORED_ROWS, len(times))).astype(np.int64))
    fitted_raw = np.stack([predict(model, times[some], _rows(inputs, some)) for model in models], axis=1)
    residuals = raw[stop:] - tail_forecast
    scored = {"train_": (raw[some], fitted_raw), "val_": (raw[stop:], tail_forecast)}
    return FittedModel(
        model_bytes=to_bytes(prophets_to_onnx(models, recipe, known, steps=PASS_STEPS)),
        input_kind="direct" if FUTURE in check_inputs else "timestamps",
        check_inputs=check_inputs,
        check_outputs=check_outputs,
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


def _rows(inputs: FloatArray | None, rows: slice | IntArray) -> FloatArray | None:
    return None if inputs is None else inputs[rows]


def _checks(
    models: Sequence[Prophet], data: TrainingSet, known: KnownInputs | None, future: FloatArray
) -> tuple[Inputs, FloatArray]:
    """Return inputs of the ONNX file, and Prophet's own scaled forecasts of them.

    They are the last times and those after them. With future columns they are two passes, before and after the last
    row; after it the columns keep their last values, because only their effect is checked.
    """
    times, grid = data.features.times, data.recipe.grid

    def forecast(clock: IntArray, ahead: FloatArray) -> FloatArray:
        inputs = None if known is None else known(ahead, clock)
        raw = np.stack([predict(model, clock, inputs) for model in models], axis=1)
        return scale_targets(data.recipe, raw)

    if not future.shape[1]:
        clock = grid.clock(np.concatenate([times[-CHECKED_TIMES:], grid.after(times[-1:], CHECKED_TIMES)[0]]))
        return {SECONDS: clock}, forecast(clock, np.empty((len(clock), 0)))
    origins = np.unique([max(len(times) - 1 - PASS_STEPS, 0), len(times) - 1])
    rows = np.minimum(origins[:, None] + np.arange(1 + PASS_STEPS), len(times) - 1)
    clock = grid.clock(np.concatenate([times[origins, None], grid.after(times[origins], PASS_STEPS)], axis=1))
    ahead = future[rows].astype(np.float32)
    steps = clock[:, 1:].ravel()
    answers = forecast(steps, ahead[:, 1:].reshape(len(steps), -1).astype(np.float64))
    return {SECONDS: clock, FUTURE: ahead}, answers.reshape(len(origins), PASS_STEPS, -1)
