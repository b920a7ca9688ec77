from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from flts.bundle.graph import check_graph
from flts.trainers import TRAINERS, Trainer
from flts.training.onnx_file import to_bytes
from tests.training_sets import training_settings
from train_container.domain.exporting import exported
from train_container.domain.models import load_model
from train_container.domain.shape import Shape

NETWORKS = [trainer for trainer in TRAINERS if trainer.package == "train_container"]


@pytest.mark.parametrize("trainer", NETWORKS, ids=lambda trainer: trainer.model_type)
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("horizon", [1, 5])
def test_the_onnx_file_of_every_registered_model_is_the_network(trainer: Trainer, layers: int, horizon: int) -> None:
    torch.manual_seed(layers)
    shape = Shape(window_steps=7, features=6, horizon_steps=horizon, targets=3)
    model = load_model(trainer)
    network = model.build(shape, training_settings(num_layers=layers, hidden_size=16, dropout=0.3)).eval()
    windows = torch.randn(33, 7, 6)

    assert_the_same(model.to_onnx(network, shape), network, windows, (33, horizon, 3))


def assert_the_same(
    model: onnx.ModelProto, network: nn.Module, windows: torch.Tensor, shape: tuple[int, int, int]
) -> None:
    data = to_bytes(model)
    check_graph(data)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (answer,) = session.run(["forecast"], {"window": windows.numpy()})
    with torch.inference_mode():
        expected = network(windows).numpy()
    assert answer.shape == shape
    assert np.abs(answer - expected).max() <= 1e-5 * np.abs(expected).max()


class Ordinary(nn.Module):
    """A network with every kind of layer that is likely to occur."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(6, 8, 3, padding=1)
        self.lstm = nn.LSTM(8, 8, num_layers=2, batch_first=True, dropout=0.1)
        self.gru = nn.GRU(8, 8, batch_first=True)
        self.head = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16), nn.GELU(), nn.Dropout(0.1), nn.Linear(16, 15))

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(self.convolution(windows.transpose(1, 2)).transpose(1, 2))
        states, _ = self.gru(states)
        answer: torch.Tensor = self.head(states[:, -1])
        return answer.view(-1, 5, 3)


def test_a_network_of_ordinary_layers_needs_no_graph_of_its_own() -> None:
    torch.manual_seed(1)
    shape = Shape(window_steps=7, features=6, horizon_steps=5, targets=3)
    network = Ordinary().eval()

    model = exported(network, shape)

    assert_the_same(model, network, torch.randn(33, 7, 6), (33, 5, 3))
    assert to_bytes(exported(network, shape)) == to_bytes(model)
    assert str(Path(__file__).parent).encode() not in model.SerializeToString()


@pytest.mark.parametrize("trainer", NETWORKS, ids=lambda trainer: trainer.model_type)
def test_one_window_and_many_give_the_same_answers(trainer: Trainer) -> None:
    torch.manual_seed(0)
    shape = Shape(window_steps=4, features=3, horizon_steps=2, targets=2)
    network = load_model(trainer).build(shape, training_settings()).eval()
    windows = torch.randn(5, 4, 3)

    with torch.inference_mode():
        together, alone = network(windows), torch.cat([network(windows[at : at + 1]) for at in range(5)])

    assert torch.allclose(together, alone, atol=1e-6)
