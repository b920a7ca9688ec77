"""The registry of neural models.

A further model is one module with ``build`` and ``to_onnx`` as `NeuralModel` says, and one line here; its deployment
sets ``MODEL_TYPE`` to the line's name.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    import onnx
    import torch

    from flts.settings import TrainingSettings
    from train_container.domain.shape import Shape

MODELS = {
    "GRU": "train_container.domain.models.gru",
    "LSTM": "train_container.domain.models.lstm",
}
"""Module of each model, by MODEL_TYPE; imported only by the process that trains it."""


class NeuralModel(Protocol):
    """What such a module holds."""

    def build(self, shape: Shape, settings: TrainingSettings) -> torch.nn.Module:
        """Return a new network: scaled windows (b, L, f) float32 in, scaled targets (b, H, m) out."""
        ...

    def to_onnx(self, network: torch.nn.Module, shape: Shape) -> onnx.ModelProto:
        """Return the same function as ONNX: ``window`` (batch, L, f) in, ``forecast`` (batch, H, m) out."""
        ...


def load_model(model_type: str) -> NeuralModel:
    """Import a registered model's module."""
    return cast("NeuralModel", importlib.import_module(MODELS[model_type]))
