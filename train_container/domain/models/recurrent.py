"""What GRU and LSTM share: the network around torch's own layers, and its ONNX graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from flts.bundle.model import OUTPUT, WINDOW_INPUT
from flts.settings import TrainingSettings
from flts.training.onnx_file import IR_VERSION, OPSET
from train_container.domain.shape import Shape


class Recurrent(nn.Module):
    """Stacked recurrent layers; the last layer's last state goes through one linear head.

    Parameters
    ----------
    kind : {"GRU", "LSTM"}
        Class of torch's layers.
    shape : Shape
    settings : TrainingSettings
    """

    def __init__(self, kind: str, shape: Shape, settings: TrainingSettings) -> None:
        super().__init__()
        layers = settings.num_layers
        self.shape = shape
        self.layers = getattr(nn, kind)(
            shape.features,
            settings.hidden_size,
            layers,
            batch_first=True,
            dropout=settings.dropout if layers > 1 else 0.0,  # torch warns of a dropout that has no place
        )
        self.head = nn.Linear(settings.hidden_size, shape.outputs)

    def forward(self, windows: Tensor) -> Tensor:
        """Return forecasts (b, H, m) of windows (b, L, f)."""
        states, _ = self.layers(windows)
        forecast: Tensor = self.head(states[:, -1])
        return forecast.view(-1, self.shape.horizon_steps, self.shape.targets)


def recurrent_to_onnx(
    network: nn.Module, shape: Shape, kind: str, *, gates: tuple[int, ...], **attributes: int
) -> onnx.ModelProto:
    """Return a `Recurrent` as ONNX.

    Parameters
    ----------
    network : Recurrent
    shape : Shape
    kind : {"GRU", "LSTM"}
        The ONNX operator.
    gates : tuple of int
        For each gate of the operator, in its order, torch's position of it.
    **attributes
        Further attributes of the operator.
    """
    assert isinstance(network, Recurrent)
    graph = _Graph()
    hidden, layers = network.layers.hidden_size, network.layers.num_layers
    current = graph.node("Transpose", [WINDOW_INPUT], perm=[1, 0, 2])  # ONNX wants the steps first
    for layer in range(layers):
        weights = {name: _weights(network.layers, f"{name}_l{layer}", gates) for name in _WEIGHTS}
        biases = np.concatenate([weights["bias_ih"], weights["bias_hh"]])
        inputs = [
            current,
            graph.constant(weights["weight_ih"][None]),
            graph.constant(weights["weight_hh"][None]),
            graph.constant(biases[None]),
        ]
        states, last = graph.recurrent(kind, inputs, hidden_size=hidden, **attributes)
        one_direction = graph.constant(np.array([1 if layer < layers - 1 else 0], dtype=np.int64))
        current = graph.node("Squeeze", [states if layer < layers - 1 else last, one_direction])
    head = [graph.constant(_array(network.head.weight)), graph.constant(_array(network.head.bias))]
    flat = graph.node("Gemm", [current, *head], transB=1)
    answer = graph.constant(np.array([-1, shape.horizon_steps, shape.targets], dtype=np.int64))
    graph.node("Reshape", [flat, answer], output=OUTPUT)
    return graph.model(kind.lower(), shape)


_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class _Graph:
    """Collects nodes and constants under running names."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def constant(self, values: NDArray[Any]) -> str:
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def node(self, operator: str, inputs: list[str], *, output: str | None = None, **attributes: Any) -> str:
        name = output or f"n{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def recurrent(self, operator: str, inputs: list[str], **attributes: Any) -> tuple[str, str]:
        """Add a layer; return the names of its states at all steps and of its last state."""
        name = f"n{len(self._nodes)}"
        outputs = [f"{name}_states", f"{name}_last"]
        self._nodes.append(helper.make_node(operator, inputs, outputs, **attributes))
        return outputs[0], outputs[1]

    def model(self, name: str, shape: Shape) -> onnx.ModelProto:
        window = ["batch", shape.window_steps, shape.features]
        answer = ["batch", shape.horizon_steps, shape.targets]
        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info(WINDOW_INPUT, TensorProto.FLOAT, window)],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, answer)],
            self._constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def _weights(layers: nn.Module, name: str, gates: tuple[int, ...]) -> NDArray[np.float32]:
    """Return one of torch's weights with its gates in ONNX's order."""
    blocks = np.split(_array(getattr(layers, name)), len(gates))
    return np.concatenate([blocks[gate] for gate in gates])


def _array(tensor: torch.Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().cpu().numpy()
    return array
