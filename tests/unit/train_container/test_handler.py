"""The whole service without Kafka: an event in, a bundle with the same forecasts as torch out."""

from __future__ import annotations

import importlib
import math
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flts.bundle.forecaster import Forecaster
from flts.bundle.load import fetch_bundle
from flts.bundle.model import BundleModel
from flts.contracts.events import ModelTraining
from flts.errors import RejectedError
from flts.forecasting.grid import FixedGrid
from flts.forecasting.recipe import RecipeSpec, transform
from flts.forecasting.series import Series
from flts.model_settings import TrainingSettings
from flts.trainers import TRAINERS, Trainer, trainer_of
from tests import perceptron
from tests.refits import assert_is_refit, refitted, stored_with_test
from tests.serving import answer_of, body_of
from tests.training_sets import (
    ENVIRONMENT,
    STEP,
    Progress,
    Stored,
    adapters_of,
    assert_load_is_limited,
    assert_moved_by_the_median,
    made_series,
    store_dataset,
    touching_zero,
)
from train_container.bootstrap import build_service
from train_container.handler import train_in_child
from train_container.settings import TrainSettings

Weights = dict[str, np.ndarray]
QUICK = {"HIDDEN_SIZE": "12", "EPOCHS": "3", "TRAIN_THREADS": "1", "BATCH_SIZE": "64", "OUTPUT_SEQ_LEN": "1"}


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def load(model_type: str = "GRU", **variables: str) -> TrainSettings:
        for name, value in {**ENVIRONMENT, **QUICK, "STORE_PATH": str(tmp_path), **variables}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("MODEL_TYPE", model_type)
        return TrainSettings.load()

    return load


def trained(stored: Stored, settings: TrainSettings) -> tuple[ModelTraining, Forecaster]:
    handler = train_in_child(settings, adapters_of(stored, settings))
    (event,) = handler(stored.event, Progress())
    assert isinstance(event, ModelTraining)
    assert event.bundle is not None
    bundle, model_bytes = fetch_bundle(stored.store, event.bundle)
    return event, Forecaster(BundleModel(bundle, model_bytes))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def plain_answer(kind: str, weights: Weights, window: np.ndarray) -> np.ndarray:
    """Compute one window from torch's weights in doubles, with the formulas of torch's documentation."""
    rows = window
    for layer in range(sum(name.startswith("layers.weight_hh") for name in weights)):
        w, r, wb, rb = (weights[f"layers.{name}_l{layer}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        h = c = np.zeros(r.shape[1])
        parts = len(w) // len(h)
        states = []
        for row in rows:
            x, y = np.split(w @ row + wb, parts), np.split(r @ h + rb, parts)
            if kind == "GRU":
                reset, update = sigmoid(x[0] + y[0]), sigmoid(x[1] + y[1])
                h = (1 - update) * np.tanh(x[2] + reset * y[2]) + update * h
            else:
                c = sigmoid(x[1] + y[1]) * c + sigmoid(x[0] + y[0]) * np.tanh(x[2] + y[2])
                h = sigmoid(x[3] + y[3]) * np.tanh(c)
            states.append(h)
        rows = np.array(states)
    return weights["head.weight"] @ rows[-1] + weights["head.bias"]


def plain_clock(seconds: int) -> list[float]:
    moment = datetime.fromtimestamp(seconds, UTC)
    minute_of_day = moment.hour * 60 + moment.minute + moment.second / 60
    turns = (minute_of_day / 1440, moment.weekday() / 7, (moment.timetuple().tm_yday - 1) / 365.25)
    return [wave(2 * math.pi * turn) for turn in turns for wave in (math.sin, math.cos)]


def plain_forecast(kind: str, weights: Weights, stored: Stored, settings: TrainSettings, steps: int) -> np.ndarray:
    """Forecast in a plain loop with the recipe's numbers, the calendar and torch's weights; (steps, M) in raw units."""
    recipe = stored.recipe
    offset, scale = np.array(recipe.offset), np.array(recipe.scale)
    rows, times = list(stored.series.values), [int(at) for at in stored.series.times]
    while len(rows) < len(stored.series) + steps:
        scaled = [(row - offset) / scale + recipe.add for row in rows]
        lagged = [
            [scaled[at - lag][c] for c in range(len(offset)) for lag in recipe.lags]
            for at in range(-settings.window_rows, 0)
        ]
        window = [[*scaled[at], *plain_clock(times[at]), *lagged[at]] for at in range(-settings.window_rows, 0)]
        for step in plain_answer(kind, weights, np.array(window)).reshape(settings.pass_steps, -1):
            rows.append((step - recipe.add) * scale + offset)
            times.append(times[-1] + recipe.step_seconds)
    return np.array(rows[len(stored.series) :][:steps])


@pytest.mark.parametrize(
    ("kind", "horizon", "spec"),
    [
        ("GRU", 1, RecipeSpec()),
        ("LSTM", 1, RecipeSpec(scaler="StandardScaler", add_val=0.5)),
        ("GRU", 4, RecipeSpec(lags_enable=True, lags_n=2, lags_step=3)),
        ("LSTM", 3, RecipeSpec(scaler="RobustScaler")),
    ],
)
def test_a_served_forecast_is_the_plain_loop_over_torchs_weights(  # noqa: PLR0917
    load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, horizon: int, spec: RecipeSpec
) -> None:
    stored = store_dataset(tmp_path, made_series(300), spec)
    settings = load(kind, OUTPUT_SEQ_LEN=str(horizon), LOWER_BOUND="none")
    module, kept = importlib.import_module(trainer_of(kind).module), {}

    def keep_weights(network: torch.nn.Module, shape: Any) -> Any:
        kept.update({name: tensor.double().numpy() for name, tensor in network.state_dict().items()})
        return original(network, shape)

    original = module.to_onnx
    monkeypatch.setattr(module, "to_onnx", keep_weights)
    event, forecaster = trained(stored, settings)
    assert event.bundle is not None

    one_pass = forecaster.forecast(stored.series, horizon).mean
    rolled = forecaster.forecast(stored.series, 60).mean
    body = body_of(stored.series, slice(-40, None), inference_length=horizon)
    answer = answer_of(fetch_bundle(stored.store, event.bundle), body, tmp_path / "cache")

    expected = plain_forecast(kind, kept, stored, settings, 60)
    served = [[row[name] for name in stored.recipe.targets] for row in answer["predictions"]]
    assert np.array(served) == pytest.approx(expected[:horizon], rel=1e-6)
    assert one_pass == pytest.approx(expected[:horizon], rel=1e-6)
    # Beyond one pass the rounding of float32 is fed back and grows with every pass.
    assert rolled == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_fifty_rows_give_forty_windows_and_a_bundle_that_forecasts(load: Any, tmp_path: Path, kind: str) -> None:
    stored = store_dataset(tmp_path, made_series(50, columns=11))

    event, forecaster = trained(stored, load(kind, EPOCHS="5"))

    forecast = forecaster.forecast(stored.series, 20)
    assert event.model_type == kind
    assert forecast.mean.shape == (20, 11)
    assert np.isfinite(forecast.mean).all()
    assert forecast.lower is None  # five residuals are too few to calibrate intervals


def test_the_bundles_own_probe_is_a_held_out_window_and_its_answer(load: Any, tmp_path: Path) -> None:
    stored = store_dataset(tmp_path, made_series(300))

    _, forecaster = trained(stored, load())

    probe = forecaster.model.probe.inputs["window"]
    row = int(0.9 * 300)
    features = transform(stored.recipe, stored.series).values.astype(np.float32)
    assert np.array_equal(probe[0], features[row - 10 : row])


def test_only_some_targets_are_forecast_from_all_columns(load: Any, tmp_path: Path) -> None:
    stored = store_dataset(tmp_path, made_series(300), RecipeSpec(targets=("c1",)))

    _, forecaster = trained(stored, load())

    assert forecaster.forecast(stored.series, 1).mean.shape == (1, 1)
    assert forecaster.max_horizon == 1


def test_a_constant_column_is_learnt_around(load: Any, tmp_path: Path) -> None:
    values = np.insert(made_series(300).values, 0, 9.0, axis=1)
    series = Series(made_series(300).times, ("fixed", "c0", "c1", "c2"), values, FixedGrid(STEP))
    stored = store_dataset(tmp_path, series)

    _, forecaster = trained(stored, load())

    forecast = forecaster.forecast(series, 3).mean
    assert (forecast[:, 0] == 9).all()
    assert np.isfinite(forecast).all()


def test_a_third_network_needs_one_module_and_one_entry(
    load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Trainer("MLP", "train_container", "train-mlp", TrainingSettings, port=0)
    monkeypatch.setattr("flts.trainers.TRAINERS", (*TRAINERS, entry))
    monkeypatch.setitem(sys.modules, entry.module, perceptron)
    stored = store_dataset(tmp_path, made_series(300))
    settings = load("mlp")

    event, forecaster = trained(stored, settings)

    assert event.model_type == "MLP"
    assert forecaster.bundle.model_type == "MLP"
    assert forecaster.forecast(stored.series, 30).mean.shape == (30, 3)
    assert build_service(settings, adapters_of(stored, settings)).name == "train-mlp"


def test_overrides_of_a_run_reach_the_training(load: Any, tmp_path: Path) -> None:
    stored = store_dataset(tmp_path, made_series(300), settings={"INPUT_SEQ_LEN": 6, "EPOCHS": 1, "SCALER": "none"})

    event, forecaster = trained(stored, load())

    assert forecaster.bundle.input_seq_len == 6
    assert event.metrics["epochs_run"] == 1


def test_a_wrong_override_is_refused_by_its_name(load: Any, tmp_path: Path) -> None:
    stored = store_dataset(tmp_path, made_series(100), settings={"EPOCHS": "many"})

    with pytest.raises(RejectedError) as refused:
        trained(stored, load())
    assert refused.value.field == "EPOCHS"


def test_an_unknown_model_is_named_with_the_known_ones(load: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_code:
        load("TRANSFORMER")

    assert exit_code.value.code == 2
    assert "MODEL_TYPE: TRANSFORMER is no registered model; there are GRU, LSTM" in capsys.readouterr().err


def test_a_refit_trains_as_many_epochs_as_the_judged_network_on_all_rows(load: Any, tmp_path: Path) -> None:
    series, progress = made_series(400), Progress()
    settings = load(EPOCHS="6", LEARNING_RATE="0.05")
    digests = []
    for name in ("a", "b"):
        stored = stored_with_test(tmp_path / name, series, test_rows=80)
        event, refit, judged = refitted(
            stored, train_in_child(settings, adapters_of(stored, settings)), "GRU", progress
        )
        assert event.bundle is not None
        digests.append(event.bundle.sha256)

    assert_is_refit(refit, judged, series)
    best = judged.bundle.metrics["best_epoch"]
    assert best is not None
    assert best < 6, "the judged network stopped before its last epoch, so that the number of epochs is a choice"
    assert (refit.bundle.metrics["best_epoch"], refit.bundle.metrics["epochs_run"]) == (best, best)
    epochs = [said.epoch for said in progress.said if getattr(said, "epoch", None)]
    assert epochs == [*range(1, int(best) + 1)] * 2
    assert np.abs(refit.forecast(series, 5).mean - judged.forecast(series, 5).mean).max() > 0
    assert digests[0] == digests[1]


def test_a_refit_of_a_direct_network_has_the_passes_and_weights_of_the_judged_one(load: Any, tmp_path: Path) -> None:
    series, progress = made_series(400), Progress()
    settings = load(OUTPUT_SEQ_LEN="auto", EPOCHS="3")
    stored = stored_with_test(tmp_path, series, test_rows=80, horizon_steps=6)

    event, refit, judged = refitted(stored, train_in_child(settings, adapters_of(stored, settings)), "GRU", progress)

    assert event.status == "SUCCESS"
    assert_is_refit(refit, judged, series)
    found = {name: value for name, value in judged.bundle.metrics.items() if "_passes" in name or "_weight_" in name}
    assert found == {name: refit.bundle.metrics[name] for name in found}
    assert (found["correction_passes"] or 0) + (found["segments_passes"] or 0) > 0
    assert np.abs(refit.forecast(series, 6).mean - judged.forecast(series, 6).mean).max() > 0


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_a_direct_network_forecasts_the_horizon_of_the_event_though_an_input_is_no_target(
    load: Any, tmp_path: Path, kind: str
) -> None:
    settings = load(kind, OUTPUT_SEQ_LEN="auto", EPOCHS="1")
    stored = store_dataset(tmp_path, made_series(300, columns=2), RecipeSpec(past_columns=("c1",)), horizon_steps=6)

    event, forecaster = trained(stored, settings)
    longer, _ = trained(replace(stored, event=stored.again(horizon_steps=7)), settings)

    bundle = forecaster.bundle
    assert (bundle.input_kind, bundle.output_seq_len, bundle.max_horizon_steps) == ("direct", 6, 6)
    assert forecaster.forecast(stored.series, 6).mean.shape == (6, 1)
    assert event.bundle is not None
    assert longer.bundle is not None
    assert event.bundle.object_key != longer.bundle.object_key


def test_a_network_of_windows_that_cannot_reach_the_horizon_is_not_trained(load: Any, tmp_path: Path) -> None:
    spec = RecipeSpec(targets=("c0",))
    stored = store_dataset(tmp_path, made_series(200, columns=2), spec, horizon_steps=12)
    settings = load(EPOCHS="1")
    handler = train_in_child(settings, adapters_of(stored, settings))

    (event,) = handler(stored.event, Progress())

    assert isinstance(event, ModelTraining)
    assert (event.status, event.bundle) == ("FAILED", None)
    assert event.error == (
        "it would forecast 1 of 12 steps, because it does not forecast its inputs c1; OUTPUT_SEQ_LEN=12 trains it for "
        "all steps"
    )
    (longer,) = handler(stored.event.model_copy(update={"settings": {"OUTPUT_SEQ_LEN": 12}}), Progress())
    assert isinstance(longer, ModelTraining)
    assert longer.status == "SUCCESS"


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_each_deployment_is_a_group_of_its_own(load: Any, tmp_path: Path, kind: str) -> None:
    settings = load(kind)
    stored = store_dataset(tmp_path, made_series(50))

    service = build_service(settings, adapters_of(stored, settings))
    (subscription,) = service.subscriptions

    assert service.name == f"train-{kind.lower()}"
    assert [topic.name for topic in subscription.topics] == ["training-data", "model-refit"]
    assert subscription.mode == "group"
    assert subscription.child == "train_container.handler:train_in_child"
    assert settings.service_port == 8021


def test_the_process_that_waits_for_its_child_imports_no_torch() -> None:
    heavy = ("torch", "onnx", "onnxruntime", "mlflow")
    code = f"import sys, train_container.bootstrap; print([name for name in {heavy} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_a_target_that_is_never_negative_has_no_forecast_and_no_bound_below_0(
    load: Any, tmp_path: Path, kind: str
) -> None:
    stored = store_dataset(tmp_path, touching_zero(400))

    _, forecaster = trained(stored, load(kind))

    assert_load_is_limited(forecaster, stored.series, fitted_rows=360)  # the calibration tail is a tenth


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_the_median_moves_the_forecasts_of_a_network(load: Any, tmp_path: Path, kind: str) -> None:
    stored = store_dataset(tmp_path, touching_zero(400))

    _, free = trained(stored, load(kind, LOWER_BOUND="none"))
    _, moved = trained(replace(stored, event=stored.again()), load(kind, LOWER_BOUND="none", POINT="median"))

    assert moved.bundle.train_hash != free.bundle.train_hash
    assert_moved_by_the_median(moved, free, stored.series)


def test_without_limits_a_network_has_the_bundle_of_earlier_releases(load: Any, tmp_path: Path) -> None:
    stored = store_dataset(tmp_path, touching_zero(400))

    _, limited = trained(stored, load())
    _, unlimited = trained(replace(stored, event=stored.again()), load(LOWER_BOUND="none"))

    assert (unlimited.bundle.format_version, unlimited.bundle.limits, unlimited.bundle.fitted_until) == (1, {}, None)
    assert unlimited.bundle.train_hash != limited.bundle.train_hash
    found, free = limited.forecast(stored.series, 200), unlimited.forecast(stored.series, 200)
    np.testing.assert_array_equal(found.mean, np.maximum(free.mean, [0, -np.inf]))
    assert free.lower is not None
    assert free.lower[:, 0].min() < 0


def test_a_bound_that_a_row_violates_is_refused_before_the_fit(load: Any, tmp_path: Path) -> None:
    stored = store_dataset(tmp_path, touching_zero(400))
    progress = Progress()
    handler = train_in_child(load(LOWER_BOUND="0"), adapters_of(stored, load(LOWER_BOUND="0")))

    with pytest.raises(RejectedError, match="LOWER_BOUND is 0, and balance has the value -") as refused:
        handler(stored.event, progress)

    assert refused.value.field == "LOWER_BOUND"
    assert not any(getattr(said, "epoch", None) for said in progress.said)
