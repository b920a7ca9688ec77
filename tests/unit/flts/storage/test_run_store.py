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
from flts.storage.run_store import RunStore
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
def run_store(store: ObjectStore, tmp_path: Path, clock: Clock) -> RunStore:
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
    def test_a_run_is_created_once_and_read_back_as_its_event(self, run_store: RunStore) -> None:
        event = raw_data()

        assert run_store.runs.create(event)
        assert not run_store.runs.create(event)
        stored = run_store.runs.read("PobleSec", event.pipeline_run_id)
        assert stored is not None
        assert RawData.model_validate(stored) == event
        assert run_store.runs.read("PobleSec", new_pipeline_run_id()) is None

    def test_a_run_is_found_by_its_id_alone(self, run_store: RunStore) -> None:
        first, second = raw_data("one"), raw_data("two")
        run_store.runs.create(first)
        run_store.runs.create(second)

        assert run_store.runs.identifier_of(first.pipeline_run_id) == "one"
        assert run_store.runs.identifier_of(second.pipeline_run_id) == "two"
        assert run_store.runs.identifier_of(new_pipeline_run_id()) is None
        assert run_store.runs.identifier_of("../x") is None

    def test_runs_are_listed_newest_first(self, run_store: RunStore) -> None:
        events = [raw_data(identifier) for identifier in ("one", "two", "one")]
        for event in events:
            run_store.runs.create(event)
        ids = [event.pipeline_run_id for event in events]
        run_store.runs.create_job("one", "ab" * 32, {"x": 1})

        assert run_store.runs.identifiers() == ["one", "two"]
        assert run_store.runs.of("one") == [ids[2], ids[0]]
        assert run_store.runs.recent(2) == [RunName("one", ids[2]), RunName("two", ids[1])]
        assert len(run_store.runs.recent()) == 3

    def test_the_outbox_holds_a_run_until_the_broker_has_it(self, run_store: RunStore) -> None:
        first, second = raw_data(), raw_data()
        for event in (first, second):
            run_store.runs.create(event)

        assert [name.pipeline_run_id for name in run_store.runs.unannounced()] == [
            first.pipeline_run_id,
            second.pipeline_run_id,
        ]
        assert run_store.runs.mark_announced("PobleSec", first.pipeline_run_id)
        assert not run_store.runs.mark_announced("PobleSec", first.pipeline_run_id)

        assert run_store.runs.unannounced() == [RunName("PobleSec", second.pipeline_run_id)]
        assert run_store.runs.announced("PobleSec", first.pipeline_run_id)
        assert len(run_store.runs.unfinished()) == 2

    def test_a_run_is_open_until_its_only_outcome(self, run_store: RunStore) -> None:
        run = raw_data()
        run_store.runs.create(run)
        assert run_store.runs.outcome("PobleSec", run.pipeline_run_id) is None

        assert run_store.runs.put_outcome("PobleSec", run.pipeline_run_id, RunState.REJECTED, reason="10 rows")
        assert not run_store.runs.put_outcome("PobleSec", run.pipeline_run_id, RunState.KEPT)

        stored = run_store.runs.outcome("PobleSec", run.pipeline_run_id)
        assert stored == {"outcome": "rejected", "reason": "10 rows", "at": "2026-11-18T11:06:40.000Z"}
        assert run_store.runs.unfinished() == []

    def test_a_writer_killed_between_outcome_and_mark_leaves_no_open_run(
        self, run_store: RunStore, store: ObjectStore
    ) -> None:
        run = raw_data()
        run_store.runs.create(run)
        store.put("pipeline-runs", f"PobleSec/{run.pipeline_run_id}/outcome.json", b'{"outcome": "decided"}')

        assert run_store.runs.unfinished() == []
        assert list(store.list("pipeline-runs", "_open/")) == []

    def test_a_gateway_killed_before_run_json_leaves_no_open_run(self, run_store: RunStore, store: ObjectStore) -> None:
        run = raw_data()
        run_store.runs.create(run)
        store.delete("pipeline-runs", f"PobleSec/{run.pipeline_run_id}/run.json")

        assert run_store.runs.unfinished() == []
        assert run_store.runs.create(run)
        assert run_store.runs.unfinished() == [RunName("PobleSec", run.pipeline_run_id)]

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
        run_store = RunStore(store, settings)
        run, other = raw_data(), raw_data()
        for event in (run, other):
            run_store.runs.create(event)
            run_store.stages.put("PobleSec", event.pipeline_run_id, "preprocess", "done")
            run_store.evaluations.put_expected("PobleSec", event.pipeline_run_id, {"types": ["GRU"]})
            run_store.forecasts.put_inference(inference_data(event.pipeline_run_id))
        for killed_after in (1, 2, 3):
            with pytest.raises(KeyboardInterrupt):
                RunStore(Failing(killed_after), settings).runs.delete("PobleSec", run.pipeline_run_id)
            assert run_store.runs.unfinished() == [RunName("PobleSec", other.pipeline_run_id)]
            assert run_store.runs.identifier_of(run.pipeline_run_id) == "PobleSec"

        run_store.runs.delete("PobleSec", run.pipeline_run_id)

        assert run_store.runs.of("PobleSec") == [other.pipeline_run_id]
        assert run_store.runs.identifier_of(run.pipeline_run_id) is None
        assert [info.key for info in store.list("pipeline-runs") if run.pipeline_run_id in info.key] == []
        assert run_store.runs.delete("PobleSec", run.pipeline_run_id) == 0

    def test_a_corrupt_record_is_named(self, run_store: RunStore, store: ObjectStore) -> None:
        run = new_pipeline_run_id()
        for text in (b"{", b"[]", b"\xff"):
            store.put("pipeline-runs", f"PobleSec/{run}/decision.json", text)
            with pytest.raises(RejectedError, match=f"PobleSec/{run}/decision.json") as refusal:
                run_store.evaluations.decision("PobleSec", run)
            assert refusal.value.code == "corrupt_record"
        store.put("pipeline-runs", f"PobleSec/{run}/trained/GRU.json", b'{"v": 1}')
        with pytest.raises(RejectedError, match="trained/GRU"):
            run_store.evaluations.trained("PobleSec", run)


class TestStages:
    def test_a_stage_goes_from_started_to_done_and_stays_there(self, run_store: RunStore, clock: Clock) -> None:
        run = new_pipeline_run_id()
        assert run_store.stages.put("s", run, "preprocess", "started")
        clock.now += 2.5
        assert run_store.stages.put("s", run, "preprocess", "done", claims={"train": CLAIM}, share=float("nan"))
        clock.now += 60

        for status in ("started", "failed", "done"):
            assert not run_store.stages.put("s", run, "preprocess", status)

        assert run_store.stages.of("s", run) == {
            "preprocess": {
                "stage": "preprocess",
                "status": "done",
                "start": "2026-11-18T11:06:40.000Z",
                "end": "2026-11-18T11:06:42.500Z",
                "claims": {"train": CLAIM.model_dump(mode="json")},
                "share": None,
            }
        }

    def test_a_failed_stage_can_be_tried_again(self, run_store: RunStore, clock: Clock) -> None:
        run = new_pipeline_run_id()
        run_store.stages.put("s", run, "train-gru", "started")
        run_store.stages.put("s", run, "train-gru", "failed", error="out of memory")
        clock.now += 10

        assert run_store.stages.put("s", run, "train-gru", "started")
        stage = run_store.stages.of("s", run)["train-gru"]
        assert (stage["status"], stage["start"], stage["end"]) == ("started", "2026-11-18T11:06:50.000Z", None)
        assert "error" not in stage

    def test_times_may_be_given_in_any_form(self, run_store: RunStore) -> None:
        run = new_pipeline_run_id()
        start = datetime(2026, 11, 18, 12, 0, tzinfo=UTC)

        run_store.stages.put("s", run, "eval", "done", start, start.timestamp() + 1)

        stage = run_store.stages.of("s", run)["eval"]
        assert (stage["start"], stage["end"]) == ("2026-11-18T12:00:00.000Z", "2026-11-18T12:00:01.000Z")


class TestEvaluation:
    def test_what_eval_expects_is_said_once(self, run_store: RunStore) -> None:
        run = new_pipeline_run_id()

        assert run_store.evaluations.put_expected("s", run, {"types": ["GRU"]}) == {"types": ["GRU"]}
        assert run_store.evaluations.put_expected("s", run, {"types": ["LSTM"]}) == {"types": ["GRU"]}
        assert run_store.evaluations.expected("s", run) == {"types": ["GRU"]}
        assert run_store.evaluations.expected("s", new_pipeline_run_id()) is None

    def test_a_success_replaces_a_failure_and_nothing_else_does(self, run_store: RunStore) -> None:
        run = new_pipeline_run_id()
        failed, success = trained(run, "FAILED", error="killed"), trained(run)

        assert run_store.evaluations.put_trained(failed)
        assert not run_store.evaluations.put_trained(trained(run, "FAILED", error="again"))
        assert run_store.evaluations.put_trained(success)
        assert not run_store.evaluations.put_trained(failed)
        assert not run_store.evaluations.put_trained(trained(run, reused=True))
        assert run_store.evaluations.put_trained(trained(run, model_type="LSTM"))

        assert run_store.evaluations.trained("PobleSec", run) == {
            "GRU": success,
            "LSTM": trained(run, model_type="LSTM"),
        }

    def test_after_the_decision_a_failure_stays(self, run_store: RunStore) -> None:
        run = new_pipeline_run_id()
        run_store.evaluations.put_trained(trained(run, "FAILED"))
        run_store.evaluations.decide("PobleSec", run, {"decision": "refused"})

        assert not run_store.evaluations.put_trained(trained(run))
        assert run_store.evaluations.trained("PobleSec", run)["GRU"].status == "FAILED"

    def test_a_run_is_decided_exactly_once_however_many_decide(self, run_store: RunStore) -> None:
        run = new_pipeline_run_id()
        barrier = threading.Barrier(16)

        def decide(number: int) -> tuple[dict[str, Any], bool]:
            barrier.wait()
            return run_store.evaluations.decide("s", run, {"decision": "promoted", "by": number})

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(decide, range(16)))

        assert sum(first for _, first in answers) == 1
        [winner] = [decision for decision, first in answers if first]
        assert all(decision == winner for decision, _ in answers)
        assert run_store.evaluations.decision("s", run) == winner

    def test_each_stage_of_a_champion_has_a_record_that_is_written_once(self, run_store: RunStore) -> None:
        run = new_pipeline_run_id()
        evaluations = run_store.evaluations
        assert evaluations.provisional("s", run) is None
        assert evaluations.refit("s", run) is None

        assert evaluations.put_provisional("s", run, {"by": 1}) == ({"by": 1}, True)
        assert evaluations.decide("s", run, {"by": 2}) == ({"by": 2}, True)
        assert evaluations.put_refit("s", run, {"by": 3}) == ({"by": 3}, True)

        assert evaluations.put_provisional("s", run, {"by": 4}) == ({"by": 1}, False)
        assert evaluations.put_refit("s", run, {"by": 4}) == ({"by": 3}, False)
        assert evaluations.provisional("s", run) == {"by": 1}
        assert evaluations.decision("s", run) == {"by": 2}
        assert evaluations.refit("s", run) == {"by": 3}

    def test_a_refitted_champion_is_judged_by_the_fit_of_its_runs_decision(self, run_store: RunStore) -> None:
        run = new_pipeline_run_id()
        decided, refitted = pointer(run), {**pointer(run, score=9), "stage": "refitted"}
        run_store.evaluations.decide("s", run, {"pointer": decided})

        assert run_store.evaluations.judged("s", refitted) == decided
        for other in (decided, {**pointer(run, score=9), "stage": "provisional"}):
            assert run_store.evaluations.judged("s", other) == other
        lost = {**pointer(new_pipeline_run_id()), "stage": "refitted"}
        assert run_store.evaluations.judged("s", lost) == lost

    def test_a_scoreboard_lies_under_its_own_hash(self, run_store: RunStore) -> None:
        run = new_pipeline_run_id()

        first, second = (run_store.evaluations.put_scoreboard("s", run, b'{"rows": []}') for _ in range(2))

        assert first == second
        assert first.object_key == f"s/{run}/scoreboard-{first.sha256}.json"


class TestForecasts:
    def test_test_rows_wait_until_they_are_forecast_or_skipped(self, run_store: RunStore) -> None:
        events = [inference_data(new_pipeline_run_id()) for _ in range(2)]
        names = [RunName("PobleSec", event.pipeline_run_id) for event in events]
        for event in events:
            assert run_store.forecasts.put_inference(event)
            assert not run_store.forecasts.put_inference(event)
        assert run_store.forecasts.inference(*names[0]) == events[0]
        assert run_store.forecasts.waiting() == names

        assert run_store.forecasts.put(*names[0], "skipped", reason="no champion")
        assert not run_store.forecasts.put(*names[0], "done")

        assert run_store.forecasts.waiting() == names[1:]
        stored = run_store.forecasts.read(*names[0])
        assert stored is not None
        assert (stored["status"], stored["reason"]) == ("skipped", "no champion")
        assert run_store.forecasts.read(*names[1]) is None
        assert not run_store.forecasts.put_inference(events[0])
        assert run_store.forecasts.waiting() == names[1:]


def pointer(run: str, score: float = 0.1) -> dict[str, Any]:
    return {"pipeline_run_id": run, "run_id": "a" * 32, "score": score}


class TestChampions:
    def test_the_pointer_only_moves_forward(self, run_store: RunStore) -> None:
        old, new, newest = (new_pipeline_run_id() for _ in range(3))
        assert run_store.pointers.current("s") is None

        assert run_store.pointers.move_current("s", pointer(new)) == "moved"
        assert run_store.pointers.move_current("s", pointer(new, score=9)) == "same"
        assert run_store.pointers.move_current("s", pointer(old)) == "superseded"
        assert run_store.pointers.move_current("s", pointer(newest)) == "moved"

        current = run_store.pointers.current("s")
        assert current is not None
        assert current[0] == {**pointer(newest), "previous": pointer(new)}

    def test_the_newest_of_many_that_move_it_at_once_stays(self, run_store: RunStore) -> None:
        ids = [new_pipeline_run_id() for _ in range(12)]
        barrier = threading.Barrier(12)

        def move(run: str) -> str:
            barrier.wait()
            return run_store.pointers.move_current("s", pointer(run))

        with ThreadPoolExecutor(12) as pool:
            answers = dict(zip(ids, pool.map(move, ids), strict=True))

        current = run_store.pointers.current("s")
        assert current is not None
        assert current[0]["pipeline_run_id"] == ids[-1]
        assert answers[ids[-1]] == "moved"
        assert set(answers.values()) <= {"moved", "superseded"}
        before = current[0]["previous"]
        # Only the newest run moved the pointer, so there was no earlier champion.
        if list(answers.values()).count("moved") == 1:
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
                    # Simulates a put that succeeded, whose answer was lost, and whose retry by the client is refused.
                    self.lost += 1
                    msg = "exists already"
                    raise PreconditionFailedError(msg)
                return info

        store = LostAnswer(tmp_path)
        store.ensure_bucket("model-promotion")
        run_store = RunStore(store, folder_settings(tmp_path))

        assert run_store.pointers.move_current("s", pointer(new_pipeline_run_id())) == "moved"
        assert store.lost == 1

    def test_champions_are_listed_by_identifier(self, run_store: RunStore) -> None:
        run = new_pipeline_run_id()
        run_store.pointers.move_current("one", pointer(run))
        run_store.pointers.move_current_of_config("one", "c" * 64, pointer(run))
        run_store.pointers.move_current_of_config("two", "c" * 64, pointer(run))

        assert run_store.pointers.champions() == {"one": {**pointer(run), "previous": None}}
        assert run_store.pointers.current_of_config("two", "c" * 64) == {**pointer(run), "previous": None}
        assert run_store.pointers.current_of_config("one", "d" * 64) is None


class TestJobsAndLeases:
    def test_a_job_starts_one_run_however_often_it_starts(self, run_store: RunStore) -> None:
        first = run_store.runs.create_job("s", "a" * 64, {"pipeline_run_id": "one"})
        second = run_store.runs.create_job("s", "a" * 64, {"pipeline_run_id": "two"})

        assert first == ({"pipeline_run_id": "one"}, True)
        assert second == ({"pipeline_run_id": "one"}, False)

    def test_a_lease_has_one_owner_until_it_ends(self, run_store: RunStore, clock: Clock) -> None:
        assert run_store.leases.acquire("janitor", "one", 60)
        assert not run_store.leases.acquire("janitor", "two", 60)
        assert run_store.leases.acquire("spool", "two", 60)
        clock.now += 50
        assert run_store.leases.acquire("janitor", "one", 60)
        clock.now += 50
        assert not run_store.leases.acquire("janitor", "two", 60)
        clock.now += 11
        assert run_store.leases.acquire("janitor", "two", 60)
        assert not run_store.leases.acquire("janitor", "one", 60)

    def test_a_lease_given_back_is_free_and_only_its_owner_gives_it_back(self, run_store: RunStore) -> None:
        run_store.leases.acquire("janitor", "one", 60)

        run_store.leases.release("janitor", "two")
        assert not run_store.leases.acquire("janitor", "two", 60)
        run_store.leases.release("janitor", "one")
        assert run_store.leases.acquire("janitor", "two", 60)

    def test_one_of_many_gets_the_lease(self, run_store: RunStore) -> None:
        barrier = threading.Barrier(12)

        def acquire(number: int) -> bool:
            barrier.wait()
            return run_store.leases.acquire("spool", str(number), 60)

        with ThreadPoolExecutor(12) as pool:
            assert sum(pool.map(acquire, range(12))) == 1
