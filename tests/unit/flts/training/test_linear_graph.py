from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from flts.bundle.forecaster import Forecaster
from flts.bundle.graph import check_graph
from flts.bundle.model import BundleModel
from flts.bundle.tensors import NumberType, Signature, Tensor
from flts.forecasting.direct import DirectInputs
from flts.forecasting.linear.calendar import Calendar, find_calendar
from flts.forecasting.linear.choice import OWN_COLUMNS
from flts.forecasting.linear.fit import choose_linear, fit_linear, solve_linear
from flts.forecasting.linear.table import LinearTable
from flts.forecasting.places import clock_turns, season_places
from flts.forecasting.recipe import RecipeSpec, fit_recipe, scaled_rows
from flts.forecasting.series import FloatArray, IntArray
from flts.forecasting.splits import as_train
from flts.training.linear_graph import Solved, add_linear, linear_inputs
from flts.training.onnx_file import GraphBuilder, to_bytes
from tests.direct_models import direct_bundle, hourly_series


@pytest.mark.parametrize("columns", [1, 3, OWN_COLUMNS + 1])
@pytest.mark.parametrize("max_bytes", [2**20, 20_000])
@pytest.mark.parametrize("calendar", [Calendar(0, 0, 0), Calendar(2, 1, 1)])
def test_onnx_runtime_forecasts_what_the_model_does(columns: int, max_bytes: int, calendar: Calendar) -> None:
    rng = np.random.default_rng(columns)
    rows = np.arange(400)
    wave = np.sin(2 * np.pi * rows / 12)[:, None]
    table = LinearTable(
        wave + 0.1 * rng.normal(size=(400, columns)).cumsum(axis=0),
        np.ones((400, columns), dtype=bool),
        [slice(0, 400)],
        (12,),
        (rows % 12)[:, None],
        calendar(rng.random((400, 3))),
    )
    choice = choose_linear(table, horizon=30, fit_stop=320, stop_stop=360, max_bytes=max_bytes)
    model = solve_linear(table, choice, stop=400)
    given = {
        "past": rng.normal(size=(5, model.rows_required, columns)).astype(np.float32),
        "places": rng.integers(0, 12, size=(5, model.rows_required + 30, 1)),
        "clock": rng.random((5, model.rows_required + 30, 3)).astype(np.float32),
    }

    graph = GraphBuilder()
    answer = add_linear(graph, Solved(model), calendar)
    numbers: dict[str, NumberType] = {"past": "float32", "places": "int64", "clock": "float32"}
    tensors = [Tensor(name, numbers[name], given[name].shape[1:]) for name in linear_inputs(Solved(model))]
    output = Tensor("forecast", "float32", (30, columns))
    model_bytes = to_bytes(graph.model(answer, Signature(tuple(tensors), output)))
    session = onnxruntime.InferenceSession(model_bytes, providers=["CPUExecutionProvider"])
    inputs = {each.name: given[each.name] for each in session.get_inputs()}
    (forecast,) = session.run(["forecast"], inputs)

    check_graph(model_bytes)
    assert len(model_bytes) < model.size_bytes + 20_000
    first = calendar(given["clock"][:, model.rows_required])
    np.testing.assert_allclose(forecast, model(given["past"], given["places"], first), atol=2e-5)


def test_a_bundle_of_format_2_holds_all_that_linear_needs() -> None:
    series, horizon, rows = hourly_series(), 24, 24 * 40
    recipe = fit_recipe(as_train(series), RecipeSpec())
    scaled = scaled_rows(recipe, series)[0]
    calendar = find_calendar(series.grid.clock(series.times), 3_600)
    places, turns = season_places(series.grid, series.times, (24,)), clock_turns(series.grid, series.times)
    known = np.ones(scaled.shape, dtype=bool)
    table = LinearTable(scaled, known, [slice(0, rows)], (24,), places, calendar(turns))
    model = fit_linear(table, horizon=horizon, fit_stop=760, stop_stop=860).model
    length = model.rows_required
    source = DirectInputs(recipe, linear_inputs(Solved(model)), (24,), length, horizon)

    def numpy(past: FloatArray, last_times: IntArray) -> FloatArray:
        given = source.start(past, last_times).inputs()
        first = calendar(given["clock"][:, length].astype(float))
        return model(past, given["places"], first).astype(float)

    probe = numpy(np.stack([scaled[at : at + length] for at in range(2)]), series.times[length - 1 : length + 1])
    bundle, model_bytes = direct_bundle(
        series,
        length=length,
        horizon=horizon,
        build=lambda _, graph: add_linear(graph, Solved(model), calendar),
        arrays={"probe.forecast": probe},
        inputs=linear_inputs(Solved(model)),
    )

    forecast = Forecaster(BundleModel(bundle, model_bytes)).forecast(series, 2 * horizon)

    path = numpy(scaled[None, -length:], series.times[-1:])
    later = numpy(np.concatenate([scaled[None], path], axis=1)[:, -length:], forecast.times[horizon - 1 : horizon])
    expected = np.concatenate([path[0], later[0]]) * recipe.scales_of_targets + recipe.offsets_of_targets
    assert linear_inputs(Solved(model)) == ("past", "places", "clock")
    np.testing.assert_allclose(forecast.mean, expected, rtol=1e-4)
