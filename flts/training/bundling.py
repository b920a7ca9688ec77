"""Make the bundle of a fitted model: compare its ONNX file with the trainer's predictions, calibrate its intervals."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flts.bundle.arrays import INTERVALS, PROBE, read_arrays
from flts.bundle.forecaster import longest_horizon
from flts.bundle.format import Bundle
from flts.bundle.graph import check_graph
from flts.bundle.model import PROBE_TOLERANCE, BundleModel, relative_difference
from flts.bundle.tensors import OUTPUT, signature_of
from flts.contracts.events import TrainingData
from flts.contracts.ids import sha256_of
from flts.errors import RejectedError
from flts.forecasting.calibration import MAX_ROLLED_ORIGINS, rolled_residuals
from flts.forecasting.direct import DIRECT_INPUTS, FUTURE, can_continue
from flts.forecasting.expanding import (
    WINDOWS_METRIC,
    FoldResiduals,
    fold_intervals,
    independent_windows,
    windows_metric,
)
from flts.forecasting.intervals import LEVELS, MEDIAN, Intervals, calibrate, calibration_steps
from flts.forecasting.quantiles import Point
from flts.forecasting.rolling import Inputs
from flts.forecasting.series import FloatArray
from flts.forecasting.windows import Float32Array
from flts.observability.logs import get_logger
from flts.training.fitting import FittedModel, TrainingSet
from flts.training.onnx_file import with_arrays

ROLLED_WINDOWS = 40_000
"""Windows that the calibration may compute, at 20 to 35 us each; this limits the origins and not the steps."""
LEAST_ORIGINS = 48

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Identity:
    """The names in the key of a bundle."""

    identifier: str
    config_hash: str
    model_type: str
    train_hash: str


def identity_of(event: TrainingData, model_type: str, parts: Mapping[str, Any]) -> Identity:
    """Return the names of the bundle of an event's rows; ``parts`` contains all else that determines the model.

    Raises
    ------
    RejectedError
        ``no_config_hash`` for an event without one.
    """
    if event.config_hash is None:
        msg = "training data without a config_hash"
        raise RejectedError(msg, code="no_config_hash", field="config_hash")
    return Identity(event.identifier, event.config_hash, model_type, sha256_of({**parts, "model_type": model_type}))


def make_bundle(
    fitted: FittedModel,
    data: TrainingSet,
    identity: Identity,
    *,
    threads: int,
    alive: Callable[[], None],
    folds: Sequence[FoldResiduals] = (),
    horizon: int = 1,
) -> tuple[Bundle, bytes]:
    """Return the bundle of a fitted model and its ONNX file, which was checked to repeat the trainer's predictions.

    A bundle without limits has format 1 and the fitted model's own file. Limits need format 2, whose file also has the
    probe and the quantiles of the intervals, more of them than the two of the bounds. So do folds, a direct model, and
    the median as the point forecast, if there are enough residuals for it. The bundle of a refit has format 2.

    Parameters
    ----------
    fitted, data, identity
        The fitted model, its data and its names.
    threads : int
        Threads of the exported model while it is checked.
    alive : callable
        Called before each pass of the calibration.
    folds : sequence
        The model's residuals in folds of the training rows; they calibrate the intervals instead of the tail.
    horizon : int
        Steps that the bundle is served for.

    Raises
    ------
    RejectedError
        ``export_mismatch`` if the ONNX file's forecasts of held-out inputs differ from the trainer's by more than 1e-4;
        ``bad_bundle`` if a reader would not accept the bundle.
    """
    if fitted.recipe is not None:
        data = replace(data, recipe=fitted.recipe)
    bundle = _without_intervals(fitted, data, identity)
    started = time.perf_counter()
    if data.judged is not None:
        return _in_format_2(as_refit(bundle, data, data.judged), fitted, data, threads)
    if fitted.input_kind == "direct":
        return _direct(bundle, fitted, data, threads, folds)
    model = BundleModel(bundle, fitted.model_bytes, threads=threads)
    difference = check_export(model, fitted.check_inputs, fitted.check_outputs)
    intervals = source = None
    if folds:
        intervals, source = fold_intervals(folds), "from_refit"
        windows = independent_windows(folds, min(horizon, intervals.calibrated_steps) or 1)
        bundle = replace(bundle, metrics={**bundle.metrics, **windows_metric(windows)})
    elif data.recipe.varying_targets:
        intervals = _intervals(model, fitted, data, alive)
        source = "calibration_tail" if fitted.residuals is None else "from_refit"
    bundle = replace(bundle, intervals=intervals, intervals_source=source)
    _log_checked(bundle, difference, started)
    point = point_of(data, intervals)
    if folds or data.limits or point == "median":
        return _newer(replace(bundle, limits=data.limits, point=point), fitted, data)
    return bundle, fitted.model_bytes


def _direct(
    bundle: Bundle, fitted: FittedModel, data: TrainingSet, threads: int, folds: Sequence[FoldResiduals]
) -> tuple[Bundle, bytes]:
    """Return the bundle of a direct model, whose residuals are given, and its file."""
    assert fitted.residuals is not None
    steps = {step: each for step, each in fitted.residuals.items() if step <= bundle.horizon_steps}
    intervals = fold_intervals(folds) if folds else calibrate(steps, levels=LEVELS)
    if folds:
        windows = independent_windows(folds, intervals.calibrated_steps or 1)
        bundle = replace(bundle, metrics={**bundle.metrics, **windows_metric(windows)})
    bundle = replace(
        bundle,
        intervals=intervals,
        intervals_source="from_refit",
        limits=data.limits,
        point=point_of(data, intervals),
    )
    return _in_format_2(bundle, fitted, data, threads)


def as_refit(bundle: Bundle, data: TrainingSet, judged: Bundle) -> Bundle:
    """Return the bundle of a refit: the intervals are those of the judged bundle, calibrated on rows not fitted on."""
    windows = {name: value for name, value in judged.metrics.items() if name == WINDOWS_METRIC}
    return replace(
        bundle,
        metrics={**bundle.metrics, **windows},
        fit="refitted",
        intervals=judged.intervals,
        intervals_source=judged.intervals_source,
        limits=data.limits,
        point=judged.point,
    )


def _in_format_2(bundle: Bundle, fitted: FittedModel, data: TrainingSet, threads: int) -> tuple[Bundle, bytes]:
    """Return the bundle in format 2 and its model file, which was checked to repeat the trainer's predictions."""
    started = time.perf_counter()
    bundle, model_bytes = _newer(bundle, fitted, data)
    model = BundleModel(bundle, model_bytes, threads=threads)
    _log_checked(bundle, check_export(model, fitted.check_inputs, fitted.check_outputs), started)
    return bundle, model_bytes


def point_of(data: TrainingSet, intervals: Intervals | None) -> Point:
    """Return the point forecast of a bundle: the mean if there is no median of the residuals."""
    return data.point if intervals is not None and intervals.knows(MEDIAN) else "mean"


def _without_intervals(fitted: FittedModel, data: TrainingSet, identity: Identity) -> Bundle:
    recipe, kind, horizon = data.recipe, fitted.input_kind, fitted.horizon_steps
    inputs = tuple(name for name in DIRECT_INPUTS if name in fitted.check_inputs) if kind == "direct" else ()
    longest = None
    if kind == "window":
        longest = longest_horizon(recipe, horizon)
    elif kind == "direct" and not can_continue(recipe, inputs):
        longest = horizon
    given, answers = fitted.probe()
    probe = None
    if kind != "direct":
        [values] = given.values()
        probe = {"inputs": values.tolist(), "outputs": answers.tolist()}
    return Bundle(
        model_type=identity.model_type,
        input_kind=kind,
        identifier=identity.identifier,
        config_hash=identity.config_hash,
        train_hash=identity.train_hash,
        recipe=recipe,
        input_seq_len=fitted.window_steps,
        output_seq_len=horizon,
        rows_required=fitted.rows_required,
        max_horizon_steps=longest,
        targets=tuple(recipe.targets),
        intervals=None,
        intervals_source=None,
        model_sha256=hashlib.sha256(fitted.model_bytes).hexdigest(),
        model_size=len(fitted.model_bytes),
        probe=probe,
        metrics=dict(fitted.metrics),
        reason=None if recipe.varying_targets else "all_constant",
        inputs=inputs,
        seasons=fitted.seasons,
        future_columns=recipe.known_ahead if FUTURE in inputs else (),
    )


def _log_checked(bundle: Bundle, difference: float, started: float) -> None:
    log.info(
        "bundle_checked",
        export_difference=difference,
        model_size=bundle.model_size,
        calibrated_steps=bundle.calibrated_steps,
        calibration_seconds=round(time.perf_counter() - started, 3),
    )


def _newer(bundle: Bundle, fitted: FittedModel, data: TrainingSet) -> tuple[Bundle, bytes]:
    """Return the bundle in format 2, and its model file."""
    (given, answers), intervals = fitted.probe(), bundle.intervals
    arrays = {f"{PROBE}{name}": values for name, values in {**given, OUTPUT: answers}.items()}
    if intervals is not None and intervals.values is not None:
        arrays[INTERVALS] = intervals.values
    model_bytes = with_arrays(fitted.model_bytes, arrays)
    bundle = replace(
        bundle,
        probe=None,
        fitted_until=int(data.features.times[fitted.fitted_rows - 1]) if fitted.fitted_rows else None,
        model_sha256=hashlib.sha256(model_bytes).hexdigest(),
        model_size=len(model_bytes),
    )
    read_arrays(bundle, signature_of(bundle), check_graph(model_bytes))
    return bundle, model_bytes


def check_export(model: BundleModel, given: Inputs, answers: FloatArray) -> float:
    """Return the relative difference between the exported model's answers and those of the trainer.

    Raises
    ------
    RejectedError
        ``export_mismatch`` if they differ by more than 1e-4.
    """
    difference = relative_difference(model.run(given), answers)
    if not difference <= PROBE_TOLERANCE:
        msg = f"the exported model answers held-out rows {difference:.2g} away from the trainer's own predictions"
        raise RejectedError(msg, code="export_mismatch")
    return difference


def _intervals(model: BundleModel, fitted: FittedModel, data: TrainingSet, alive: Callable[[], None]) -> Intervals:
    residuals = fitted.residuals
    if residuals is None:
        longest = max(calibration_steps(data.tails.calibration_rows), default=1)

        def run(windows: Float32Array) -> FloatArray:
            alive()
            return model.run_windows(windows)

        residuals = rolled_residuals(
            run,
            data.recipe,
            data.features,
            data.tails,
            input_seq_len=fitted.window_steps,
            output_seq_len=fitted.horizon_steps,
            max_rolled_origins=min(max(ROLLED_WINDOWS // longest, LEAST_ORIGINS), MAX_ROLLED_ORIGINS),
        )
    return calibrate(residuals, levels=LEVELS if data.limits or data.point == "median" else ())
