"""Networks, one module each. `flts.trainers` lists them; a module has the name of its model type in lower case.

A module defines ``build(shape, settings)``, which returns a new network: scaled windows (b, L, f) float32 in, scaled
targets (b, H, m) out. It may define ``to_onnx(network, shape)``, which returns the same function as ONNX. Without it
torch's own exporter is used. A module with ``CELL``, the name of a recurrent layer of torch that is in
`train_container.domain.models.recurrent.CELLS`, is trained as a direct network unless ``OUTPUT_SEQ_LEN`` is given
(`train_container.domain.direct`).
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from flts.trainers import Trainer

if TYPE_CHECKING:
    import onnx
    import torch

    from flts.model_settings import TrainingSettings
    from train_container.domain.shape import Shape


class Build(Protocol):
    """The function of a module that makes a network."""

    def __call__(self, shape: Shape, settings: TrainingSettings) -> torch.nn.Module:
        """Return a new network."""
        ...


class ToOnnx(Protocol):
    """The function of a module that returns a network as ONNX."""

    def __call__(self, network: torch.nn.Module, shape: Shape) -> onnx.ModelProto:
        """Return a model with the input ``window`` (batch, L, f) and the output ``forecast`` (batch, H, m)."""
        ...


@dataclass(frozen=True, slots=True)
class NeuralModel:
    """The functions of a registered network."""

    build: Build
    to_onnx: ToOnnx
    cell: str | None = None
    """Recurrent layer of the direct network; None if the model is always one of windows."""


def load_model(trainer: Trainer) -> NeuralModel:
    """Import a registered model's module."""
    module = importlib.import_module(trainer.module)
    return NeuralModel(module.build, getattr(module, "to_onnx", None) or _exported, getattr(module, "CELL", None))


def _exported(network: torch.nn.Module, shape: Shape) -> onnx.ModelProto:
    # Imported here: torch's exporter takes seconds and memory, and GRU and LSTM do not use it.
    from train_container.domain.exporting import exported  # noqa: PLC0415 - see above

    return exported(network, shape)
