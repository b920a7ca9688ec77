"""GRU: a stack of gated recurrent units and a linear head on the last step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from train_container.domain.models.recurrent import Recurrent, recurrent_to_onnx

if TYPE_CHECKING:
    import onnx
    import torch

    from flts.model_settings import TrainingSettings
    from train_container.domain.shape import Shape


def build(shape: Shape, settings: TrainingSettings) -> torch.nn.Module:
    """Return a new network."""
    return Recurrent("GRU", shape, settings)


def to_onnx(network: torch.nn.Module, shape: Shape) -> onnx.ModelProto:
    """Return the network as ONNX; torch's gates r, z, n become ONNX's z, r, h, and the reset includes the bias."""
    return recurrent_to_onnx(network, shape, "GRU", gates=(1, 0, 2), linear_before_reset=1)
