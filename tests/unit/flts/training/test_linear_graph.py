from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from flts.bundle.graph import check_graph
from flts.forecasting.linear.choice import OWN_COLUMNS
from flts.forecasting.linear.fit import choose_linear, solve_linear
from flts.forecasting.linear.table import LinearTable
from flts.training.linear_graph import linear_graph
from flts.training.onnx_file import to_bytes


@pytest.mark.parametrize("columns", [1, 3, OWN_COLUMNS + 1])
@pytest.mark.parametrize("max_bytes", [2**20, 20_000])
@pytest.mark.parametrize("features", [0, 4])
def test_onnx_runtime_forecasts_what_the_model_does(columns: int, max_bytes: int, features: int) -> None:
    rng = np.random.default_rng(columns)
    rows = np.arange(400)
    wave = np.sin(2 * np.pi * rows / 12)[:, None]
    table = LinearTable(
        wave + 0.1 * rng.normal(size=(400, columns)).cumsum(axis=0),
        np.ones((400, columns), dtype=bool),
        [slice(0, 400)],
        (12,),
        (rows % 12)[:, None],
        rng.normal(size=(400, features)),
    )
    choice = choose_linear(table, horizon=30, fit_stop=320, stop_stop=360, max_bytes=max_bytes)
    model = solve_linear(table, choice, stop=400)
    given = {
        "past": rng.normal(size=(5, model.rows_required, columns)).astype(np.float32),
        "places": rng.integers(0, 12, size=(5, model.rows_required + 30, 1)),
        "clock": rng.normal(size=(5, features)).astype(np.float32),
    }

    model_bytes = to_bytes(linear_graph(model))
    session = onnxruntime.InferenceSession(model_bytes, providers=["CPUExecutionProvider"])
    inputs = {each.name: given[each.name] for each in session.get_inputs()}
    (answer,) = session.run(["forecast"], inputs)

    check_graph(model_bytes)
    assert len(model_bytes) < model.size_bytes + 20_000
    np.testing.assert_allclose(answer, model(given["past"], given["places"], given["clock"]), atol=2e-5)
