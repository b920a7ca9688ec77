"""The handler of a refit of any model: its event, its record, repeated and impossible requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flts.contracts import topics
from flts.contracts.events import ModelRefit, ModelTraining, RefitRequest
from flts.contracts.ids import derived_event_id
from flts.errors import BackendAwayError
from flts.model_settings import TrainingSettings
from flts.trainers import TRAINERS, trainer_of
from flts.training.handler import TrainOnDataset
from flts.training.service import trainer_service
from flts.training.settings import TrainerSettings
from tests.linear_models import LINEAR, LinearFitter
from tests.refits import loaded, request_of, stored_with_test
from tests.training_sets import ENVIRONMENT, Progress, Stored, adapters_of, made_series, store_dataset

SERIES = made_series(300)


class LinearSettings(TrainerSettings, TrainingSettings):
    """The settings that a trainer of linear models would have."""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LinearSettings:
    for name, value in {**ENVIRONMENT, "STORE_PATH": str(tmp_path), "INPUT_SEQ_LEN": "4", "TRAIN_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    return LinearSettings.load()


class Trainer:
    """A trainer of linear models on a data set, with a trained model."""

    def __init__(self, stored: Stored, settings: LinearSettings, fitter: LinearFitter | None = None) -> None:
        self.stored = stored
        self.fitter = fitter or LinearFitter()
        self.adapters = adapters_of(stored, settings)
        self.handler = TrainOnDataset(self.adapters, settings, LINEAR, self.fitter)
        (trained,) = self.handler(stored.event, Progress())
        assert isinstance(trained, ModelTraining)
        self.request = request_of(stored, trained)

    def refit(self, request: RefitRequest | None = None) -> ModelRefit:
        (event,) = self.handler(request or self.request, Progress())
        assert isinstance(event, ModelRefit)
        return event

    def stage(self) -> dict[str, Any]:
        record = self.stored.run_store.stages.read("made", self.stored.event.pipeline_run_id, "refit")
        assert record is not None
        return record

    def count(self, outcome: str) -> float | None:
        labels = {"model_type": "LINEAR", "outcome": outcome}
        return self.adapters.metrics.registry.get_sample_value("flts_refits_total", labels)


@pytest.fixture
def trainer(tmp_path: Path, settings: LinearSettings) -> Trainer:
    return Trainer(stored_with_test(tmp_path, SERIES, test_rows=60), settings)


def test_the_bundle_is_stored_beside_the_judged_one_and_announced(trainer: Trainer) -> None:
    event = trainer.refit()

    assert (event.status, event.reused, event.judged) == ("SUCCESS", False, trainer.request.judged)
    assert event.header_event() == "refitted-LINEAR"
    assert topics.topic_of(event) == topics.topic_of(trainer.request) == topics.MODEL_REFIT
    assert event.bundle is not None
    refit, judged = (loaded(trainer.stored, claim).bundle for claim in (event.bundle, event.judged))
    assert (refit.fit, refit.train_hash, refit.recipe) == ("refitted", judged.train_hash, judged.recipe)
    assert refit.intervals is not None
    assert judged.intervals is not None
    assert refit.intervals.steps == judged.intervals.steps
    assert trainer.stage()["status"] == "done"
    assert trainer.stage()["bundle"] == event.bundle.model_dump(mode="json")
    assert trainer.count("done") == 1


def test_a_repeated_request_checks_the_stored_bundle_and_returns_the_same_event(trainer: Trainer) -> None:
    first = trainer.refit()
    fits = trainer.fitter.fits

    again = trainer.refit()

    assert (again.event_id, again.bundle) == (first.event_id, first.bundle)
    assert again.reused
    assert trainer.fitter.fits == fits
    assert trainer.count("reused") == 1


def test_a_damaged_refitted_bundle_is_made_again(trainer: Trainer) -> None:
    first = trainer.refit()
    assert first.bundle is not None
    trainer.stored.store.put(first.bundle.bucket, first.bundle.object_key.replace("bundle.json", "model.onnx"), b"x")

    again = trainer.refit()

    assert (again.bundle, again.reused) == (first.bundle, False)


def test_a_request_whose_result_is_recorded_fits_nothing(trainer: Trainer) -> None:
    event = trainer.stored.event
    trainer.stored.run_store.evaluations.put_refit(event.identifier, event.pipeline_run_id, {"pointer": None})
    fits = trainer.fitter.fits

    assert list(trainer.handler(trainer.request, Progress())) == []
    assert trainer.fitter.fits == fits


def test_other_settings_than_those_of_the_judged_model_are_refused(trainer: Trainer) -> None:
    event = trainer.refit(trainer.request.model_copy(update={"settings": {"EPOCHS": 99}}))

    assert (event.status, event.bundle) == ("FAILED", None)
    assert event.event_id == derived_event_id(trainer.request.event_id, "refit-failed")
    assert (trainer.stage()["status"], trainer.stage()["error_code"]) == ("failed", "refit_of_other_settings")
    assert trainer.count("failed") == 1


def test_test_rows_that_do_not_follow_the_training_rows_are_refused(
    tmp_path: Path,
    settings: LinearSettings,
) -> None:
    earlier = Trainer(store_dataset(tmp_path, SERIES, test=SERIES.rows(0, 50)), settings)

    event = earlier.refit()

    assert event.status == "FAILED"
    assert earlier.stage()["error_code"] == "overlapping_times"


def test_a_store_that_is_away_is_no_failure_of_the_refit(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        msg = "no route"
        raise BackendAwayError(msg)

    monkeypatch.setattr(trainer.stored.store, "head", away)

    with pytest.raises(BackendAwayError):
        trainer.refit()
    assert trainer.stage()["status"] == "started"


def test_the_last_failed_attempt_is_announced_to_eval(trainer: Trainer) -> None:
    service = trainer_service(trainer_of("GRU"), trainer.adapters, child="unused:unused")
    on_exhausted = service.subscriptions[0].on_exhausted
    assert on_exhausted is not None

    (event,) = on_exhausted(trainer.request, None, "killed")

    assert isinstance(event, ModelRefit)
    assert (event.status, event.error) == ("FAILED", "killed")
    assert trainer.stage()["status"] == "failed"


def test_a_trainer_takes_the_requests_for_its_own_models_only(trainer: Trainer) -> None:
    event = trainer.refit()
    taken = {
        one.deployment: [
            trainer_service(one, trainer.adapters, child="unused:unused").subscriptions[0].wants(each)
            for each in (trainer.stored.event, trainer.request, event)
        ]
        for one in TRAINERS
    }

    assert taken.pop("nonml-baseline") == [True, True, False]
    assert set(map(tuple, taken.values())) == {(True, False, False)}
