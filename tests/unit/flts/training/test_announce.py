from __future__ import annotations

from pathlib import Path

from flts.contracts.events import ModelTraining
from flts.contracts.ids import derived_event_id, derived_run_id
from flts.errors import RejectedError
from flts.trainers import BASELINES, trainer_of
from flts.training.announce import announce_failure
from tests.training_sets import adapters_of, made_series, store_dataset, store_settings


def test_a_given_up_training_tells_eval_not_to_wait_and_stands_in_the_runs_record(tmp_path: Path) -> None:
    stored = store_dataset(tmp_path, made_series(50))
    adapters = adapters_of(stored, store_settings(tmp_path))
    give_up = announce_failure(adapters, trainer_of("GRU"))
    failed = {"model_type": "GRU", "outcome": "failed"}
    before = adapters.metrics.registry.get_sample_value("flts_trainings_total", failed)

    (event,) = give_up(stored.event, RejectedError("no", code="diverged"), "it diverged" + "!" * 5000)

    assert isinstance(event, ModelTraining)
    assert event.status == "FAILED"
    assert event.run_id == derived_run_id(stored.event.event_id, "GRU")
    assert event.event_id != derived_event_id(stored.event.event_id, "trained-GRU")
    assert event.bundle is None
    assert event.error is not None
    assert event.error.startswith("it diverged!")
    assert len(event.model_dump_json()) < 16 * 1024
    stage = stored.run_store.stages.of("made", stored.event.pipeline_run_id)["train-gru"]
    assert stage["status"] == "failed"
    assert stage["error_code"] == "diverged"
    assert before is not None
    assert adapters.metrics.registry.get_sample_value("flts_trainings_total", failed) == before + 1


def test_a_trainer_of_several_model_types_gives_up_each(tmp_path: Path) -> None:
    stored = store_dataset(tmp_path, made_series(50))
    give_up = announce_failure(adapters_of(stored, store_settings(tmp_path)), trainer_of("BASELINE"))

    events = give_up(stored.event, None, "killed")

    assert tuple(event.model_type for event in events) == ("LINEAR", "THETA", *BASELINES)
    assert len({event.event_id for event in events}) == len({event.run_id for event in events}) == 6


def test_a_repeat_of_giving_up_makes_the_same_event(tmp_path: Path) -> None:
    stored = store_dataset(tmp_path, made_series(50))
    give_up = announce_failure(adapters_of(stored, store_settings(tmp_path)), trainer_of("LSTM"))

    (first,), (second,) = (give_up(stored.event, None, "killed") for _ in range(2))

    assert first.event_id == second.event_id
