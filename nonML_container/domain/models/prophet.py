"""PROPHET: one Prophet per varying target, fitted without the calibration tail for residuals, then on all rows.

Where the horizon of the run is known, its forecasts are corrected by its last residuals in the rows that are sent. In a
refit the weights of the correction are made again from the training rows.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from flts.errors import SeriesTooShortError
from flts.forecasting.direct import FUTURE, PAST, SECONDS, DirectInputs
from flts.forecasting.fitted import FittedRecipe
from flts.forecasting.intervals import calibration_steps
from flts.forecasting.known_inputs import KnownInputs
from flts.forecasting.recipe import Features, forecast_or_known, observed_targets, scale_targets, unscale_targets
from flts.forecasting.rolling import Inputs
from flts.forecasting.series import FloatArray, IntArray, segment_starts
from flts.training.fitting import FittedModel, Report, TrainingSet
from flts.training.onnx_file import to_bytes
from flts.training.residuals import calibrated_steps
from nonML_container.domain.closed_form import PassShape, prophets_to_onnx
from nonML_container.domain.correction import (
    EDGES,
    Held,
    corrected_errors,
    correction_weights,
    span_means,
    spans_within,
)
from nonML_container.domain.errors import error_metrics
from nonML_container.domain.fit import LEAST_ROWS, fit_prophet, predict

if TYPE_CHECKING:
    from prophet import Prophet

    from nonML_container.settings import NonmlSettings

CORRECTION_VERSION = 1
"""Version; a change of the correction that makes another model of the same rows raises it. Part of train_hash."""
CHECKED_WINDOWS = 2
"""Windows at which the ONNX file must repeat corrected forecasts."""
CHECKED_TIMES = 32
"""Number of last rows, and of times after them, at which the ONNX file must repeat Prophet's own forecast."""
PASS_STEPS = 168
"""Steps of one call of a model with future columns, and so the longest default horizon; longer forecasts are several
calls. It does not follow `HORIZON`, which is no part of train_hash, because the model is the same at any horizon."""
SCORED_ROWS = 4096
"""Most training rows, evenly spread, for the training error; forecasting a million rows again is slow."""


def hash_parts(settings: NonmlSettings, horizon: int | None) -> Mapping[str, Any]:
    """Return the optimiser and Prophet's version, and those of the correction if there may be one."""
    library = {"optimiser": settings.prophet_optimiser, "prophet": importlib.metadata.version("prophet")}
    if settings.output_seq_len is not None or horizon is None:
        return library
    return library | {"correction": CORRECTION_VERSION, "horizon": horizon}


def fit(data: TrainingSet, settings: NonmlSettings, report: Report) -> FittedModel:
    """Fit one Prophet per varying target on all training rows; residuals are from fits without the calibration tail.

    If ``data.horizon`` is known and `OUTPUT_SEQ_LEN` is not given, the steps of the horizon are corrected by the last
    residuals, with weights from fits on the first rows (`nonML_container.domain.correction`).

    Raises
    ------
    SeriesTooShortError
        If a target has fewer than two values before the calibration tail.
    """
    stop, trained = data.tails.stop_stop, data.tails.n_rows
    horizon = data.horizon if settings.output_seq_len is None else None
    spans = () if horizon is None else spans_within(stop)
    recipe, features = data.recipe, data.features
    if spans:
        recipe, features = forecast_or_known(recipe, features, trained)
    every = _Rows.of(recipe, features)
    rows = every if data.judged is None else _Rows.of(recipe, features.first(trained))
    tail_forecast = np.zeros((trained - stop, len(recipe.varying_targets)))
    scaled_tail = scale_targets(recipe, rows.raw[stop:])
    models: list[Prophet] = []
    corrections: list[_Correction] = []
    for column, name in enumerate(recipe.varying_targets):
        if np.isfinite(rows.raw[:stop, column]).sum() < LEAST_ROWS:
            msg = f"{name} has fewer than {LEAST_ROWS} values before the calibration tail"
            raise SeriesTooShortError(msg, field=name)
        early = rows.fit(column, stop, settings)
        tail_forecast[:, column] = rows.predict(early, slice(stop, None))
        report.alive(f"{name}, without the calibration tail")
        if horizon is not None and spans:
            held = rows.held(early, column, stop, trained, spans[-1])
            corrections.append(_correction(rows, column, held, horizon, spans, settings, report))
        models.append(every.fit(column, len(features), settings))
        report.epoch_done(
            column + 1,
            len(recipe.varying_targets),
            error_metrics("target_", scaled_tail[:, [column]], scale_targets(recipe, tail_forecast)[:, [column]]),
            loss=None,
        )
    some = np.unique(np.linspace(0, len(features) - 1, min(SCORED_ROWS, len(features))).astype(np.int64))
    fitted_raw = np.stack([every.predict(model, some) for model in models], axis=1)
    metrics = error_metrics("train_", scale_targets(recipe, every.raw[some]), scale_targets(recipe, fitted_raw))
    shape = PassShape(1, PASS_STEPS) if len(recipe.known_columns) else None
    if horizon is not None and any(each.weights.any() for each in corrections):
        shape = PassShape(spans[-1], horizon, span_means(spans), np.stack([each.weights for each in corrections]))
        errors = np.stack([each.errors for each in corrections], axis=-1)  # (p, H, m)
        steps = calibrated_steps(data.tails.calibration_rows, horizon)
        residuals = {step: errors[:, step - 1] for step in steps}
        measured = errors[:, np.array(steps) - 1] / recipe.scales_of_targets
        metrics |= error_metrics("val_", measured, np.zeros_like(measured))
        check_inputs, check_outputs = _corrected_checks(models, every, shape)
    else:
        check_inputs, check_outputs = _checks(models, every)
        metrics |= error_metrics("val_", scaled_tail, scale_targets(recipe, tail_forecast))
        # The forecast depends on the time only and not on the step ahead, so every step has the same residuals.
        residuals = dict.fromkeys(calibration_steps(data.tails.calibration_rows), rows.raw[stop:] - tail_forecast)
    return FittedModel(
        model_bytes=to_bytes(prophets_to_onnx(models, recipe, rows.known, shape)),
        input_kind="timestamps" if shape is None else "direct",
        check_inputs=check_inputs,
        check_outputs=check_outputs,
        metrics={name: value for name, value in metrics.items() if data.judged is None or name.startswith("train_")},
        rows_required=shape.past if shape else 1,
        fitted_rows=len(features),
        residuals=residuals,
        recipe=recipe,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Rows as Prophet reads them."""

    recipe: FittedRecipe
    features: Features
    clock: IntArray
    """What the clock of the data set shows, so that a season of a day follows summer time."""
    known: KnownInputs | None
    future: FloatArray
    inputs: FloatArray | None
    """Inputs known ahead (n, q)."""
    raw: FloatArray
    """Targets (n, m); a missing cell stays NaN, which Prophet ignores."""
    filled: FloatArray
    unbroken: IntArray
    """(n,) rows without a gap that end with each row."""

    @classmethod
    def of(cls, recipe: FittedRecipe, features: Features) -> _Rows:
        clock, known = recipe.grid.clock(features.times), KnownInputs.of(recipe)
        future = features.values[:, recipe.known_columns]
        return cls(
            recipe,
            features,
            clock,
            known,
            future,
            None if known is None else known(future, clock),
            observed_targets(recipe, features),
            unscale_targets(recipe, features.values[:, recipe.varying_columns]),
            np.arange(1, len(features) + 1) - segment_starts(features.times, features.grid),
        )

    def fit(self, column: int, stop: int, settings: NonmlSettings) -> Prophet:
        """Fit a target on the rows before ``stop``."""
        rows = slice(stop)
        return fit_prophet(
            self.clock[rows], self.raw[rows, column], settings, settings.prophet_optimiser, _rows(self.inputs, rows)
        )

    def predict(self, model: Prophet, rows: slice | IntArray) -> FloatArray:
        """Return forecasts of rows, raw."""
        return predict(model, self.clock[rows], _rows(self.inputs, rows))

    def held(self, model: Prophet, column: int, first: int, stop: int, before: int) -> Held:
        """Return the residuals of a model at the rows from ``first`` to ``stop`` and at the rows before them."""
        rows = slice(max(first - before, 0), stop)
        residuals = self.filled[rows, column] - self.predict(model, rows)
        known = np.isfinite(self.raw[rows, column])
        return Held(residuals, known, self.unbroken[rows], first - rows.start)


@dataclass(frozen=True, slots=True, eq=False)
class _Correction:
    """The weights of a target (s, H), and the errors (p, H) in the calibration tail of forecasts corrected with others.

    These have weights from the rows before the tail.
    """

    weights: FloatArray
    errors: FloatArray


def _correction(  # noqa: PLR0917 - a fold for each fit of a target
    rows: _Rows,
    column: int,
    tail: Held,
    horizon: int,
    spans: tuple[int, ...],
    settings: NonmlSettings,
    report: Report,
) -> _Correction:
    stop = len(rows.features) - (len(tail.residuals) - tail.first)
    folds = []
    for first, end in pairwise(int(stop * edge) for edge in EDGES):
        if np.isfinite(rows.raw[:first, column]).sum() < LEAST_ROWS:
            continue
        folds.append(rows.held(rows.fit(column, first, settings), column, first, end, spans[-1]))
        report.alive(f"{rows.recipe.varying_targets[column]}, fold")
    judged = correction_weights(folds, spans, horizon)
    return _Correction(correction_weights([*folds, tail], spans, horizon), corrected_errors(tail, spans, judged))


def _rows(inputs: FloatArray | None, rows: slice | IntArray) -> FloatArray | None:
    return None if inputs is None else inputs[rows]


def _corrected_checks(models: Sequence[Prophet], rows: _Rows, shape: PassShape) -> tuple[Inputs, FloatArray]:
    """Return the last windows as inputs of the ONNX file, and Prophet's own scaled forecasts of them, corrected."""
    recipe, values, length = rows.recipe, rows.features.values, shape.past
    names = tuple(
        name for name, used in ((PAST, True), (SECONDS, True), (FUTURE, len(recipe.known_columns) > 0)) if used
    )
    last = np.flatnonzero(rows.unbroken >= length)[-CHECKED_WINDOWS:]
    ahead = np.minimum(last[:, None] + np.arange(1, shape.steps + 1), len(values) - 1)
    given = (
        DirectInputs(recipe, names, (), length, shape.steps)
        .start(
            values[last[:, None] + np.arange(1 - length, 1)],
            rows.features.times[last],
            values[ahead[..., None], recipe.known_columns],
        )
        .inputs()
    )
    future = given[FUTURE].astype(np.float64) if FUTURE in given else np.empty((*given[SECONDS].shape, 0))
    forecasts = _own(models, rows, given[SECONDS], future)
    residuals = given[PAST][..., recipe.varying_columns] - forecasts[:, :length]
    return given, forecasts[:, length:] + shape.corrections(residuals)


def _checks(models: Sequence[Prophet], rows: _Rows) -> tuple[Inputs, FloatArray]:
    """Return inputs of the ONNX file, and Prophet's own scaled forecasts of them.

    They are the last times and those after them. With future columns they are two passes, before and after the last
    row; after it the columns keep their last values, because only their effect is checked.
    """
    times, grid, future = rows.features.times, rows.recipe.grid, rows.future
    if not future.shape[1]:
        clock = grid.clock(np.concatenate([times[-CHECKED_TIMES:], grid.after(times[-1:], CHECKED_TIMES)[0]]))
        return {SECONDS: clock}, _own(models, rows, clock, np.empty((len(clock), 0)))
    origins = np.unique([max(len(times) - 1 - PASS_STEPS, 0), len(times) - 1])
    ahead = np.minimum(origins[:, None] + np.arange(1 + PASS_STEPS), len(times) - 1)
    clock = grid.clock(np.concatenate([times[origins, None], grid.after(times[origins], PASS_STEPS)], axis=1))
    values = future[ahead].astype(np.float32)
    return {SECONDS: clock, FUTURE: values}, _own(models, rows, clock[:, 1:], values[:, 1:].astype(np.float64))


def _own(models: Sequence[Prophet], rows: _Rows, clock: IntArray, future: FloatArray) -> FloatArray:
    """Return Prophet's own scaled forecasts (..., m) at times (...) with values of future columns (..., f)."""
    times = clock.ravel()
    inputs = None if rows.known is None else rows.known(future.reshape(len(times), -1), times)
    raw = np.stack([predict(model, times, inputs) for model in models], axis=1)
    return scale_targets(rows.recipe, raw).reshape(*clock.shape, len(models))
