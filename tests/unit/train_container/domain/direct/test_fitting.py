"""Direct networks fitted on training rows: their ONNX file, their bytes, and the rows that determine them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flts.bundle.forecaster import Forecaster
from flts.bundle.format import Bundle
from flts.bundle.model import BundleModel
from flts.errors import SeriesTooShortError
from flts.forecasting.direct import CLOCK, FUTURE, PAST, PLACES, SECONDS
from flts.forecasting.linear.choice import block_edges
from flts.forecasting.linear.fit import choose_linear, solve_linear
from flts.forecasting.linear.known import TakenOut
from flts.forecasting.linear.rows import table_of
from flts.forecasting.recipe import measured_only
from flts.forecasting.series import Series
from flts.model_settings import TrainingSettings
from flts.training.bundling import Identity, make_bundle
from flts.training.fitting import FittedModel, TrainingSet
from tests import known_ahead
from tests.direct_models import hourly_series, monthly_series
from tests.training_sets import SilentReport
from train_container.domain.direct import fitting
from train_container.domain.direct.blend import Blend
from train_container.domain.direct.fitting import Found, fit_direct, fit_networks
from train_container.domain.direct.plan import Plan
from train_container.domain.direct.table import NetworkTable

HORIZON = 10
SERIES = hourly_series(24 * 25)


def training_set(series: Series, horizon: int = HORIZON, **spec: Any) -> TrainingSet:
    return replace(known_ahead.training_set(series, **spec), horizon=horizon)


def plan(cell: str = "GRU", **given: Any) -> Plan:
    return Plan.of(cell, TrainingSettings(**{"hidden_size": 8, "epochs": 1, "input_seq_len": 12, **given}))


def fitted(data: TrainingSet, cell: str = "GRU", **given: Any) -> FittedModel:
    return fit_direct(data, plan(cell, **given), SilentReport())


def bundle_of(model: FittedModel, data: TrainingSet) -> tuple[Bundle, bytes]:
    identity = Identity("made", "c" * 64, "GRU", "e" * 64)
    return make_bundle(model, data, identity, threads=1, alive=lambda: None)


@pytest.fixture
def both_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give both forms a weight, also if they have learned nothing."""

    def fixed(linear: Any, *_: object) -> Blend:
        edges = block_edges(linear.shape[1])
        weights = np.full(len(edges) - 1, 0.25)
        return Blend(edges, weights, 2 * weights)

    monkeypatch.setattr(fitting, "choose_blend", fixed)
    monkeypatch.setattr("train_container.domain.direct.passes._held_out", falling())


def falling() -> Any:
    """Return a loss that is lower each time, so that the last pass is kept."""
    losses = iter(range(1_000, 0, -1))
    return lambda _: float(next(losses))


@pytest.mark.usefixtures("both_forms")
@pytest.mark.parametrize(
    ("series", "spec", "given", "inputs"),
    [
        (SERIES, {"targets": ("c1", "c0"), "time_features_enable": True}, {}, (PAST, PLACES, CLOCK)),
        (SERIES, {"targets": ("c0",), "future_columns": ("c1",), "holidays": ("DE",)}, {"cell": "LSTM"}, None),
        (SERIES, {"past_columns": ("c1",)}, {"num_layers": 2, "cell": "LSTM"}, (PAST, PLACES, CLOCK)),
        (
            monthly_series(120),
            {"targets": ("c0",), "holidays": ("DE",)},
            {"num_layers": 2},
            (PAST, PLACES, CLOCK, SECONDS),
        ),
    ],
)
def test_the_bundle_read_back_forecasts_what_the_networks_do(
    series: Series, spec: dict[str, Any], given: dict[str, Any], inputs: tuple[str, ...] | None
) -> None:
    data = training_set(series, horizon=min(HORIZON, len(series) // 10), **spec)

    model = fitted(data, **given)

    bundle, model_bytes = bundle_of(model, data)  # which compares the ONNX file with the networks
    forecaster = Forecaster(BundleModel(Bundle.from_json(bundle.to_json()), model_bytes))
    assert model.metrics["correction_passes"] == model.metrics["segments_passes"] == 1
    assert bundle.inputs == (inputs or (PAST, PLACES, CLOCK, SECONDS, FUTURE))
    assert bundle.rows_required == bundle.input_seq_len == model.check_inputs[PAST].shape[1]
    assert (bundle.horizon_steps, bundle.intervals_source) == (data.horizon, "from_refit")
    assert bundle.fitted_until == int(series.times[data.tails.stop_stop - 1])  # what eval's combination needs
    ahead = None if bundle.inputs[-1] != FUTURE else series.values[-data.horizon :, [1]]
    forecast = forecaster.forecast(series, data.horizon, *([] if ahead is None else [ahead]))
    assert np.isfinite(forecast.mean).all()
    assert forecast.lower is not None


@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
def test_the_same_rows_seed_and_settings_make_the_same_bytes(cell: str) -> None:
    data = training_set(SERIES)

    one, two, other = (fitted(data, cell, seed=seed) for seed in (1, 1, 2))

    assert (one.model_bytes, dict(one.metrics)) == (two.model_bytes, dict(two.metrics))
    assert one.history == two.history != other.history


def test_without_both_networks_the_model_is_linear_without_the_calibration_tail() -> None:
    data = training_set(SERIES)
    _, features = measured_only(data.recipe, data.features)
    fit_stop, stop_stop = data.tails.fit_stop, data.tails.stop_stop
    table, calendar = table_of(features, fit_stop=fit_stop)
    choice = choose_linear(table, horizon=HORIZON, fit_stop=fit_stop, stop_stop=stop_stop)
    linear = solve_linear(table, choice, stop=stop_stop)

    model = fitted(data, learning_rate=1e-12)

    bundle_of(model, data)
    given = model.check_inputs
    first_step = calendar(given[CLOCK][:, linear.rows_required].astype(np.float64))
    assert model.metrics["correction_passes"] == model.metrics["segments_passes"] == 0
    assert model.rows_required == linear.rows_required
    np.testing.assert_allclose(model.check_outputs, linear(given[PAST], given[PLACES], first_step), atol=1e-5)


def networks_of(series: Series, **changes: Any) -> fitting.Networks:
    data = training_set(series)
    recipe, features = measured_only(data.recipe, data.features)
    fit_stop, stop_stop = data.tails.fit_stop, data.tails.stop_stop
    table, _ = table_of(features, fit_stop=fit_stop)
    choice = choose_linear(table, horizon=HORIZON, fit_stop=fit_stop, stop_stop=stop_stop)
    rows = {"stop": fit_stop, "tail_stop": stop_stop, **changes}
    source = NetworkTable.fitted(TakenOut.of(table, recipe, features), rows["stop"])
    return fit_networks(source, choice, plan(), SilentReport(), **rows)


@pytest.mark.usefixtures("both_forms")
def test_the_calibration_tail_has_no_part_in_the_networks() -> None:
    later, tails = SERIES.values.copy(), training_set(SERIES).tails
    later[tails.stop_stop :] = later[tails.stop_stop :][::-1]  # the highest and lowest values stay

    networks = [networks_of(each) for each in (SERIES, replace(SERIES, values=later))]

    for name in ("correction", "segments"):
        one, other = (getattr(each, name).state_dict() for each in networks)
        assert all((one[key] == other[key]).all() for key in one)


@pytest.mark.usefixtures("both_forms")
def test_found_choices_are_repeated_on_other_rows() -> None:
    first = networks_of(SERIES)
    found = Found.of(first.found.metrics, HORIZON)

    again = networks_of(SERIES, stop=len(SERIES), tail_stop=len(SERIES), found=replace(found, correction=2))

    assert found.metrics == first.found.metrics
    assert again.found.blend is not None
    np.testing.assert_array_equal(again.found.blend.segments, first.found.blend.segments)
    assert [next(iter(each)) for each in again.history] == [
        "correction_train_loss",
        "correction_train_loss",
        "segments_train_loss",
    ]
    assert all(each["correction_val_loss"] is None for each in again.history[:2])


def test_a_form_without_passes_is_not_trained_again() -> None:
    edges = block_edges(HORIZON)
    zero = np.zeros(len(edges) - 1)
    found = Found(0, 0, Blend(edges, zero, zero))

    again = networks_of(SERIES, found=found)

    assert (again.correction, again.segments, list(again.history)) == (None, None, [])


def test_each_pass_is_reported_and_numbered_through() -> None:
    class Heard(SilentReport):
        def __init__(self) -> None:
            self.passes: list[tuple[int, int]] = []

        def epoch_done(self, epoch: int, epochs: int, metrics: Mapping[str, Any], *, loss: float | None) -> None:
            assert loss in metrics.values()
            self.passes.append((epoch, epochs))

    heard = Heard()

    fit_direct(training_set(SERIES), plan(epochs=2), heard)

    assert heard.passes == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_rows_that_are_too_few_for_linear_are_refused_with_their_number() -> None:
    with pytest.raises(SeriesTooShortError, match="at least 9 rows in one piece"):
        fitted(training_set(hourly_series(10), horizon=1))
