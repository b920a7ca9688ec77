"""The network of GRU and LSTM, built of torch's recurrent layers, and its ONNX graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flts.bundle.model import WINDOW_INPUT
from flts.model_settings import TrainingSettings
from flts.training.onnx_file import GraphBuilder
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
            dropout=settings.dropout if layers > 1 else 0.0,  # torch warns about dropout in a single layer
        )
        self.head = nn.Linear(settings.hidden_size, shape.outputs)

    def forward(self, windows: Tensor) -> Tensor:
        """Return forecasts (b, H, m) of windows (b, L, f)."""
        states, _ = self.layers(windows)
        forecast: Tensor = self.head(states[:, -1])
        return forecast.view(-1, self.shape.horizon_steps, self.shape.targets)


@dataclass(frozen=True, slots=True)
class OnnxCell:
    """The ONNX operator of a recurrent layer of torch.

    Parameters
    ----------
    gates : tuple of int
        For each gate of the operator, in the operator's order, its position in torch's weights.
    attributes : mapping
        Further attributes of the operator.
    states : int
        States that a layer passes on from step to step.
    """

    gates: tuple[int, ...]
    attributes: Mapping[str, int]
    states: int


CELLS = {
    # Torch's gates r, z, n become ONNX's z, r, h, and the reset includes the bias.
    "GRU": OnnxCell((1, 0, 2), {"linear_before_reset": 1}, 1),
    # Torch's gates i, f, g, o become ONNX's i, o, f, c.
    "LSTM": OnnxCell((0, 3, 1, 2), {}, 2),
}
"""By the name of torch's class, which is also the name of the operator."""


def add_layers(
    graph: GraphBuilder, layers: nn.RNNBase, inputs: str, starts: list[list[str]] | None = None
) -> list[list[str]]:
    """Add recurrent layers; return the last states of each layer, (batch, hidden) each, the output first.

    Parameters
    ----------
    graph : GraphBuilder
    layers : nn.GRU or nn.LSTM
    inputs : str
        Of all steps, (steps, batch, features).
    starts : list of lists, optional
        First states of each layer, (1, batch, hidden) each; zero if not given.
    """
    cell = CELLS[layers.mode]
    found = []
    current = inputs
    for layer in range(layers.num_layers):
        weights = {name: _weights(layers, f"{name}_l{layer}", cell.gates) for name in _WEIGHTS}
        biases = np.concatenate([weights["bias_ih"], weights["bias_hh"]])
        given = [
            current,
            graph.constant(weights["weight_ih"][None]),
            graph.constant(weights["weight_hh"][None]),
            graph.constant(biases[None]),
        ]
        given += [] if starts is None else ["", *starts[layer]]
        states, *last = graph.nodes(
            layers.mode, given, 1 + cell.states, hidden_size=layers.hidden_size, **cell.attributes
        )
        # ONNX's results have an axis of directions of length 1, which is removed: (steps, 1, batch, hidden) of all
        # states, (1, batch, hidden) of the last state.
        found.append([graph.node("Squeeze", [each, graph.integers(0)]) for each in last])
        if layer < layers.num_layers - 1:
            current = graph.node("Squeeze", [states, graph.integers(1)])
    return found


def recurrent_to_onnx(network: nn.Module, shape: Shape) -> onnx.ModelProto:
    """Return a `Recurrent` as ONNX."""
    assert isinstance(network, Recurrent)
    graph = GraphBuilder()
    rows = graph.node("Transpose", [WINDOW_INPUT], perm=[1, 0, 2])  # ONNX expects (steps, batch, features)
    last = add_layers(graph, network.layers, rows)[-1][0]
    head = [graph.constant(_array(network.head.weight)), graph.constant(_array(network.head.bias))]
    flat = graph.node("Gemm", [last, *head], transB=1)
    answer = graph.node("Reshape", [flat, graph.integers(-1, shape.horizon_steps, shape.targets)])
    return graph.window_model(
        answer, window=(shape.window_steps, shape.features), forecast=(shape.horizon_steps, shape.targets)
    )


_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _weights(layers: nn.Module, name: str, gates: tuple[int, ...]) -> NDArray[np.float32]:
    """Return one of torch's weights with its gates in ONNX's order."""
    blocks = np.split(_array(getattr(layers, name)), len(gates))
    return np.concatenate([blocks[gate] for gate in gates])


def _array(tensor: torch.Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().cpu().numpy()
    return array
