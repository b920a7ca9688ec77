"""The network of GRU and LSTM, built of torch's recurrent layers, and its ONNX graph."""

from __future__ import annotations

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
        For each gate of the operator, in the operator's order, its position in torch's weights.
    **attributes
        Further attributes of the operator.
    """
    assert isinstance(network, Recurrent)
    graph = GraphBuilder()
    hidden, layers = network.layers.hidden_size, network.layers.num_layers
    current = graph.node("Transpose", [WINDOW_INPUT], perm=[1, 0, 2])  # ONNX expects (steps, batch, features)
    for layer in range(layers):
        weights = {name: _weights(network.layers, f"{name}_l{layer}", gates) for name in _WEIGHTS}
        biases = np.concatenate([weights["bias_ih"], weights["bias_hh"]])
        inputs = [
            current,
            graph.constant(weights["weight_ih"][None]),
            graph.constant(weights["weight_hh"][None]),
            graph.constant(biases[None]),
        ]
        states, last = graph.nodes(kind, inputs, 2, hidden_size=hidden, **attributes)
        # ONNX's result has an axis of directions of length 1, which is removed: (steps, 1, batch, hidden) of all
        # states, (1, batch, hidden) of the last state.
        top = layer == layers - 1
        current = graph.node("Squeeze", [last if top else states, graph.integers(0 if top else 1)])
    head = [graph.constant(_array(network.head.weight)), graph.constant(_array(network.head.bias))]
    flat = graph.node("Gemm", [current, *head], transB=1)
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
