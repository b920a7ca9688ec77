"""A trainer and bundles of a linear model, whose fit is fast."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from flts.bundle.forecaster import longest_horizon
from flts.bundle.format import Bundle
from flts.bundle.model import WINDOW_INPUT
from flts.forecasting.intervals import Intervals
from flts.forecasting.recipe import RecipeSpec, fit_recipe, transform
from flts.forecasting.series import Series
from flts.forecasting.splits import as_train, tails
from flts.forecasting.windows import Windows, training_windows
from flts.model_settings import TrainingSettings
from flts.trainers import Trainer
from flts.training.fitting import FittedModel, Report, TrainingSet
from flts.training.onnx_file import GraphBuilder, to_bytes

CONFIG_HASH, TRAIN_HASH = "c" * 64, "d" * 64


def linear_onnx(weights: np.ndarray, bias: np.ndarray, *, length: int, features: int, horizon: int) -> bytes:
    """Return ``window @ weights + bias`` as an ONNX model; weights have the shape (L * f, H * m)."""
    targets = len(bias) // horizon
    graph = GraphBuilder()
    flat = graph.node("Reshape", [WINDOW_INPUT, graph.integers(-1, length * features)])
    constants = [graph.constant(weights.astype(np.float32)), graph.constant(bias.astype(np.float32))]
    answer = graph.node("Reshape", [graph.node("Gemm", [flat, *constants]), graph.integers(-1, horizon, targets)])
    return to_bytes(graph.window_model(answer, window=(length, features), forecast=(horizon, targets)))


LINEAR = Trainer("LINEAR", "train_container", "train-linear", TrainingSettings, port=0)
"""A trainer for tests; the registry does not contain its deployment."""


class LinearFitter:
    """Least squares on flattened windows; a `flts.training.fitting.Fitter`."""

    def __init__(self, *, export_error: float = 0.0) -> None:
        self.fits = 0
        self._export_error = export_error

    def hash_parts(self, settings: TrainingSettings, horizon: int | None) -> Mapping[str, Any]:  # noqa: ARG002 - as every Fitter
        return {"solver": "lstsq"}

    def fit(self, data: TrainingSet, settings: TrainingSettings, report: Report) -> FittedModel:
        self.fits += 1
        windows = training_windows(
            data.features,
            data.recipe,
            data.tails,
            input_seq_len=settings.window_rows,
            output_seq_len=settings.pass_steps,
        )
        weights, bias = _least_squares(windows.fit)
        _, length, features = windows.fit.inputs.shape
        horizon = settings.pass_steps
        held_out = windows.calibrate.inputs[:16]
        answers = (held_out.reshape(len(held_out), -1) @ weights + bias).reshape(len(held_out), horizon, -1)
        history = [{"train_loss": 2.0, "val_loss": 3.0}, {"train_loss": 1.0, "val_loss": 1.5}]
        for epoch, metrics in enumerate(history, 1):
            report.alive(f"epoch {epoch}")
            report.epoch_done(epoch, len(history), metrics, loss=metrics["val_loss"])
        return FittedModel(
            model_bytes=linear_onnx(weights, bias, length=length, features=features, horizon=horizon),
            input_kind="window",
            check_inputs={WINDOW_INPUT: held_out},
            check_outputs=answers.astype(np.float64) * (1 + self._export_error),
            rows_required=length + data.recipe.warmup_rows,
            fitted_rows=data.tails.fit_stop,
            metrics={"train_loss": 1.0, "val_loss": 1.5, "val_rmse": 0.5, "val_mae": 0.4},
            history=tuple(history),
        )


def linear_bundle(
    series: Series,
    spec: RecipeSpec | None = None,
    *,
    length: int = 4,
    horizon: int = 1,
    intervals: bool = True,
    identifier: str = "made",
) -> tuple[Bundle, bytes]:
    """Return a bundle of a linear model that is fitted to a series."""
    recipe = fit_recipe(as_train(series), spec or RecipeSpec())
    features = transform(recipe, series)
    shares = tails(len(features), stop_tail=0.1, calibration_tail=0.1)
    windows = training_windows(features, recipe, shares, input_seq_len=length, output_seq_len=horizon)
    weights, bias = _least_squares(windows.fit)
    width = features.values.shape[1]
    model_bytes = linear_onnx(weights, bias, length=length, features=width, horizon=horizon)
    probe = windows.calibrate.inputs[:2]
    answers = (probe.reshape(2, -1) @ weights + bias).reshape(2, horizon, -1)
    targets = len(recipe.varying_targets)
    half = np.arange(1, targets + 1, dtype=np.float64)
    quantiles = Intervals.between(0.9, (1, 3), -np.stack([half, 2 * half]), np.stack([half, 3 * half]))
    bundle = Bundle(
        model_type="LINEAR",
        input_kind="window",
        identifier=identifier,
        config_hash=CONFIG_HASH,
        train_hash=TRAIN_HASH,
        recipe=recipe,
        input_seq_len=length,
        output_seq_len=horizon,
        rows_required=length + recipe.warmup_rows,
        max_horizon_steps=longest_horizon(recipe, horizon),
        targets=recipe.targets,
        intervals=quantiles if intervals else None,
        intervals_source="calibration_tail" if intervals else None,
        model_sha256=hashlib.sha256(model_bytes).hexdigest(),
        model_size=len(model_bytes),
        probe={"inputs": probe.tolist(), "outputs": answers.astype(np.float64).tolist()},
        metrics={"val_loss": 0.5},
    )
    return bundle, model_bytes


def with_model(bundle: Bundle, model_bytes: bytes) -> Bundle:
    """Return the bundle with the hash and size of other model bytes."""
    return replace(bundle, model_sha256=hashlib.sha256(model_bytes).hexdigest(), model_size=len(model_bytes))


def _least_squares(windows: Windows) -> tuple[np.ndarray, np.ndarray]:
    flat = windows.inputs.reshape(len(windows), -1).astype(np.float64)
    columns = np.concatenate([flat, np.ones((len(flat), 1))], axis=1)
    gram = columns.T @ columns + 1e-3 * np.eye(columns.shape[1])
    solution = np.linalg.solve(gram, columns.T @ windows.targets.reshape(len(flat), -1)).astype(np.float32)
    return solution[:-1], solution[-1]
