"""Make the bundle of a baseline from the training rows; it has the format of every bundle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import TensorProto

from flts.bundle.format import Bundle
from flts.bundle.model import SECONDS_INPUT, WINDOW_INPUT
from flts.contracts.events import TrainingData
from flts.forecasting.baseline_folds import baseline_residuals
from flts.forecasting.baselines import Baseline, Constant, NoBaselineError, Repeat, WindowShape, fit_baseline
from flts.forecasting.expanding import most_origins
from flts.forecasting.intervals import calibration_steps
from flts.forecasting.recipe import observed_targets, unscale_targets
from flts.forecasting.ridge import RidgeModel
from flts.forecasting.windows import target_rows
from flts.settings import WindowSettings
from flts.training.bundling import Identity, identity_of, make_bundle
from flts.training.fitting import FittedModel, TrainingSet
from flts.training.onnx_file import GraphBuilder, to_bytes

BASELINE_VERSION = 3
"""Version; a change of the code that makes another baseline of the same rows raises it. Part of train_hash."""
MOST_FOLD_CELLS = 500_000
"""Numbers in the forecasts of a fold, 4 MB each, up to which steps beyond the horizon are calibrated."""


def baseline_identity(event: TrainingData, model_type: str, settings: WindowSettings) -> Identity:
    """Return the names of a baseline's bundle; raises as `identity_of`."""
    parts: dict[str, Any] = {"settings": settings.hashed(WindowSettings), "baseline_version": BASELINE_VERSION}
    if event.horizon_steps is not None:
        parts["horizon_steps"] = event.horizon_steps  # the intervals reach as far, and it decides about the season
    return identity_of(event, model_type, parts)


def make_baseline(
    data: TrainingSet,
    identity: Identity,
    settings: WindowSettings,
    *,
    horizon: int,
    threads: int,
    alive: Callable[[], None],
) -> tuple[Bundle, bytes]:
    """Fit a baseline on the training rows and return its bundle with the ONNX file.

    Parameters
    ----------
    data : TrainingSet
        All training rows.
    identity : Identity
        Names of the bundle; its model type selects the baseline.
    settings : WindowSettings
        With the run's overrides.
    horizon : int
        Steps that the run's models are judged at.
    threads : int
        Threads of the exported model while it is checked.
    alive : callable
        Called before each pass of the calibration.

    Raises
    ------
    NoBaselineError
        If the baseline cannot be fitted on these rows; the message contains the reason.
    RejectedError
        As `make_bundle`.
    """
    shape = WindowShape(settings.window_rows, settings.pass_steps, horizon)
    baseline = fit_baseline(identity.model_type, data.features, data.recipe, data.tails, shape)
    seen = replace(data, features=baseline.features, recipe=baseline.recipe)
    fitted = _constant(baseline, seen) if isinstance(baseline.model, Constant) else _window(baseline, seen)
    if isinstance(baseline.model, RidgeModel):
        return make_bundle(fitted, seen, identity, threads=threads, alive=alive)
    targets = len(seen.recipe.varying_targets)
    most = MOST_FOLD_CELLS // (targets * most_origins(targets))
    reach = max(horizon, min(max(calibration_steps(seen.tails.calibration_rows), default=1), most))
    folds = baseline_residuals(
        identity.model_type,
        seen.recipe,
        seen.features,
        horizon=reach,
        shares=seen.tails.shares,
        season=baseline.window_rows or None,
    )
    return make_bundle(fitted, seen, identity, threads=threads, alive=alive, folds=folds, horizon=horizon)


def _window(baseline: Baseline, seen: TrainingSet) -> FittedModel:
    """Return the baseline as a window model, to be checked on the last training window that a row follows."""
    model, features = baseline.model, seen.features
    assert not isinstance(model, Constant)
    rows = target_rows(features.segments(), context_rows=baseline.window_rows, last_row=len(features))
    if not len(rows):
        msg = f"no {baseline.window_rows:,} training rows follow each other without a gap"
        raise NoBaselineError(msg)
    check = features.values[None, rows[-1] - baseline.window_rows : rows[-1]].astype(np.float32)
    answer = model(check).astype(np.float64)
    graph = GraphBuilder()
    output = _repeat(graph, model) if isinstance(model, Repeat) else _linear(graph, model, answer.shape[1:])
    proto = graph.window_model(output, window=check.shape[1:], forecast=answer.shape[1:])
    return FittedModel(
        model_bytes=to_bytes(proto),
        input_kind="window",
        check_inputs={WINDOW_INPUT: check},
        check_outputs=answer,
        metrics={},
        rows_required=baseline.window_rows + baseline.recipe.warmup_rows,
        fitted_rows=baseline.fitted_rows,
    )


def _constant(baseline: Baseline, seen: TrainingSet) -> FittedModel:
    model = baseline.model
    assert isinstance(model, Constant)
    graph = GraphBuilder()
    time = graph.node("Cast", [SECONDS_INPUT], to=TensorProto.DOUBLE)
    nothing = graph.node("Mul", [time, graph.constant(np.array(0.0))])
    column = graph.node("Unsqueeze", [nothing, graph.integers(1)])
    answer = graph.node("Add", [column, graph.constant(model.values[None])])
    last = seen.features.times[-1:]
    tail = observed_targets(seen.recipe, seen.features)[seen.tails.stop_stop :]
    residuals = tail - unscale_targets(seen.recipe, model.values)
    return FittedModel(
        model_bytes=to_bytes(graph.timestamps_model(answer, targets=len(model.values))),
        input_kind="timestamps",
        check_inputs={SECONDS_INPUT: last},
        check_outputs=model.values[None],
        metrics={},
        rows_required=1,
        fitted_rows=baseline.fitted_rows,
        # This model forecasts the mean at every step ahead, so all steps have the same residuals.
        residuals=dict.fromkeys(calibration_steps(len(tail)), residuals),
    )


def _repeat(graph: GraphBuilder, model: Repeat) -> str:
    rows = graph.node("Gather", [WINDOW_INPUT, graph.integers(*model.rows)], axis=1)
    return graph.node("Gather", [rows, graph.integers(*model.columns)], axis=2)


def _linear(graph: GraphBuilder, model: RidgeModel, forecast: tuple[int, ...]) -> str:
    flat = graph.node("Flatten", [graph.node("Cast", [WINDOW_INPUT], to=TensorProto.DOUBLE)], axis=1)
    product = graph.node("MatMul", [flat, graph.constant(model.coefficients)])
    answer = graph.node("Add", [product, graph.constant(model.intercept)])
    single = graph.node("Cast", [answer], to=TensorProto.FLOAT)
    return graph.node("Reshape", [single, graph.integers(-1, *forecast)])
