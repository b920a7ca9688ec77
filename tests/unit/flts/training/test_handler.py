from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flts.bundle.forecaster import Forecaster
from flts.bundle.load import fetch_bundle
from flts.bundle.model import BundleModel
from flts.contracts.events import ModelTraining, TrainingData
from flts.contracts.ids import derived_event_id, derived_run_id
from flts.contracts.lifecycle import RunState
from flts.errors import BackendAwayError, HashMismatchError, ObjectNotFoundError, RejectedError
from flts.forecasting.grid import FixedGrid
from flts.forecasting.series import Series
from flts.model_settings import TrainingSettings
from flts.observability.logs import configure_logs
from flts.processes.replayed import replaying
from flts.storage.ports import ObjectInfo
from flts.training import patience
from flts.training.handler import TrainOnDataset
from flts.training.settings import TrainerSettings
from tests.linear_models import LINEAR, LinearFitter
from tests.training_sets import ENVIRONMENT, STEP, Progress, Stored, adapters_of, made_series, store_dataset


class LinearSettings(TrainerSettings, TrainingSettings):
    """The settings that a trainer of linear models would have."""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LinearSettings:
    for name, value in {**ENVIRONMENT, "STORE_PATH": str(tmp_path), "INPUT_SEQ_LEN": "4", "TRAIN_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    return LinearSettings.load()


def trained(
    stored: Stored,
    settings: LinearSettings,
    fitter: LinearFitter,
    event: TrainingData | None = None,
    progress: Progress | None = None,
) -> ModelTraining:
    handler = TrainOnDataset(adapters_of(stored, settings), settings, LINEAR, fitter)
    (made,) = handler(event or stored.event, progress or Progress())
    assert isinstance(made, ModelTraining)
    return made


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    captured = capsys.readouterr()
    return [json.loads(line) for line in (captured.out + captured.err).splitlines() if line.startswith("{")]


def test_the_announced_bundle_forecasts_and_its_claims_and_ids_are_the_events(
    tmp_path: Path, settings: LinearSettings
) -> None:
    stored = store_dataset(tmp_path, made_series(200))

    event = trained(stored, settings, LinearFitter())
    assert event.bundle is not None
    bundle, model_bytes = fetch_bundle(stored.store, event.bundle)
    forecast = Forecaster(BundleModel(bundle, model_bytes)).forecast(stored.series, 5)

    assert event.status == "SUCCESS"
    assert event.event_id == derived_event_id(stored.event.event_id, "trained-LINEAR")
    assert event.run_id == derived_run_id(stored.event.event_id, "LINEAR")
    assert event.header_event() == "trained-LINEAR"
    assert event.metrics == {"train_loss": 1.0, "val_loss": 1.5, "val_rmse": 0.5, "val_mae": 0.4}
    assert event.train == stored.event.claim()
    assert event.mlflow_run_id is None
    assert event.model_uri == f"s3://model-bundles/{event.bundle.object_key.removesuffix('/bundle.json')}"
    assert bundle.intervals_source == "calibration_tail"
    assert forecast.lower is not None
    assert forecast.upper is not None
    assert (forecast.lower < forecast.upper).all()
    actual = stored.series.values[-1]
    assert np.abs(forecast.mean[0] - actual).max() < np.abs(actual).max()


def test_a_repeat_after_a_crash_makes_the_same_ids_and_the_same_bundle(
    tmp_path: Path, settings: LinearSettings
) -> None:
    stored = store_dataset(tmp_path, made_series(200))
    fitter = LinearFitter()

    first, second = trained(stored, settings, fitter), trained(stored, settings, fitter)

    assert fitter.fits == 1
    assert (second.event_id, second.run_id, second.bundle) == (first.event_id, first.run_id, first.bundle)
    assert (second.metrics, second.duration_seconds) == (first.metrics, first.duration_seconds)
    assert not second.reused, "it is this run's own training"


def test_a_store_that_is_away_at_the_end_is_waited_for_with_the_model_in_hand(
    tmp_path: Path, settings: LinearSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "FIRST_WAIT_SECONDS", 0.01)
    stored = store_dataset(tmp_path, made_series(200))
    put, refusals = stored.store.put, ["no route", "no answer", "too slow"]

    def refuse_at_first(bucket: str, key: str, data: bytes, **conditions: Any) -> ObjectInfo:
        if bucket == "model-bundles" and refusals:
            raise BackendAwayError(refusals.pop())
        return put(bucket, key, data, **conditions)

    monkeypatch.setattr(stored.store, "put", refuse_at_first)
    fitter, progress = LinearFitter(), Progress()

    event = trained(stored, settings, fitter, progress=progress)

    assert event.status == "SUCCESS"
    assert fitter.fits == 1
    assert [said.state for said in progress.said].count("storing") == 4, "it is not taken for stuck"


def test_a_store_that_stays_away_is_no_failed_training(
    tmp_path: Path, settings: LinearSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.0)
    stored = store_dataset(tmp_path, made_series(200))

    def refuse(bucket: str, *_: Any, **__: Any) -> ObjectInfo:
        raise BackendAwayError(bucket)

    put = stored.store.put
    monkeypatch.setattr(
        stored.store, "put", lambda bucket, *a, **k: (refuse if "model" in bucket else put)(bucket, *a, **k)
    )

    with pytest.raises(BackendAwayError, match="model-bundles"):
        trained(stored, settings, LinearFitter())


def test_a_repeat_whose_bundle_is_gone_trains_again_while_the_run_is_open(
    tmp_path: Path, settings: LinearSettings
) -> None:
    stored = store_dataset(tmp_path, made_series(200))
    fitter = LinearFitter()
    first = trained(stored, settings, fitter)
    assert first.bundle is not None
    stored.store.delete("model-bundles", first.bundle.object_key)

    second = trained(stored, settings, fitter)

    assert fitter.fits == 2
    assert second.run_id == first.run_id


def test_nothing_is_trained_for_a_run_that_has_ended_unless_its_dead_letter_is_sent_again(
    tmp_path: Path, settings: LinearSettings
) -> None:
    stored = store_dataset(tmp_path, made_series(200))
    fitter = LinearFitter()
    handler = TrainOnDataset(adapters_of(stored, settings), settings, LINEAR, fitter)
    late, failed = stored.again(), stored.again()
    for event in (late, failed):
        stored.run_store.runs.put_outcome("made", event.pipeline_run_id, RunState.REFUSED)
    stored.run_store.stages.put("made", failed.pipeline_run_id, "train-linear", "failed")

    assert list(handler(late, Progress())) == []
    assert list(handler(failed, Progress())) == []
    assert fitter.fits == 0
    assert "train-linear" not in stored.run_store.stages.of("made", late.pipeline_run_id)

    with replaying(replayed=True):
        assert [event.status for event in handler(failed, Progress())] == ["SUCCESS"]
    assert fitter.fits == 1


def test_a_finished_configuration_is_announced_again_under_the_new_run(
    tmp_path: Path, settings: LinearSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = store_dataset(tmp_path, made_series(200))
    fitter = LinearFitter()
    first = trained(stored, settings, fitter)
    configure_logs("train-linear", "INFO")
    capsys.readouterr()

    again = stored.again()
    second = trained(stored, settings, fitter, again)

    assert fitter.fits == 1
    assert second.reused
    assert not first.reused
    assert second.bundle == first.bundle
    assert second.metrics == first.metrics
    assert second.pipeline_run_id == again.pipeline_run_id
    assert second.run_id != first.run_id
    assert "train_skip_duplicate" in [line["event"] for line in lines_of(capsys)]
    assert stored.run_store.stages.of("made", again.pipeline_run_id)["train-linear"]["reused"] is True


def test_other_training_settings_train_another_bundle(tmp_path: Path, settings: LinearSettings) -> None:
    stored = store_dataset(tmp_path, made_series(200))
    fitter = LinearFitter()
    first = trained(stored, settings, fitter)

    second = trained(stored, settings, fitter, stored.again(settings={"SEED": 7}))
    third = trained(stored, settings, fitter, stored.again(settings={"INPUT_SEQ_LEN": 6}))

    assert fitter.fits == 3
    assert len({event.bundle.object_key for event in (first, second, third) if event.bundle}) == 3
    assert third.bundle is not None
    assert fetch_bundle(stored.store, third.bundle)[0].input_seq_len == 6


def test_a_forced_run_trains_again_unless_its_own_bundle_is_there(tmp_path: Path, settings: LinearSettings) -> None:
    stored = store_dataset(tmp_path, made_series(200))
    fitter = LinearFitter()
    trained(stored, settings, fitter)

    later = stored.again(force=True)
    later = later.model_copy(update={"pipeline_run_id": in_hours(later.pipeline_run_id, 1)})
    forced = trained(stored, settings, fitter, later)
    # A forced run reuses a bundle that was stored after the run began: its own bundle, or that of a concurrent forced
    # run. The next run began an hour before the bundle was stored, so it must not train again.
    earlier = stored.again(force=True)
    earlier = earlier.model_copy(update={"pipeline_run_id": in_hours(earlier.pipeline_run_id, -1)})
    found = trained(stored, settings, fitter, earlier)

    assert fitter.fits == 2
    assert not forced.reused
    assert found.reused


def in_hours(run: str, hours: int) -> str:
    """Return a run's UUIDv7 with a time that is ``hours`` later."""
    value = int(run.replace("-", ""), 16) + hours * (3_600_000 << 80)
    text = f"{value:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def test_skipping_can_be_switched_off(
    tmp_path: Path, settings: LinearSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = store_dataset(tmp_path, made_series(200))
    fitter = LinearFitter()
    trained(stored, settings, fitter)
    monkeypatch.setenv("SKIP_DUPLICATE_CONFIGS", "false")

    second = trained(stored, LinearSettings.load(), fitter, stored.again())

    assert fitter.fits == 2
    assert not second.reused


def test_a_rotten_bundle_is_not_announced_again_but_made_anew(tmp_path: Path, settings: LinearSettings) -> None:
    stored = store_dataset(tmp_path, made_series(200))
    fitter = LinearFitter()
    first = trained(stored, settings, fitter)
    assert first.bundle is not None
    stored.store.put("model-bundles", first.bundle.object_key.replace("bundle.json", "model.onnx"), b"rotten")

    second = trained(stored, settings, fitter, stored.again())

    assert fitter.fits == 2
    assert second.bundle is not None
    BundleModel(*fetch_bundle(stored.store, second.bundle))


def test_an_export_that_answers_otherwise_than_the_trainer_is_never_announced(
    tmp_path: Path, settings: LinearSettings
) -> None:
    stored = store_dataset(tmp_path, made_series(200))

    with pytest.raises(RejectedError, match="away from the trainer's own") as refused:
        trained(stored, settings, LinearFitter(export_error=1e-3))

    assert refused.value.code in {"export_mismatch", "bad_bundle"}
    assert list(stored.store.list("model-bundles")) == []


def test_data_of_only_constants_ships_a_bundle_that_says_so(tmp_path: Path, settings: LinearSettings) -> None:
    series = Series(made_series(200).times, ("a", "b"), np.tile([1.5, -2.0], (200, 1)), FixedGrid(STEP))
    stored = store_dataset(tmp_path, series)
    fitter = LinearFitter()

    event = trained(stored, settings, fitter)
    assert event.bundle is not None
    bundle, model_bytes = fetch_bundle(stored.store, event.bundle)

    assert fitter.fits == 0
    assert bundle.reason == "all_constant"
    assert Forecaster(BundleModel(bundle, model_bytes)).forecast(series, 3).mean.tolist() == [[1.5, -2.0]] * 3


def test_rows_that_changed_since_they_were_claimed_are_refused(tmp_path: Path, settings: LinearSettings) -> None:
    stored = store_dataset(tmp_path, made_series(200))
    other = store_dataset(tmp_path / "other", made_series(200, seed=1))

    with pytest.raises(HashMismatchError):
        trained(stored, settings, LinearFitter(), stored.event.model_copy(update={"sha256": "0" * 64}))
    with pytest.raises(RejectedError, match="columns"):
        trained(stored, settings, LinearFitter(), stored.event.model_copy(update={"columns": 5}))
    with pytest.raises(ObjectNotFoundError):
        trained(stored, settings, LinearFitter(), other.event)


def test_rows_and_recipe_that_do_not_belong_together_are_refused(tmp_path: Path, settings: LinearSettings) -> None:
    stored = store_dataset(tmp_path, made_series(200))
    other = store_dataset(tmp_path, made_series(200, columns=2))

    with pytest.raises(RejectedError, match="their recipe makes") as refused:
        trained(stored, settings, LinearFitter(), stored.event.model_copy(update={"meta": other.event.meta}))
    assert refused.value.code == "bad_meta"


def test_too_few_rows_end_as_a_failed_training_with_the_reason(tmp_path: Path, settings: LinearSettings) -> None:
    stored = store_dataset(tmp_path, made_series(6))

    event = trained(stored, settings, LinearFitter())

    assert (event.status, event.bundle) == ("FAILED", None)
    assert event.error is not None
    assert "both need one" in event.error
    stages = adapters_of(stored, settings).run_store.stages
    stage = stages.read(stored.event.identifier, stored.event.pipeline_run_id, "train-linear")
    assert stage is not None
    assert (stage["status"], stage["error_code"]) == ("failed", "too_few_rows")


def test_a_training_without_a_config_hash_is_refused(tmp_path: Path, settings: LinearSettings) -> None:
    stored = store_dataset(tmp_path, made_series(200))

    with pytest.raises(RejectedError, match="config_hash"):
        trained(stored, settings, LinearFitter(), stored.event.model_copy(update={"config_hash": None}))


def test_stage_progress_and_log_tell_the_same_story(
    tmp_path: Path, settings: LinearSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = store_dataset(tmp_path, made_series(50, columns=11), sampling=None)
    configure_logs("train-linear", "INFO")
    capsys.readouterr()
    progress = Progress()
    before = datetime.now(UTC) - timedelta(seconds=1)

    trained(
        stored,
        settings,
        LinearFitter(),
        stored.event.model_copy(update={"settings": {"INPUT_SEQ_LEN": 10}}),
        progress,
    )

    assert progress.states() == ["downloading", "training", "calibrating", "storing"]
    assert [said.epoch for said in progress.said if getattr(said, "epoch", None)] == [1, 2]
    assert [said.loss for said in progress.said if getattr(said, "loss", None)] == [3.0, 1.5]
    assert {said.stage for said in progress.said} == {"train-linear"}
    lines = lines_of(capsys)
    by_event = {line["event"]: line for line in lines}
    said = " ".join(line["event"] for line in lines if line["event"] != "bundle_checked")
    assert said == "download_start download_done feature_summary train_start epoch_done epoch_done train_success"
    assert by_event["download_done"]["rows"] == 50
    assert by_event["download_done"]["columns"] == 17
    assert by_event["download_done"]["rss_bytes"] > 0
    assert by_event["feature_summary"]["X_shape"] == [40, 10, 17]
    assert by_event["feature_summary"]["y_shape"] == [40, 1, 11]
    assert by_event["feature_summary"]["num_features"] == 17
    assert by_event["feature_summary"]["n_exogenous"] == 6
    run_id = derived_run_id(stored.event.event_id, "LINEAR")
    assert all(line["run_id"] == run_id and line["model_type"] == "LINEAR" for line in lines)
    stage = stored.run_store.stages.of("made", stored.event.pipeline_run_id)["train-linear"]
    assert stage["status"] == "done"
    assert stage["bundle"]["object_key"] == by_event["train_success"]["object_key"]
    assert datetime.fromisoformat(stage["start"]) >= before
    assert datetime.fromisoformat(stage["end"]) >= datetime.fromisoformat(stage["start"])


def test_a_stage_that_failed_stays_started_for_the_next_try(tmp_path: Path, settings: LinearSettings) -> None:
    stored = store_dataset(tmp_path, made_series(200))

    with pytest.raises(RejectedError):
        trained(stored, settings, LinearFitter(export_error=1.0))

    assert stored.run_store.stages.of("made", stored.event.pipeline_run_id)["train-linear"]["status"] == "started"


def test_the_bundle_of_the_store_is_announced_when_another_trainer_was_first(
    tmp_path: Path, settings: LinearSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = store_dataset(tmp_path, made_series(200))
    monkeypatch.setenv("SKIP_DUPLICATE_CONFIGS", "false")
    settings = LinearSettings.load()
    first = trained(stored, settings, LinearFitter())

    class Luckier(LinearFitter):
        def fit(self, *args: Any) -> Any:
            return replace(super().fit(*args), metrics={"val_loss": 0.1})

    second = trained(stored, settings, Luckier(), stored.again())

    assert second.bundle == first.bundle
    assert second.metrics == first.metrics
