"""The registry: the names that are derived from it, and the settings that determine a stored bundle's key."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

import pytest

from flts.contracts import topics
from flts.contracts.ids import sha256_of
from flts.settings import WindowSettings
from flts.trainers import (
    BASELINES,
    COMBINATION,
    DEFAULT_MODEL_TYPES,
    MOST_COLUMNS,
    RECORDED_BY_EVAL,
    SHORT_ROWS,
    TRAINERS,
    Trainer,
    announced_after,
    known_model_types,
    trained_by,
    trained_in,
    trained_on,
    trainer_of,
    trainer_of_model,
    trainers_for,
)
from flts.training.handler import TrainOnDataset
from tests.trainers import SETTINGS
from tests.training_sets import ENVIRONMENT, adapters_of, made_series, store_dataset
from train_container.settings import TrainSettings

WINDOW = {"input_seq_len": 10, "output_seq_len": 1, "stop_tail": 0.1, "calibration_tail": 0.1}
NETWORK = WINDOW | {
    "hidden_size": 128,
    "num_layers": 2,
    "epochs": 10,
    "batch_size": 256,
    "learning_rate": 0.004,
    "early_stopping": True,
    "patience": 5,
    "dropout": 0.0,
    "seed": 42,
}
PROPHET = WINDOW | {
    "prophet_changepoint_prior_scale": 0.05,
    "prophet_seasonality_prior_scale": 10.0,
    "prophet_seasonality_mode": "additive",
    "prophet_n_changepoints": 25,
    "prophet_changepoint_range": 0.8,
    "prophet_daily_seasonality": "auto",
    "prophet_weekly_seasonality": "auto",
    "prophet_yearly_seasonality": "auto",
    "seed": 42,
}
"""Settings in the train_hash of release 0.1.0: an added or removed setting trains every stored bundle again."""


@pytest.mark.parametrize("trainer", TRAINERS, ids=lambda trainer: trainer.model_type)
def test_a_trainer_has_its_module_its_settings_and_its_messages(trainer: Trainer) -> None:
    if not trainer.baselines:
        module = importlib.import_module(trainer.module)
        assert hasattr(module, "build" if trainer.package == "train_container" else "fit")
    assert issubclass(SETTINGS[trainer.package], trainer.settings)
    assert topics.consumed_by(trainer.deployment) == (topics.TRAINING_DATA, topics.MODEL_REFIT)
    assert trained_by(trainer.deployment) == trainer.model_types
    assert trained_in(trainer.package, trainer.model_type.lower()) == trainer.model_type
    assert trainer_of(trainer.model_type.lower()) == trainer


def test_names_and_ports_are_taken_once() -> None:
    for name in ("model_type", "deployment", "port"):
        values = [getattr(trainer, name) for trainer in TRAINERS]
        assert len(set(values)) == len(values), name


def test_what_is_trained_by_default_is_the_designs() -> None:
    assert DEFAULT_MODEL_TYPES == ("GRU", "LSTM", "PROPHET", "LINEAR", "THETA")
    assert trained_by("eval") == ()
    assert trained_by("nonml-baseline") == ("LINEAR", "THETA", *BASELINES)


def test_the_trainer_of_a_model_is_found_by_the_model_type_of_its_bundle() -> None:
    found = {name: trainer_of_model(name) for name in ("GRU", "LINEAR", "MEAN", COMBINATION)}
    deployments = {name: trainer and trainer.deployment for name, trainer in found.items()}
    assert deployments == {"GRU": "train-gru", "LINEAR": "nonml-baseline", "MEAN": "nonml-baseline", COMBINATION: None}


def test_a_candidate_beside_the_baselines_is_announced_before_them_and_recorded_by_eval() -> None:
    assert RECORDED_BY_EVAL == ("LINEAR", "THETA")
    assert announced_after("LINEAR") == ("THETA", *BASELINES)
    assert announced_after("RIDGE") == ("MEAN",)
    assert announced_after("GRU") == announced_after("MY_NET") == ()
    assert known_model_types(("linear",)) == ("LINEAR",)
    assert [trainer.deployment for trainer in trainers_for(("LINEAR",))] == ["nonml-baseline"]
    assert [trainer.deployment for trainer in trainers_for(("LSTM",))] == ["train-lstm", "nonml-baseline"]


def test_theta_is_trained_on_short_series_only_and_no_installation_waits_for_it_alone() -> None:
    assert trained_on(("GRU", "THETA"), SHORT_ROWS - 1, MOST_COLUMNS) == ("GRU", "THETA")
    assert trained_on(("GRU", "THETA", "MEAN"), SHORT_ROWS, 1) == ("GRU", "MEAN")
    assert trained_on(("GRU", "THETA", "MEAN"), 50, MOST_COLUMNS + 1) == ("GRU", "MEAN")
    assert known_model_types(("theta", "LINEAR")) == ("THETA", "LINEAR")
    with pytest.raises(ValueError, match="theta is trained on fewer than 500 rows only: name another model type too"):
        known_model_types(("theta",))


def test_model_types_are_named_once_and_unknown_ones_refused() -> None:
    assert known_model_types(("gru", "PROPHET", "GRU")) == ("GRU", "PROPHET")
    with pytest.raises(ValueError, match="MY_NET is no registered model type; there are GRU, LSTM"):
        known_model_types(("MY_NET",))
    for name in ("mean", "BASELINE"):
        with pytest.raises(ValueError, match=f"{name} is a baseline: no run waits for it"):
            known_model_types(("GRU", name))
    with pytest.raises(ValueError, match="at least one"):
        known_model_types(())
    with pytest.raises(ValueError, match="PROPHET is no registered model; there are GRU, LSTM"):
        trained_in("train_container", "PROPHET")


@pytest.mark.parametrize(
    ("model_type", "parts"),
    [
        ("GRU", {"settings": NETWORK, "torch": importlib.metadata.version("torch")}),
        ("LSTM", {"settings": NETWORK, "torch": importlib.metadata.version("torch")}),
        (
            "PROPHET",
            {"settings": PROPHET, "optimiser": "exact", "prophet": importlib.metadata.version("prophet")},
        ),
    ],
)
def test_the_stored_bundles_of_the_last_release_are_found(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, model_type: str, parts: dict[str, Any]
) -> None:
    # With automatic lengths a network is a direct one, which that release does not have.
    given = {"STORE_PATH": str(tmp_path), "MODEL_TYPE": model_type, "OUTPUT_SEQ_LEN": "1"}
    for name, value in {**ENVIRONMENT, **given}.items():
        monkeypatch.setenv(name, value)
    trainer = trainer_of(model_type)
    settings = SETTINGS[trainer.package].load()
    stored = store_dataset(tmp_path, made_series(50))
    handler = train_in_child(settings, adapters_of(stored, settings))

    identity = handler._identity(stored.event, settings)

    assert identity.train_hash == sha256_of({**parts, "model_type": model_type, "trainer_version": 1})


def test_another_models_hyperparameter_trains_no_model_again(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(WindowSettings):
        smoothing: float = 0.5
        """Any number."""

    class Both(TrainSettings, Other):
        """The settings class of the folder's service, if another trainer had this class."""

    for name, value in {**ENVIRONMENT, "STORE_PATH": str(tmp_path), "MODEL_TYPE": "GRU"}.items():
        monkeypatch.setenv(name, value)
    stored = store_dataset(tmp_path, made_series(50))

    hashes = []
    for loaded in (TrainSettings.load(), Both.load(), Both(smoothing=0.9)):
        handler = train_in_child(loaded, adapters_of(stored, loaded))
        hashes.append(handler._identity(stored.event, loaded).train_hash)

    assert len(set(hashes)) == 1


def train_in_child(settings: Any, adapters: Any) -> TrainOnDataset[Any]:
    module = importlib.import_module(f"{trainer_of(settings.model_type).package}.handler")
    handler = module.train_in_child(settings, adapters)
    assert isinstance(handler, TrainOnDataset)
    return handler
