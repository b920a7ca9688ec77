from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flts.model_settings import TrainingSettings
from flts.tracking.mlflow import Tracker
from flts.training.handler import TrainOnDataset
from flts.training.record import loss_plot
from flts.training.settings import TrainerSettings
from tests.linear_models import LINEAR, LinearFitter
from tests.training_sets import ENVIRONMENT, Progress, Stored, adapters_of, made_series, store_dataset


class LinearSettings(TrainerSettings, TrainingSettings):
    """The settings that a trainer of linear models would have."""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LinearSettings:
    for name, value in {**ENVIRONMENT, "STORE_PATH": str(tmp_path), "INPUT_SEQ_LEN": "4", "TRAIN_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    return LinearSettings.load()


def spooled(stored: Stored, run_id: str) -> dict[str, Any]:
    data, _ = stored.store.get("pipeline-runs", f"_spool/{run_id}.json")
    document = json.loads(data)
    assert isinstance(document, dict)
    return document


def test_with_mlflow_away_the_training_succeeds_and_its_record_waits_in_the_store(
    tmp_path: Path, settings: LinearSettings
) -> None:
    stored = store_dataset(tmp_path, made_series(200))
    tracker = Tracker(settings, stored.store, "pipeline-runs")

    handler = TrainOnDataset(adapters_of(stored, settings, tracker), settings, LINEAR, LinearFitter())
    (event,) = handler(stored.event, Progress())

    assert event.status == "SUCCESS"
    assert event.mlflow_run_id is None
    text = json.dumps(spooled(stored, event.run_id))
    for expected in (
        '"model_type": "LINEAR"', '"config_hash"', '"epochs"', "val_loss", "final_val_rmse", "plots/loss.png",
        "LINEAR/model.onnx", "LINEAR/bundle.json", "preprocess/preprocess_config.json", "system/", "FINISHED",
    ):  # fmt: skip
        assert expected in text, expected


def test_the_last_value_of_each_metric_is_the_shipped_models(tmp_path: Path, settings: LinearSettings) -> None:
    stored = store_dataset(tmp_path, made_series(200))
    tracker = Tracker(settings, stored.store, "pipeline-runs")

    handler = TrainOnDataset(adapters_of(stored, settings, tracker), settings, LINEAR, LinearFitter())
    (event,) = handler(stored.event, Progress())

    metrics = spooled(stored, event.run_id)["metrics"]
    values: dict[str, list[tuple[int, float]]] = {}
    for metric in metrics:
        name, value, step = (
            (metric[key] for key in ("name", "value", "step")) if isinstance(metric, dict) else metric[:3]
        )
        values.setdefault(name, []).append((step, value))
    assert max(values["val_loss"])[1] == 1.5
    assert sorted(values["val_loss"])[:2] == [(1, 3.0), (2, 1.5)]
    assert [value for _, value in values["final_val_rmse"]] == [0.5]


def test_a_training_delivered_again_records_nothing_again(tmp_path: Path, settings: LinearSettings) -> None:
    stored = store_dataset(tmp_path, made_series(200))
    handler = TrainOnDataset(
        adapters_of(stored, settings, Tracker(settings, stored.store, "pipeline-runs")),
        settings,
        LINEAR,
        LinearFitter(),
    )
    (event,) = handler(stored.event, Progress())
    before = spooled(stored, event.run_id)

    (again,) = handler(stored.event, Progress())

    assert spooled(stored, event.run_id) == before
    assert again == event.model_copy(update={"created_at": again.created_at})


def test_a_failed_training_ends_its_record_as_failed(tmp_path: Path, settings: LinearSettings) -> None:
    stored = store_dataset(tmp_path, made_series(200))
    tracker = Tracker(settings, stored.store, "pipeline-runs")
    handler = TrainOnDataset(adapters_of(stored, settings, tracker), settings, LINEAR, LinearFitter(export_error=1.0))

    with pytest.raises(Exception, match="away from the trainer"):
        handler(stored.event, Progress())

    (waiting,) = stored.store.list("pipeline-runs", "_spool/")
    assert "FAILED" in stored.store.get("pipeline-runs", waiting.key)[0].decode()


@pytest.mark.parametrize(
    "epochs",
    [
        [{"train_loss": 1.0, "val_loss": 2.0}, {"train_loss": 0.5, "val_loss": None}],
        [{"correction_train_loss": 1.0, "correction_val_loss": 2.0}, {"segments_train_loss": 0.5}],
    ],
)
def test_the_loss_plot_is_a_png(epochs: list[dict[str, float | None]]) -> None:
    assert loss_plot(epochs)[:8] == b"\x89PNG\r\n\x1a\n"
