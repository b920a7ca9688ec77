"""LSTM: a stack of long short-term memories and a linear head on the last step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from train_container.domain.models.recurrent import Recurrent, recurrent_to_onnx

if TYPE_CHECKING:
    import onnx
    import torch

    from flts.model_settings import TrainingSettings
    from train_container.domain.shape import Shape

CELL = "LSTM"


def build(shape: Shape, settings: TrainingSettings) -> torch.nn.Module:
    """Return a new network."""
    return Recurrent(CELL, shape, settings)


def to_onnx(network: torch.nn.Module, shape: Shape) -> onnx.ModelProto:
    """Return the network as ONNX."""
    return recurrent_to_onnx(network, shape)
