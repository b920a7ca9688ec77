"""The model of a data set in which no target varies: it forecasts every target as its constant."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from flts.bundle.model import SECONDS_INPUT
from flts.training.fitting import FittedModel, TrainingSet
from flts.training.onnx_file import GraphBuilder, to_bytes

METRICS = ("train_loss", "train_rmse", "train_mae", "val_loss", "val_rmse", "val_mae")


def constant_model(data: TrainingSet) -> FittedModel:
    """Return a model that reads times and returns one column of zeros, which a reader replaces by the constants."""
    graph = GraphBuilder()
    time = graph.node("Cast", [SECONDS_INPUT], to=TensorProto.DOUBLE)
    nothing = graph.node("Mul", [time, graph.constant(np.array(0.0))])
    column = graph.node("Unsqueeze", [nothing, graph.integers(1)])
    times = data.features.times[-2:]
    return FittedModel(
        model_bytes=to_bytes(graph.timestamps_model(column, targets=1)),
        input_kind="timestamps",
        check_inputs={SECONDS_INPUT: times},
        check_outputs=np.zeros((len(times), 1)),
        rows_required=1,
        fitted_rows=0,
        metrics=dict.fromkeys(METRICS, 0.0),
        residuals={},
    )
