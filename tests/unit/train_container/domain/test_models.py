from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from flts.bundle.graph import check_graph
from flts.training.onnx_file import to_bytes
from tests.training_sets import training_settings
from train_container.domain.models import MODELS, load_model
from train_container.domain.shape import Shape


@pytest.mark.parametrize("model_type", sorted(MODELS))
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("horizon", [1, 5])
def test_the_onnx_file_of_every_registered_model_is_the_network(model_type: str, layers: int, horizon: int) -> None:
    torch.manual_seed(layers)
    shape = Shape(window_steps=7, features=6, horizon_steps=horizon, targets=3)
    model = load_model(model_type)
    network = model.build(shape, training_settings(num_layers=layers, hidden_size=16, dropout=0.3)).eval()
    windows = torch.randn(33, 7, 6)

    data = to_bytes(model.to_onnx(network, shape))
    check_graph(data)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (answer,) = session.run(["forecast"], {"window": windows.numpy()})

    with torch.inference_mode():
        expected = network(windows).numpy()
    assert answer.shape == (33, horizon, 3)
    assert np.abs(answer - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("model_type", sorted(MODELS))
def test_one_window_and_many_give_the_same_answers(model_type: str) -> None:
    torch.manual_seed(0)
    shape = Shape(window_steps=4, features=3, horizon_steps=2, targets=2)
    network = load_model(model_type).build(shape, training_settings()).eval()
    windows = torch.randn(5, 4, 3)

    with torch.inference_mode():
        together, alone = network(windows), torch.cat([network(windows[at : at + 1]) for at in range(5)])

    assert torch.allclose(together, alone, atol=1e-6)
