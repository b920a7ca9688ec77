"""Bundles of format 2 and direct models: read, checked, forecast with, refused where they contradict themselves."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest

from flts.bundle.forecaster import Forecaster
from flts.bundle.format import Bundle
from flts.bundle.graph import check_graph
from flts.bundle.model import BundleModel
from flts.bundle.proof import BATCH_COPIES, MEMORY_BYTES, MODEL_COPIES, memory_bytes, prove
from flts.bundle.tensors import MAX_BATCH
from flts.errors import RejectedError, SeriesTooShortError
from flts.forecasting.grid import FixedGrid
from flts.forecasting.intervals import Intervals, bounds
from flts.forecasting.places import season_places
from flts.forecasting.recipe import RecipeSpec, fit_recipe
from flts.forecasting.series import Series
from flts.forecasting.splits import as_train
from flts.training.onnx_file import GraphBuilder
from tests.direct_models import (
    LEVELS,
    Parts,
    direct_bundle,
    direct_parts,
    hourly_series,
    monthly_series,
    reference,
    seasonal_answer,
    with_bytes,
)

SERIES = hourly_series()


@pytest.fixture(scope="module")
def made() -> tuple[Bundle, bytes]:
    return direct_bundle(SERIES)


def forecaster_of(made: tuple[Bundle, bytes]) -> Forecaster:
    return Forecaster(BundleModel(Bundle.from_json(made[0].to_json()), made[1]))


def edited(bundle: Bundle, **changes: object) -> bytes:
    return json.dumps(json.loads(bundle.to_json()) | changes).encode()


def old_bundle() -> Bundle:
    """Return a bundle of format 1 whose numbers are exact."""
    series = Series(60 * np.arange(4), ("a",), np.array([[0.0], [1], [3], [4]]), FixedGrid(60))
    recipe = fit_recipe(as_train(series), RecipeSpec(time_features_enable=False))
    return Bundle(
        model_type="GRU",
        input_kind="window",
        identifier="old",
        config_hash="c" * 64,
        train_hash="d" * 64,
        recipe=recipe,
        input_seq_len=1,
        output_seq_len=2,
        rows_required=1,
        max_horizon_steps=None,
        targets=("a",),
        intervals=Intervals.between(0.9, (1, 2), np.array([[-0.5], [-1.0]]), np.array([[0.5], [1.5]])),
        intervals_source="calibration_tail",
        model_sha256="e" * 64,
        model_size=7,
        probe={"inputs": [[[0.25]]], "outputs": [[[0.5], [0.75]]]},
        metrics={"val_loss": 0.5},
    )


def test_a_bundle_that_needs_nothing_of_format_2_has_the_bytes_of_format_1() -> None:
    assert old_bundle().to_json() == (
        b'{"config_hash":"' + b"c" * 64 + b'","format_version":1,"identifier":"old","input_kind":"window",'
        b'"input_seq_len":1,"intervals":{"calibrated_steps":2,"lower":[[-0.5],[-1.0]],"nominal":0.9,"steps":[1,2],'
        b'"upper":[[0.5],[1.5]]},"intervals_source":"calibration_tail","max_horizon_steps":null,'
        b'"metrics":{"val_loss":0.5},"model_sha256":"' + b"e" * 64 + b'","model_size":7,"model_type":"GRU",'
        b'"output_seq_len":2,"probe":{"inputs":[[[0.25]]],"outputs":[[[0.5],[0.75]]]},"reason":null,'
        b'"recipe":{"add":0.0,"clip_lower":null,"clip_upper":null,"columns":["a"],"constants":{},"dropped":{},'
        b'"fill":[2.0],"handle_nans":true,"lags":[],"nans_drop_rows":false,"offset":[0.0],"scale":[4.0],'
        b'"step_seconds":60,"targets":["a"],"time_features":false,"version":1},"rows_required":1,"targets":["a"],'
        b'"train_hash":"' + b"d" * 64 + b'"}'
    )
    assert Bundle.from_json(old_bundle().to_json()).horizon_steps == 2


@pytest.mark.parametrize(
    "change", [{"fitted_until": 5}, {"fit": "refitted"}, {"limits": {"a": (0.0, None)}}, {"horizon_steps": 9}]
)
def test_fields_of_format_2_need_a_probe_in_the_model_file(change: dict[str, Any]) -> None:
    with pytest.raises(RejectedError, match="probe in the model file"):
        replace(old_bundle(), **change).to_json()

    newer = replace(old_bundle(), **change, probe=None)
    assert newer.format_version == json.loads(newer.to_json())["format_version"] == 2


def test_a_bundle_of_format_2_is_read_back(made: tuple[Bundle, bytes]) -> None:
    bundle, _ = made
    full = replace(
        bundle,
        limits={"c0": (0.0, None), "c1": (None, 500.5)},
        fit="refitted",
        fitted_until=1_700_000_000,
        rows_required=400,
    )

    again = Bundle.from_json(full.to_json())

    assert again.to_json() == full.to_json()
    names = ("inputs", "seasons", "limits", "fit", "fitted_until", "horizon_steps", "probe", "rows_required")
    assert [getattr(again, name) for name in names] == [getattr(full, name) for name in names]
    assert again.intervals is not None
    assert again.intervals.values is None
    assert again.calibrated_steps == 24


@pytest.mark.parametrize("steps", [1, 24, 25, 60])
def test_forecasts_are_those_of_the_plain_loop_within_and_beyond_the_horizon(
    made: tuple[Bundle, bytes], steps: int
) -> None:
    forecast = forecaster_of(made).forecast(SERIES, steps)

    np.testing.assert_allclose(forecast.mean, reference(SERIES, steps), rtol=1e-6)
    assert forecast.times.tolist() == SERIES.grid.after(SERIES.times[-1:], steps)[0].tolist()
    assert forecast.calibrated_steps == 24


def test_a_profile_of_months_is_forecast_too() -> None:
    series = monthly_series()
    forecaster = forecaster_of(direct_bundle(series, season=12, length=24, horizon=12))

    forecast = forecaster.forecast(series, 30)

    np.testing.assert_allclose(forecast.mean, reference(series, 30, season=12, length=24, horizon=12), rtol=1e-5)


def test_the_bounds_are_the_quantiles_of_the_model_file(made: tuple[Bundle, bytes]) -> None:
    forecaster = forecaster_of(made)
    intervals = forecaster.bundle.intervals
    assert intervals is not None
    assert intervals.values is not None
    assert intervals.values.shape == (5, 3, 2)

    forecast = forecaster.forecast(SERIES, 24)

    assert forecast.lower is not None
    widths = forecaster.recipe.scales_of_targets * 0.05
    np.testing.assert_allclose(forecast.lower[0] - forecast.mean[0], -1.6 * widths)
    np.testing.assert_allclose((bounds(intervals, forecast.mean) or [None])[0], forecast.lower)


def test_many_origins_are_forecast_as_one_at_a_time(
    made: tuple[Bundle, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flts.forecasting.rolling.BATCH_CELLS", 5_000)  # several batches
    forecaster = forecaster_of(made)
    rows = SERIES.rows(0, 400)
    origins = forecaster.valid_origins(rows, 0)
    assert origins.tolist() == list(range(48, 400))

    together = forecaster.forecast_origins(rows, origins[::9], 30)

    for origin, forecast in zip(origins[::9].tolist(), together, strict=True):
        np.testing.assert_allclose(forecast, forecaster.forecast(rows.rows(0, origin), 30).mean, rtol=1e-6)
    assert forecaster.forecast_origins(rows, origins[:0], 3).shape == (0, 3, 2)


def test_forecasts_and_bounds_stay_within_the_limits() -> None:
    plain = forecaster_of(direct_bundle(SERIES))
    middle = float(np.median(plain.forecast(SERIES, 24).mean[:, 0]))
    forecaster = forecaster_of(direct_bundle(SERIES, limits={"c0": (middle, None), "c1": (None, 150.0)}))

    forecast = forecaster.forecast(SERIES, 60)

    expected = reference(SERIES, 60)
    assert (expected[:, 0] < middle).any()
    np.testing.assert_allclose(forecast.mean[:, 0], np.maximum(expected[:, 0], middle), rtol=1e-6)
    assert forecast.lower is not None
    assert forecast.upper is not None
    assert forecast.lower[:, 0].min() == middle
    assert forecast.upper[:, 1].max() == 150
    assert (forecast.lower <= forecast.mean).all()
    assert (forecast.mean <= forecast.upper).all()
    assert forecaster.forecast_origins(SERIES, np.array([100, 500]), 30)[..., 0].min() == middle


def test_a_model_with_other_inputs_forecasts_one_horizon() -> None:
    series = hourly_series(extra=True)
    spec = RecipeSpec(targets=("c0", "c1"))
    forecaster = forecaster_of(direct_bundle(series, spec=spec))
    assert forecaster.max_horizon == 24

    np.testing.assert_allclose(forecaster.forecast(series, 24).mean, reference(series, 24, spec=spec), rtol=1e-6)
    with pytest.raises(RejectedError, match="at most 24 steps"):
        forecaster.forecast(series, 25)
    with pytest.raises(RejectedError, match="max_horizon_steps"):
        direct_bundle(series, spec=spec, max_horizon_steps=None)[0].to_json()


def test_more_rows_than_the_window_may_be_required(made: tuple[Bundle, bytes]) -> None:
    forecaster = forecaster_of((replace(made[0], rows_required=100), made[1]))

    with pytest.raises(SeriesTooShortError, match="100 rows"):
        forecaster.forecast(SERIES.rows(0, 99), 1)
    np.testing.assert_allclose(forecaster.forecast(SERIES, 5).mean, reference(SERIES, 5), rtol=1e-6)
    assert forecaster.valid_origins(SERIES, 0)[0] == 100


def test_a_model_may_take_the_calendar_alone() -> None:
    def build(parts: Parts, graph: GraphBuilder) -> str:
        ahead = graph.node("Slice", ["places", graph.integers(48), graph.integers(72), graph.integers(1)])
        place = graph.node("Gather", [ahead, graph.constant(np.array(0))], axis=2)
        return graph.node("Gather", [graph.constant(parts.profile), place], axis=0)

    parts = direct_parts(SERIES, season=24, length=48, horizon=24)
    lasts = SERIES.times[47:49]
    ahead = season_places(SERIES.grid, SERIES.grid.after(lasts, 24), (24,))[..., 0]
    arrays = {"probe.past": None, "probe.clock": None, "probe.forecast": parts.profile[ahead]}

    forecaster = forecaster_of(direct_bundle(SERIES, build=build, inputs=("places",), arrays=arrays))

    places = season_places(SERIES.grid, SERIES.grid.after(SERIES.times[-1:], 30)[0], (24,))[:, 0]
    scaled = (forecaster.forecast(SERIES, 30).mean - parts.recipe.offsets) / parts.recipe.scales
    np.testing.assert_allclose(scaled, parts.profile[places], atol=1e-6)


def test_the_proof_counts_all_inputs_and_the_answer(made: tuple[Bundle, bytes]) -> None:
    bundle, _ = made
    row = 48 * 2 * 4 + 72 * 1 * 8 + 72 * 3 * 4 + 24 * 2 * 4

    assert memory_bytes(bundle) == MEMORY_BYTES + MODEL_COPIES * bundle.model_size + BATCH_COPIES * MAX_BATCH * row
    huge = replace(bundle, input_seq_len=10_000, rows_required=10_000)
    assert memory_bytes(huge) <= MEMORY_BYTES + MODEL_COPIES * bundle.model_size + BATCH_COPIES * 64 * 2**20


def test_a_good_bundle_is_proved_in_a_child_process(made: tuple[Bundle, bytes]) -> None:
    prove(*made)


def test_arrays_that_no_node_uses_load_without_a_word(
    made: tuple[Bundle, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    forecaster_of(made).forecast(SERIES, 3)

    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format_version": 3}, "unknown format version 3"),
        ({"format_version": True}, "unknown format version True"),
        ({"format_version": 1}, "input_kind"),
        ({"surprise": 1}, "surprise"),
        ({"inputs": ["past", "window"]}, "inputs"),
        ({"inputs": ["places", "past"]}, "inputs are"),
        ({"inputs": ["past", "past"]}, "inputs are"),
        ({"inputs": []}, "inputs are"),
        ({"input_kind": "window"}, "inputs are"),
        ({"seasons": []}, "seasons are"),
        ({"seasons": [24, 24]}, "seasons are"),
        ({"seasons": [1]}, "seasons"),
        ({"seasons": [2, 3, 4, 5]}, "seasons"),
        ({"seasons": [10**7]}, "seasons"),
        ({"future_columns": ["c0"]}, "future_columns"),
        ({"limits": {"other": [0, 1]}}, "limits of other"),
        ({"limits": {"c0": [2, 1]}}, "limits of c0"),
        ({"limits": {"c0": [2]}}, "limits"),
        ({"horizon_steps": 48}, "horizon_steps"),
        ({"horizon_steps": 0}, "horizon_steps"),
        ({"fit": "guessed"}, "fit"),
        ({"fitted_until": 2**60}, "fitted_until"),
        ({"probe": {"inputs": [], "outputs": []}}, "probe"),
        ({"rows_required": 47}, "rows_required"),
        ({"intervals": {"nominal": 0.9, "steps": [1, 25], "probabilities": [0.05, 0.95]}}, "calibrated for 25 of 24"),
        ({"intervals": {"nominal": 0.9, "steps": [1], "probabilities": [0.1, 0.9]}}, "intervals"),
        ({"intervals": {"nominal": 0.9, "steps": [1], "lower": [[1.0]], "upper": [[1.0]]}}, "intervals"),
    ],
)
def test_a_document_that_contradicts_itself_is_refused_naming_the_part(
    made: tuple[Bundle, bytes], change: dict[str, object], reason: str
) -> None:
    with pytest.raises(RejectedError, match=reason) as refused:
        Bundle.from_json(edited(made[0], **change))
    assert refused.value.code == "bad_bundle"


PLACES = np.zeros((2, 72, 1), np.int64)
CLOCK = np.zeros((2, 72, 3), np.float32)
QUANTILES = np.zeros((5, 3, 2))


@pytest.mark.parametrize(
    ("array", "values", "reason"),
    [
        ("probe.past", None, r"lacks the arrays \['probe.past'\]"),
        ("probe.forecast", None, r"lacks the arrays \['probe.forecast'\]"),
        ("intervals.values", None, r"lacks the arrays \['intervals.values'\]"),
        ("probe.future", CLOCK, r"unknown arrays \['probe.future'\]"),
        ("notes", np.zeros(3), r"unknown arrays \['notes'\]"),
        ("probe.past", np.zeros((2, 48, 3), np.float32), r"probe.past is float32 of \(2, 48, 3\)"),
        ("probe.past", np.zeros((2, 48, 2)), "probe.past is float64"),
        ("probe.clock", CLOCK[:1], "probe.clock"),
        ("probe.places", PLACES.astype(np.int32), "probe.places is int32"),
        ("probe.places", PLACES - 1, "a place of the probe is outside"),
        ("probe.places", PLACES + 24, "a place of the probe is outside"),
        ("probe.clock", CLOCK + 1, "turn of the probe's clock"),
        ("probe.clock", CLOCK * np.float32("nan"), "not finite"),
        ("probe.forecast", np.zeros((0, 24, 2)), "the probe has 0 rows"),
        ("probe.forecast", np.zeros((65, 24, 2)), "the probe has 65 rows"),
        ("probe.forecast", np.array(1.0), "the probe has 0 rows"),
        ("probe.forecast", np.zeros((2, 24, 2)), "away from the trainer's own answer"),
        ("intervals.values", QUANTILES[:4], "intervals.values is float64"),
        ("intervals.values", QUANTILES - np.arange(5)[:, None, None], "intervals make no sense"),
        ("intervals.values", QUANTILES + np.inf, "not finite"),
    ],
)
def test_arrays_that_are_not_those_of_the_document_are_refused(
    array: str, values: np.ndarray | None, reason: str
) -> None:
    made = direct_bundle(SERIES, arrays={array: values})

    with pytest.raises(RejectedError, match=reason) as refused:
        BundleModel(*made)
    assert refused.value.code == "bad_bundle"


def with_graph(made: tuple[Bundle, bytes], change: Any) -> tuple[Bundle, bytes]:
    proto = onnx.load_from_string(made[1])
    change(proto.graph)
    return with_bytes(made[0], proto.SerializeToString())


def _renamed_input(graph: onnx.GraphProto) -> None:
    graph.input[2].name = "watch"
    for node in graph.node:
        node.input[:] = ["watch" if name == "clock" else name for name in node.input]


def _wrong_type(graph: onnx.GraphProto) -> None:
    graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE


def _wrong_rows(graph: onnx.GraphProto) -> None:
    graph.input[1].type.tensor_type.shape.dim[1].dim_value = 71


def _fixed_batch(graph: onnx.GraphProto) -> None:
    for given in graph.input:
        given.type.tensor_type.shape.dim[0].dim_value = 2


def _no_shape(graph: onnx.GraphProto) -> None:
    graph.input[2].type.tensor_type.ClearField("shape")


def _one_more(graph: onnx.GraphProto) -> None:
    graph.input.append(onnx.helper.make_tensor_value_info("future", onnx.TensorProto.FLOAT, ["batch", 72, 1]))


def _uses_an_array(graph: onnx.GraphProto) -> None:
    graph.node[-1].input[0] = "bundle.probe.forecast"


def _two_arrays(graph: onnx.GraphProto) -> None:
    graph.initializer.append(next(one for one in graph.initializer if one.name == "bundle.probe.past"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_renamed_input, "the model takes"),
        (_wrong_type, "the model"),
        (_wrong_rows, "the model"),
        (_fixed_batch, "the model"),
        (_no_shape, "the model"),
        (_one_more, "the model takes"),
        (_uses_an_array, "uses bundle.probe.forecast, which is data of the bundle"),
        (_two_arrays, "two arrays bundle.probe.past"),
    ],
)
def test_a_model_of_other_tensors_is_refused(made: tuple[Bundle, bytes], change: Any, reason: str) -> None:
    with pytest.raises(RejectedError, match=reason) as refused:
        BundleModel(*with_graph(made, change))
    assert refused.value.code == "bad_bundle"


def test_a_table_with_fewer_places_than_the_season_is_refused() -> None:
    def build(parts: Parts, graph: GraphBuilder) -> str:
        return seasonal_answer(replace(parts, profile=parts.profile[:12]), graph)

    with pytest.raises(RejectedError, match="does not run") as refused:
        BundleModel(*direct_bundle(SERIES, build=build))
    assert refused.value.code == "bad_bundle"


def test_arrays_in_a_model_of_format_1_are_refused(made: tuple[Bundle, bytes]) -> None:
    assert set(check_graph(made[1])) == {
        "probe.past", "probe.places", "probe.clock", "probe.forecast", "intervals.values",
    }  # fmt: skip
    graph = GraphBuilder()
    graph.array("probe.window", np.zeros((1, 1, 1), np.float32))
    model = graph.window_model("window", window=(1, 1), forecast=(2, 1)).SerializeToString()

    with pytest.raises(RejectedError, match="unknown arrays"):
        BundleModel(*with_bytes(old_bundle(), model))


def test_a_window_model_of_format_2_has_its_probe_in_the_model_file() -> None:
    graph = GraphBuilder()
    window = np.array([[[0.25]]], np.float32)
    graph.array("probe.window", window)
    graph.array("probe.forecast", np.array([[[0.25], [0.25]]]))
    graph.array("intervals.values", np.array([[[-1.0]], [[1.0]]]))
    answer = graph.node("Concat", ["window", "window"], axis=1)
    model = graph.window_model(answer, window=(1, 1), forecast=(2, 1)).SerializeToString()
    intervals = Intervals(0.9, (1,), (0.05, 0.95), None)
    bundle = replace(old_bundle(), probe=None, intervals=intervals, horizon_steps=7, limits={"a": (None, 0.5)})

    forecaster = forecaster_of(with_bytes(bundle, model))

    assert forecaster.bundle.horizon_steps == 7
    series = Series(60 * np.arange(3), ("a",), np.array([[0.0], [2], [0.4]]), FixedGrid(60))
    forecast = forecaster.forecast(series, 3)
    assert forecast.mean[:, 0].tolist() == pytest.approx([0.4] * 3)
    assert forecast.upper is not None
    assert forecast.upper.tolist() == [[0.5]] * 3
    assert LEVELS[1] == intervals.probabilities[0]
