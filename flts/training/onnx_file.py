"""Build and check ONNX files of one opset; the same numbers give the same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, checker, helper, numpy_helper

from flts.bundle.graph import ARRAY_PREFIX
from flts.bundle.tensors import OUTPUT, SECONDS_INPUT, NumberType, Signature, Tensor
from flts.forecasting.rolling import WINDOW_INPUT

OPSET = 17
"""Version of the ONNX operators; it has all operators that FLTS uses, and current runtimes support it."""
IR_VERSION = 8
_TYPES: dict[NumberType, int] = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "int64": TensorProto.INT64,
}


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

    def array(self, name: str, values: NDArray[Any]) -> None:
        """Add data of a bundle that no node uses (`flts.bundle.arrays`)."""
        self._constants.append(_array(name, values))

    def include(self, graph: onnx.GraphProto, inputs: Mapping[str, str], output: str) -> str:
        """Add the nodes and constants of another model's graph of the same opset; return the name of its output.

        Parameters
        ----------
        graph : onnx.GraphProto
            Data of its bundle is left out.
        inputs : name -> name
            For each input of the graph, the value that it takes.
        output : str
            Name of the output in the graph.
        """
        prefix = f"g{len(self._nodes)}_"
        own = [each for each in graph.initializer if not each.name.startswith(ARRAY_PREFIX)]
        for constant in own:
            copied = onnx.TensorProto.FromString(constant.SerializeToString())
            copied.name = f"{prefix}{constant.name}"
            self._constants.append(copied)

        def renamed(names: Iterable[str]) -> list[str]:
            return [inputs.get(name, f"{prefix}{name}") if name else "" for name in names]

        for node in graph.node:
            copied = onnx.NodeProto.FromString(node.SerializeToString())
            copied.input[:], copied.output[:] = renamed(node.input), renamed(node.output)
            copied.name = ""
            self._nodes.append(copied)
        return f"{prefix}{output}"

    def window_model(self, answer: str, *, window: tuple[int, int], forecast: tuple[int, int]) -> onnx.ModelProto:
        """Return a model of windows (batch, L, f) float32 that returns (batch, H, m) float32."""
        output = Tensor(OUTPUT, "float32", forecast)
        return self.model(answer, Signature((Tensor(WINDOW_INPUT, "float32", window),), output))

    def timestamps_model(self, answer: str, *, targets: int) -> onnx.ModelProto:
        """Return a model of epoch seconds (batch,) int64 that returns (batch, m) float64."""
        output = Tensor(OUTPUT, "float64", (targets,))
        return self.model(answer, Signature((Tensor(SECONDS_INPUT, "int64", ()),), output))

    def model(self, answer: str, signature: Signature) -> onnx.ModelProto:
        """Return a model that takes and returns the tensors of a signature."""
        graph = helper.make_graph(
            [*self._nodes, helper.make_node("Identity", [answer], [OUTPUT])],
            "flts",
            [_value_info(tensor) for tensor in signature.inputs],
            [_value_info(signature.output)],
            self._constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def with_arrays(model_bytes: bytes, arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return a model file with data of a bundle that no node uses (`flts.bundle.arrays`).

    Parameters
    ----------
    model_bytes : bytes
        ONNX, of any exporter.
    arrays : name -> array
        Names without `ARRAY_PREFIX`.
    """
    model = onnx.load_model_from_string(model_bytes)
    model.graph.initializer.extend(_array(name, values) for name, values in arrays.items())
    return to_bytes(model)


def _array(name: str, values: NDArray[Any]) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, order="C"), f"{ARRAY_PREFIX}{name}")


def _value_info(tensor: Tensor) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, _TYPES[tensor.numbers], ["batch", *tensor.shape])


def to_bytes(model: onnx.ModelProto) -> bytes:
    """Return a model's bytes after ONNX's checker accepted it."""
    checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data
