from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flts.contracts.claim_check import ClaimCheck
from flts.contracts.events import InferenceData, ModelTraining, RawData
from flts.contracts.ids import derived_event_id, derived_run_id, new_pipeline_run_id
from flts.contracts.lifecycle import RunState
from flts.errors import PreconditionFailedError, RejectedError
from flts.storage.filesystem import FilesystemStore
from flts.storage.layout import RunName
from flts.storage.ports import ObjectInfo, ObjectStore
from flts.storage.runs import RunStore
from tests.stores import folder_settings, folder_store

CLAIM = ClaimCheck(bucket="raw-data", object_key="a/train.csv", size=3, sha256="0" * 64)
NOW = 1_795_000_000.0


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return folder_store(tmp_path)


@pytest.fixture
def runs(store: ObjectStore, tmp_path: Path, clock: Clock) -> RunStore:
    return RunStore(store, folder_settings(tmp_path), clock=clock)


def envelope(identifier: str = "PobleSec", run: str | None = None) -> dict[str, Any]:
    run = run or new_pipeline_run_id()
    return {
        "event_id": derived_event_id(run, "raw-data"),
        "identifier": identifier,
        "pipeline_run_id": run,
        "created_at": datetime.fromtimestamp(NOW, UTC),
    }


def raw_data(identifier: str = "PobleSec", run: str | None = None) -> RawData:
    return RawData(**envelope(identifier, run), train=CLAIM)


def trained(run: str, status: str = "SUCCESS", model_type: str = "GRU", **more: Any) -> ModelTraining:
    values = envelope(run=run)
    return ModelTraining(
        **values,
        model_type=model_type,
        status=status,
        run_id=derived_run_id(values["event_id"], model_type),
        experiment_name="PobleSec",
        train=CLAIM,
        test=CLAIM,
        duration_seconds=1.5,
        **more,
    )


def inference_data(run: str) -> InferenceData:
    return InferenceData(
        **envelope(run=run),
        bucket="processed-data",
        object_key="x",
        size=1,
        sha256="1" * 64,
        rows=1,
        columns=1,
        meta=CLAIM,
        test=CLAIM,
        raw_test=CLAIM,
        raw_test_context_rows=0,
        step_seconds=600,
    )


class TestRuns:
    def test_a_run_is_created_once_and_read_back_as_its_event(self, runs: RunStore) -> None:
        event = raw_data()

        assert runs.create_run(event)
        assert not runs.create_run(event)
        stored = runs.read_run("PobleSec", event.pipeline_run_id)
        assert stored is not None
        assert RawData.model_validate(stored) == event
        assert runs.read_run("PobleSec", new_pipeline_run_id()) is None

    def test_a_run_is_found_by_its_id_alone(self, runs: RunStore) -> None:
        first, second = raw_data("one"), raw_data("two")
        runs.create_run(first)
        runs.create_run(second)

        assert runs.find_run(first.pipeline_run_id) == "one"
        assert runs.find_run(second.pipeline_run_id) == "two"
        assert runs.find_run(new_pipeline_run_id()) is None
        assert runs.find_run("../x") is None

    def test_runs_are_listed_newest_first(self, runs: RunStore) -> None:
        events = [raw_data(identifier) for identifier in ("one", "two", "one")]
        for event in events:
            runs.create_run(event)
        ids = [event.pipeline_run_id for event in events]
        runs.create_job("one", "ab" * 32, {"x": 1})

        assert runs.identifiers() == ["one", "two"]
        assert runs.runs("one") == [ids[2], ids[0]]
        assert runs.recent_runs(2) == [RunName("one", ids[2]), RunName("two", ids[1])]
        assert len(runs.recent_runs()) == 3

    def test_the_outbox_holds_a_run_until_the_broker_has_it(self, runs: RunStore) -> None:
        first, second = raw_data(), raw_data()
        for event in (first, second):
            runs.create_run(event)

        assert [name.pipeline_run_id for name in runs.unannounced_runs()] == [
            first.pipeline_run_id,
            second.pipeline_run_id,
        ]
        assert runs.mark_announced("PobleSec", first.pipeline_run_id)
        assert not runs.mark_announced("PobleSec", first.pipeline_run_id)

        assert runs.unannounced_runs() == [RunName("PobleSec", second.pipeline_run_id)]
        assert runs.announced("PobleSec", first.pipeline_run_id)
        assert len(runs.open_runs()) == 2

    def test_a_run_is_open_until_its_only_outcome(self, runs: RunStore) -> None:
        run = raw_data()
        runs.create_run(run)
        assert runs.outcome("PobleSec", run.pipeline_run_id) is None

        assert runs.put_outcome("PobleSec", run.pipeline_run_id, RunState.REJECTED, reason="10 rows")
        assert not runs.put_outcome("PobleSec", run.pipeline_run_id, RunState.KEPT)

        stored = runs.outcome("PobleSec", run.pipeline_run_id)
        assert stored == {"outcome": "rejected", "reason": "10 rows", "at": "2026-11-18T11:06:40.000Z"}
        assert runs.open_runs() == []

    def test_a_writer_killed_between_outcome_and_mark_leaves_no_open_run(
        self, runs: RunStore, store: ObjectStore
    ) -> None:
        run = raw_data()
        runs.create_run(run)
        store.put("pipeline-runs", f"PobleSec/{run.pipeline_run_id}/outcome.json", b'{"outcome": "decided"}')

        assert runs.open_runs() == []
        assert list(store.list("pipeline-runs", "_open/")) == []

    def test_a_gateway_killed_before_run_json_leaves_no_open_run(self, runs: RunStore, store: ObjectStore) -> None:
        run = raw_data()
        runs.create_run(run)
        store.delete("pipeline-runs", f"PobleSec/{run.pipeline_run_id}/run.json")

        assert runs.open_runs() == []
        assert runs.create_run(run)
        assert runs.open_runs() == [RunName("PobleSec", run.pipeline_run_id)]

    def test_a_deleted_run_leaves_nothing_and_half_deleted_is_no_unfinished_one(
        self, store: ObjectStore, tmp_path: Path
    ) -> None:
        class Failing:
            def __init__(self, after: int) -> None:
                self.left = after

            def __getattr__(self, name: str) -> Any:
                return getattr(store, name)

            def delete(self, bucket: str, key: str) -> None:
                if self.left == 0:
                    msg = "killed"
                    raise KeyboardInterrupt(msg)
                self.left -= 1
                store.delete(bucket, key)

        settings = folder_settings(tmp_path)
        runs = RunStore(store, settings)
        run, other = raw_data(), raw_data()
        for event in (run, other):
            runs.create_run(event)
            runs.put_stage("PobleSec", event.pipeline_run_id, "preprocess", "done")
            runs.put_expected("PobleSec", event.pipeline_run_id, {"types": ["GRU"]})
            runs.put_inference(inference_data(event.pipeline_run_id))
        for killed_after in (1, 2, 3):
            with pytest.raises(KeyboardInterrupt):
                RunStore(Failing(killed_after), settings).delete_run("PobleSec", run.pipeline_run_id)
            assert runs.open_runs() == [RunName("PobleSec", other.pipeline_run_id)]
            assert runs.find_run(run.pipeline_run_id) == "PobleSec"

        runs.delete_run("PobleSec", run.pipeline_run_id)

        assert runs.runs("PobleSec") == [other.pipeline_run_id]
        assert runs.find_run(run.pipeline_run_id) is None
        assert [info.key for info in store.list("pipeline-runs") if run.pipeline_run_id in info.key] == []
        assert runs.delete_run("PobleSec", run.pipeline_run_id) == 0

    def test_a_corrupt_record_is_named(self, runs: RunStore, store: ObjectStore) -> None:
        run = new_pipeline_run_id()
        for text in (b"{", b"[]", b"\xff"):
            store.put("pipeline-runs", f"PobleSec/{run}/decision.json", text)
            with pytest.raises(RejectedError, match=f"PobleSec/{run}/decision.json") as refusal:
                runs.decision("PobleSec", run)
            assert refusal.value.code == "corrupt_record"
        store.put("pipeline-runs", f"PobleSec/{run}/trained/GRU.json", b'{"v": 1}')
        with pytest.raises(RejectedError, match="trained/GRU"):
            runs.trained("PobleSec", run)


class TestStages:
    def test_a_stage_goes_from_started_to_done_and_stays_there(self, runs: RunStore, clock: Clock) -> None:
        run = new_pipeline_run_id()
        assert runs.put_stage("s", run, "preprocess", "started")
        clock.now += 2.5
        assert runs.put_stage("s", run, "preprocess", "done", claims={"train": CLAIM}, share=float("nan"))
        clock.now += 60

        for status in ("started", "failed", "done"):
            assert not runs.put_stage("s", run, "preprocess", status)

        assert runs.stages("s", run) == {
            "preprocess": {
                "stage": "preprocess",
                "status": "done",
                "start": "2026-11-18T11:06:40.000Z",
                "end": "2026-11-18T11:06:42.500Z",
                "claims": {"train": CLAIM.model_dump(mode="json")},
                "share": None,
            }
        }

    def test_a_failed_stage_can_be_tried_again(self, runs: RunStore, clock: Clock) -> None:
        run = new_pipeline_run_id()
        runs.put_stage("s", run, "train-gru", "started")
        runs.put_stage("s", run, "train-gru", "failed", error="out of memory")
        clock.now += 10

        assert runs.put_stage("s", run, "train-gru", "started")
        stage = runs.stages("s", run)["train-gru"]
        assert (stage["status"], stage["start"], stage["end"]) == ("started", "2026-11-18T11:06:50.000Z", None)
        assert "error" not in stage

    def test_times_may_be_given_in_any_form(self, runs: RunStore) -> None:
        run = new_pipeline_run_id()
        start = datetime(2026, 11, 18, 12, 0, tzinfo=UTC)

        runs.put_stage("s", run, "eval", "done", start, start.timestamp() + 1)

        stage = runs.stages("s", run)["eval"]
        assert (stage["start"], stage["end"]) == ("2026-11-18T12:00:00.000Z", "2026-11-18T12:00:01.000Z")


class TestEvaluation:
    def test_what_eval_expects_is_said_once(self, runs: RunStore) -> None:
        run = new_pipeline_run_id()

        assert runs.put_expected("s", run, {"types": ["GRU"]}) == {"types": ["GRU"]}
        assert runs.put_expected("s", run, {"types": ["LSTM"]}) == {"types": ["GRU"]}
        assert runs.expected("s", run) == {"types": ["GRU"]}
        assert runs.expected("s", new_pipeline_run_id()) is None

    def test_a_success_replaces_a_failure_and_nothing_else_does(self, runs: RunStore) -> None:
        run = new_pipeline_run_id()
        failed, success = trained(run, "FAILED", error="killed"), trained(run)

        assert runs.put_trained(failed)
        assert not runs.put_trained(trained(run, "FAILED", error="again"))
        assert runs.put_trained(success)
        assert not runs.put_trained(failed)
        assert not runs.put_trained(trained(run, reused=True))
        assert runs.put_trained(trained(run, model_type="LSTM"))

        assert runs.trained("PobleSec", run) == {"GRU": success, "LSTM": trained(run, model_type="LSTM")}

    def test_after_the_decision_a_failure_stays(self, runs: RunStore) -> None:
        run = new_pipeline_run_id()
        runs.put_trained(trained(run, "FAILED"))
        runs.decide("PobleSec", run, {"decision": "refused"})

        assert not runs.put_trained(trained(run))
        assert runs.trained("PobleSec", run)["GRU"].status == "FAILED"

    def test_a_run_is_decided_exactly_once_however_many_decide(self, runs: RunStore) -> None:
        run = new_pipeline_run_id()
        barrier = threading.Barrier(16)

        def decide(number: int) -> tuple[dict[str, Any], bool]:
            barrier.wait()
            return runs.decide("s", run, {"decision": "promoted", "by": number})

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(decide, range(16)))

        assert sum(first for _, first in answers) == 1
        [winner] = [decision for decision, first in answers if first]
        assert all(decision == winner for decision, _ in answers)
        assert runs.decision("s", run) == winner

    def test_a_scoreboard_lies_under_its_own_hash(self, runs: RunStore) -> None:
        run = new_pipeline_run_id()

        first, second = (runs.put_scoreboard("s", run, b'{"rows": []}') for _ in range(2))

        assert first == second
        assert first.object_key == f"s/{run}/scoreboard-{first.sha256}.json"


class TestForecasts:
    def test_test_rows_wait_until_they_are_forecast_or_skipped(self, runs: RunStore) -> None:
        events = [inference_data(new_pipeline_run_id()) for _ in range(2)]
        names = [RunName("PobleSec", event.pipeline_run_id) for event in events]
        for event in events:
            assert runs.put_inference(event)
            assert not runs.put_inference(event)
        assert runs.inference(*names[0]) == events[0]
        assert runs.waiting_forecasts() == names

        assert runs.put_forecast(*names[0], "skipped", reason="no champion")
        assert not runs.put_forecast(*names[0], "done")

        assert runs.waiting_forecasts() == names[1:]
        stored = runs.forecast(*names[0])
        assert stored is not None
        assert (stored["status"], stored["reason"]) == ("skipped", "no champion")
        assert runs.forecast(*names[1]) is None
        assert not runs.put_inference(events[0])
        assert runs.waiting_forecasts() == names[1:]


def pointer(run: str, score: float = 0.1) -> dict[str, Any]:
    return {"pipeline_run_id": run, "run_id": "a" * 32, "score": score}


class TestChampions:
    def test_the_pointer_only_moves_forward(self, runs: RunStore) -> None:
        old, new, newest = (new_pipeline_run_id() for _ in range(3))
        assert runs.current("s") is None

        assert runs.move_current("s", pointer(new)) == "moved"
        assert runs.move_current("s", pointer(new, score=9)) == "same"
        assert runs.move_current("s", pointer(old)) == "superseded"
        assert runs.move_current("s", pointer(newest)) == "moved"

        current = runs.current("s")
        assert current is not None
        assert current[0] == {**pointer(newest), "previous": pointer(new)}

    def test_the_newest_of_many_that_move_it_at_once_stays(self, runs: RunStore) -> None:
        ids = [new_pipeline_run_id() for _ in range(12)]
        barrier = threading.Barrier(12)

        def move(run: str) -> str:
            barrier.wait()
            return runs.move_current("s", pointer(run))

        with ThreadPoolExecutor(12) as pool:
            answers = dict(zip(ids, pool.map(move, ids), strict=True))

        current = runs.current("s")
        assert current is not None
        assert current[0]["pipeline_run_id"] == ids[-1]
        assert answers[ids[-1]] == "moved"
        assert set(answers.values()) <= {"moved", "superseded"}
        before = current[0]["previous"]
        if list(answers.values()).count("moved") == 1:  # it was the first of them
            assert before is None
        else:
            assert before["pipeline_run_id"] in ids[:-1]

    def test_a_put_whose_answer_was_lost_still_counts_as_moved(self, tmp_path: Path) -> None:
        class LostAnswer(FilesystemStore):
            lost = 0

            def put(
                self, bucket: str, key: str, data: bytes, *, create_only: bool = False, if_match: str | None = None
            ) -> ObjectInfo:
                info = super().put(bucket, key, data, create_only=create_only, if_match=if_match)
                if key.endswith("current.json") and not self.lost:
                    self.lost += 1  # the client repeats what the server has done, and is told that it exists
                    msg = "exists already"
                    raise PreconditionFailedError(msg)
                return info

        store = LostAnswer(tmp_path)
        store.ensure_bucket("model-promotion")
        runs = RunStore(store, folder_settings(tmp_path))

        assert runs.move_current("s", pointer(new_pipeline_run_id())) == "moved"
        assert store.lost == 1

    def test_champions_are_listed_by_identifier(self, runs: RunStore) -> None:
        run = new_pipeline_run_id()
        runs.move_current("one", pointer(run))
        runs.put_config_pointer("one", "c" * 64, pointer(run))
        runs.put_config_pointer("two", "c" * 64, pointer(run))

        assert runs.champions() == {"one": {**pointer(run), "previous": None}}
        assert runs.current_of_config("two", "c" * 64) == {**pointer(run), "previous": None}
        assert runs.current_of_config("one", "d" * 64) is None


class TestJobsAndLeases:
    def test_a_job_starts_one_run_however_often_it_starts(self, runs: RunStore) -> None:
        first = runs.create_job("s", "a" * 64, {"pipeline_run_id": "one"})
        second = runs.create_job("s", "a" * 64, {"pipeline_run_id": "two"})

        assert first == ({"pipeline_run_id": "one"}, True)
        assert second == ({"pipeline_run_id": "one"}, False)

    def test_a_lease_has_one_owner_until_it_ends(self, runs: RunStore, clock: Clock) -> None:
        assert runs.acquire_lease("janitor", "one", 60)
        assert not runs.acquire_lease("janitor", "two", 60)
        assert runs.acquire_lease("spool", "two", 60)
        clock.now += 50
        assert runs.acquire_lease("janitor", "one", 60)
        clock.now += 50
        assert not runs.acquire_lease("janitor", "two", 60)
        clock.now += 11
        assert runs.acquire_lease("janitor", "two", 60)
        assert not runs.acquire_lease("janitor", "one", 60)

    def test_a_lease_given_back_is_free_and_only_its_owner_gives_it_back(self, runs: RunStore) -> None:
        runs.acquire_lease("janitor", "one", 60)

        runs.release_lease("janitor", "two")
        assert not runs.acquire_lease("janitor", "two", 60)
        runs.release_lease("janitor", "one")
        assert runs.acquire_lease("janitor", "two", 60)

    def test_one_of_many_gets_the_lease(self, runs: RunStore) -> None:
        barrier = threading.Barrier(12)

        def acquire(number: int) -> bool:
            barrier.wait()
            return runs.acquire_lease("spool", str(number), 60)

        with ThreadPoolExecutor(12) as pool:
            assert sum(pool.map(acquire, range(12))) == 1
