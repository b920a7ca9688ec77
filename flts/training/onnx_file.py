"""Build and check ONNX files of one opset; the same numbers give the same bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, checker, helper, numpy_helper

from flts.bundle.model import OUTPUT, SECONDS_INPUT, WINDOW_INPUT

OPSET = 17
"""Version of the ONNX operators; it has all operators that FLTS uses, and current runtimes support it."""
IR_VERSION = 8


class GraphBuilder:
    """Collects nodes and constants under numbered names, and returns them as the model of a bundle."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def constant(self, values: NDArray[Any]) -> str:
        """Add an array or a scalar; return its name."""
        name = f"c{len(self._constants)}"
        # np.asarray keeps a scalar; np.ascontiguousarray would turn it into an array of one element.
        self._constants.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name

    def integers(self, *values: int) -> str:
        """Add axes or a shape; return their name."""
        return self.constant(np.array(values, dtype=np.int64))

    def node(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        """Add an operator with one output; return the output's name."""
        return self.nodes(operator, inputs, 1, **attributes)[0]

    def nodes(self, operator: str, inputs: list[str], outputs: int, **attributes: Any) -> list[str]:
        """Add an operator; return its outputs' names."""
        names = [f"n{len(self._nodes)}_{number}" for number in range(outputs)]
        self._nodes.append(helper.make_node(operator, inputs, names, **attributes))
        return names

    def window_model(self, answer: str, *, window: tuple[int, int], forecast: tuple[int, int]) -> onnx.ModelProto:
        """Return a model of windows (batch, L, f) float32 that returns (batch, H, m) float32."""
        return self.model(answer, [(WINDOW_INPUT, TensorProto.FLOAT, window)], (TensorProto.FLOAT, forecast))

    def timestamps_model(self, answer: str, *, targets: int) -> onnx.ModelProto:
        """Return a model of epoch seconds (batch,) int64 that returns (batch, m) float64."""
        return self.model(answer, [(SECONDS_INPUT, TensorProto.INT64, ())], (TensorProto.DOUBLE, (targets,)))

    def model(
        self, answer: str, inputs: list[tuple[str, int, tuple[int, ...]]], forecast: tuple[int, tuple[int, ...]]
    ) -> onnx.ModelProto:
        """Return a model with any inputs.

        Parameters
        ----------
        answer : str
            Name of the value that is the forecast.
        inputs : list of (name, type, shape)
            Types are those of `onnx.TensorProto`; shapes are without the batch.
        forecast : (type, shape)
        """
        graph = helper.make_graph(
            [*self._nodes, helper.make_node("Identity", [answer], [OUTPUT])],
            "flts",
            [helper.make_tensor_value_info(name, kind, ["batch", *shape]) for name, kind, shape in inputs],
            [helper.make_tensor_value_info(OUTPUT, forecast[0], ["batch", *forecast[1]])],
            self._constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def to_bytes(model: onnx.ModelProto) -> bytes:
    """Return a model's bytes after ONNX's checker accepted it."""
    checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data
