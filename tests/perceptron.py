"""A third neural model, as somebody would add one: this module and one line in the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from flts.bundle.model import WINDOW_INPUT
from flts.training.onnx_file import GraphBuilder

if TYPE_CHECKING:
    import onnx

    from flts.settings import TrainingSettings
    from train_container.domain.shape import Shape


class Perceptron(nn.Module):
    """One hidden layer over the flattened window."""

    def __init__(self, shape: Shape, hidden: int) -> None:
        super().__init__()
        self.shape = shape
        self.hidden = nn.Linear(shape.window_steps * shape.features, hidden)
        self.head = nn.Linear(hidden, shape.outputs)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.head(torch.relu(self.hidden(windows.flatten(1))))
        return answer.view(-1, self.shape.horizon_steps, self.shape.targets)


def build(shape: Shape, settings: TrainingSettings) -> nn.Module:
    return Perceptron(shape, settings.hidden_size)


def to_onnx(network: nn.Module, shape: Shape) -> onnx.ModelProto:
    assert isinstance(network, Perceptron)
    graph = GraphBuilder()
    current = graph.node("Flatten", [WINDOW_INPUT], axis=1)
    for layer in (network.hidden, network.head):
        weights = [graph.constant(tensor.detach().numpy()) for tensor in (layer.weight, layer.bias)]
        current = graph.node("Gemm", [current, *weights], transB=1)
        if layer is network.hidden:
            current = graph.node("Relu", [current])
    answer = graph.node("Reshape", [current, graph.integers(-1, shape.horizon_steps, shape.targets)])
    return graph.window_model(
        answer, window=(shape.window_steps, shape.features), forecast=(shape.horizon_steps, shape.targets)
    )
