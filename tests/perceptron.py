"""A third network, as a contributor would add it: this module and one entry in the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from flts.model_settings import TrainingSettings
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
