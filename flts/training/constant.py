"""The model of data in which nothing varies: there is nothing to learn, every target answers its constant."""

from __future__ import annotations

import numpy as np

from flts.bundle.model import OUTPUT, SECONDS_INPUT
from flts.training.fitting import FittedModel, TrainingSet
from flts.training.onnx_file import IR_VERSION, OPSET, to_bytes


def constant_model(data: TrainingSet) -> FittedModel:
    """Return a model that takes times and answers one column of zeros, beside which a reader puts the constants."""
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415 - only a trainer has onnx, and rarely needs this

    graph = helper.make_graph(
        [
            helper.make_node("Cast", [SECONDS_INPUT], ["time"], to=TensorProto.DOUBLE),
            helper.make_node("Mul", ["time", "zero"], ["nothing"]),
            helper.make_node("Unsqueeze", ["nothing", "axis"], [OUTPUT]),
        ],
        "constant",
        [helper.make_tensor_value_info(SECONDS_INPUT, TensorProto.INT64, ["batch"])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.DOUBLE, ["batch", 1])],
        [
            numpy_helper.from_array(np.array(0.0), "zero"),
            numpy_helper.from_array(np.array([1], dtype=np.int64), "axis"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    times = data.features.times[-2:]
    return FittedModel(
        model_bytes=to_bytes(model),
        input_kind="timestamps",
        check_inputs=times,
        check_outputs=np.zeros((len(times), 1)),
        metrics=dict.fromkeys(("train_loss", "train_rmse", "train_mae", "val_loss", "val_rmse", "val_mae"), 0.0),
        residuals={},
    )
