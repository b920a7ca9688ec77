from __future__ import annotations

from pathlib import Path

import pytest

from eval_container.bootstrap import build_service
from eval_container.housekeeping import REMIND_SECONDS, SETTLE_SECONDS, DrainSpool, JanitorTick, Overdue, SignsOfLife
from flts.contracts.events import EvaluateRequest, ModelSelected, RunProgress
from flts.contracts.ids import derived_event_id
from flts.housekeeping.janitor import Janitor
from flts.runtime.adapters import Adapters
from flts.storage.run_store import RunStore
from tests.evaluated_runs import CREATED, IDENTIFIER, Installation, Run, announced, autoregression, no_progress

DAY = 86_400.0


@pytest.fixture
def flts(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


class Watch:
    """A tick of eval and the signs of life that its process has received."""

    def __init__(self, flts: Installation) -> None:
        self.signs = SignsOfLife(flts.now)
        self.tick = Overdue(flts.settings, flts.adapters(), self.signs, now=flts.now)

    def due(self) -> list[str]:
        requests = list(self.tick())
        assert all(isinstance(request, EvaluateRequest) for request in requests)
        return [request.pipeline_run_id for request in requests]


def _progress_of(service: str) -> RunProgress:
    run = "01900000-0000-7000-8000-000000000000"
    return RunProgress(
        event_id=derived_event_id(run, "progress"),
        identifier="another",
        pipeline_run_id=run,
        created_at=CREATED,
        service=service,
        stage=service,
        state="running",
    )


class TestOverdue:
    def test_a_run_is_due_once_its_missing_types_are_silent(self, flts: Installation) -> None:
        run = flts.run()
        watch = Watch(flts)
        flts.send(run.data, flts.trained(run, "GRU"))

        flts.clock += 299
        early = watch.due()
        flts.clock += 1
        late = watch.due()

        assert (early, late) == ([], [run.id])

    def test_progress_of_any_run_is_a_sign_of_life(self, flts: Installation) -> None:
        run = flts.run()
        watch = Watch(flts)
        flts.send(run.data, flts.trained(run, "GRU"))
        flts.clock += 200
        watch.signs(_progress_of("train-lstm"), no_progress)

        flts.clock += 200
        alive = watch.due()
        flts.clock += 100
        silent = watch.due()

        assert (alive, silent) == ([], [run.id])

    def test_after_a_restart_everybody_has_the_whole_silence_again_but_not_a_longer_run(
        self, flts: Installation
    ) -> None:
        run = flts.run()
        flts.send(run.data, flts.trained(run, "GRU"))
        flts.clock += 7000
        restarted = Watch(flts)

        at_once = restarted.due()
        flts.clock += 200
        after_the_longest = restarted.due()

        assert (at_once, after_the_longest) == ([], [run.id])

    def test_it_is_asked_for_again_only_if_nothing_came_of_it(self, flts: Installation) -> None:
        run = flts.run()
        watch = Watch(flts)
        flts.send(run.data, flts.trained(run, "GRU"))
        flts.clock += 300

        asked = [watch.due(), watch.due()]
        flts.clock += REMIND_SECONDS
        asked.append(watch.due())

        assert asked == [[run.id], [], [run.id]]

    def test_its_request_decides_the_run_and_nothing_is_due_any_more(self, flts: Installation) -> None:
        run = flts.run()
        watch = Watch(flts)
        flts.send(run.data, flts.trained(run, "GRU", 0.6))
        flts.clock += 300

        told = flts.send(*watch.tick())

        assert [event.decision for event in told if isinstance(event, ModelSelected)] == ["promoted"]
        flts.clock += 10 * REMIND_SECONDS
        assert watch.due() == []

    def test_a_complete_run_is_left_to_its_message_for_a_while(self, flts: Installation) -> None:
        run = flts.run()
        watch = Watch(flts)
        flts.send(run.data)
        flts.run_store.evaluations.put_trained(flts.trained(run, "GRU"))
        flts.run_store.evaluations.put_trained(announced(run, "LSTM"))

        at_once = watch.due()
        flts.clock += SETTLE_SECONDS
        later = watch.due()

        assert (at_once, later) == ([], [run.id])

    def test_a_decision_without_an_outcome_is_taken_up_again(self, flts: Installation) -> None:
        run = flts.run()
        watch = Watch(flts)
        told = flts.send(run.data, flts.trained(run, "GRU", 0.6), announced(run, "LSTM"))
        flts.store.delete(flts.settings.bucket_pipeline_runs, f"{IDENTIFIER}/{run.id}/outcome.json")
        record = flts.run_store.runs.read(IDENTIFIER, run.id)
        assert record is not None
        flts.store.put(flts.settings.bucket_pipeline_runs, f"_open/{run.id}/{IDENTIFIER}", b"")

        watch.due()
        flts.clock += SETTLE_SECONDS
        again = flts.send(*watch.tick())

        assert again == told
        assert flts.run_store.runs.outcome(IDENTIFIER, run.id) is not None

    @pytest.mark.parametrize("record", ["expected.json", "trained/GRU.json", "decision.json"])
    @pytest.mark.parametrize("content", [b"no json", b'{"model_types": 1}'])
    def test_a_run_with_a_broken_record_does_not_hold_up_the_others(
        self, flts: Installation, record: str, content: bytes
    ) -> None:
        broken, good = flts.run(), flts.run()
        watch = Watch(flts)
        flts.send(broken.data, good.data, flts.trained(good, "GRU"))
        flts.store.put(flts.settings.bucket_pipeline_runs, f"{IDENTIFIER}/{broken.id}/{record}", content)

        flts.clock += 300

        assert good.id in watch.due()

    def test_a_cancellation_that_was_not_carried_out_is_due_even_before_preprocess_is_done(
        self, flts: Installation
    ) -> None:
        run = flts.run()
        watch = Watch(flts)
        flts.run_store.evaluations.decide(
            IDENTIFIER, run.id, {"decision": "refused", "reasons": ["cancelled: by a person"]}
        )

        watch.due()
        flts.clock += SETTLE_SECONDS

        assert watch.due() == [run.id]

    def test_a_run_that_preprocess_has_not_finished_is_not_due(self, flts: Installation) -> None:
        flts.run()
        watch = Watch(flts)
        flts.clock += 100_000

        assert watch.due() == []


class TestDrainSpool:
    class _Tracker:
        def __init__(self, *, stuck: int = 0) -> None:
            self.limits: list[int] = []
            self._stuck = stuck

        def drain_spool(self, limit: int) -> int:
            self.limits.append(limit)
            return max(limit - self._stuck, 0)

    def test_mlflow_is_left_alone_while_nothing_waits(self, flts: Installation) -> None:
        flts.tracker = self._Tracker()

        DrainSpool(flts.settings, flts.adapters())()

        assert flts.tracker.limits == []

    def test_one_replica_at_a_time_hands_on_what_waits(self, flts: Installation) -> None:
        flts.tracker = self._Tracker()
        flts.store.put(flts.settings.bucket_pipeline_runs, "_spool/0.json", b"{}")
        other = flts.run_store.leases

        assert other.acquire("spool", "another replica", 60)
        DrainSpool(flts.settings, flts.adapters())()
        held = list(flts.tracker.limits)
        other.release("spool", "another replica")
        DrainSpool(flts.settings, flts.adapters())()

        assert (held, len(flts.tracker.limits)) == ([], 1)

    def test_it_ends_at_half_the_lease_however_much_waits(self, flts: Installation) -> None:
        flts.tracker = self._Tracker()
        for number in range(20):
            flts.store.put(flts.settings.bucket_pipeline_runs, f"_spool/{number}.json", b"{}")
        times = iter(range(0, 2000, 25))

        DrainSpool(flts.settings, flts.adapters(), clock=lambda: next(times))()

        assert flts.tracker.limits == [1, 1]

    def test_what_mlflow_does_not_take_is_stepped_over(self, flts: Installation) -> None:
        flts.tracker = self._Tracker(stuck=1)
        for number in range(3):
            flts.store.put(flts.settings.bucket_pipeline_runs, f"_spool/{number}.json", b"{}")

        DrainSpool(flts.settings, flts.adapters(), clock=lambda: 0.0)()

        assert flts.tracker.limits == [1, 2, 2]


class TestJanitor:
    def _finished(self, flts: Installation, seed: int, coefficient: float | None) -> Run:
        """Return a run that ended as promoted, or as refused without a coefficient: no test row can be forecast."""
        series = autoregression(200, 0.5, seed=seed)
        run = flts.run(series, test_rows=100) if coefficient else flts.run(series, test_rows=1, context_rows=0)
        flts.send(run.data, flts.trained(run, "GRU", coefficient or 1.0), announced(run, "LSTM"))
        assert flts.run_store.runs.outcome(IDENTIFIER, run.id) is not None
        return run

    def _janitor(self, flts: Installation, *, retain: int = 1) -> JanitorTick:
        settings = flts.settings.model_copy(update={"retain_runs": retain})
        return JanitorTick(settings, flts.adapters(), now=lambda: flts.clock)

    def _later(self, flts: Installation) -> None:
        import time  # noqa: PLC0415 - objects have the time of this machine, not flts.clock

        flts.clock = time.time() + 2 * DAY

    def _keys(self, flts: Installation, bucket: str) -> set[str]:
        return {info.key for info in flts.store.list(bucket)}

    def test_old_runs_go_with_what_only_they_name_and_the_champions_stay(self, flts: Installation) -> None:
        old = self._finished(flts, 0, None)
        champion = self._finished(flts, 1, 0.5)
        newest = self._finished(flts, 2, None)
        self._later(flts)

        self._janitor(flts)()

        assert flts.run_store.runs.of(IDENTIFIER) == [newest.id, champion.id]
        kept = {str(champion.data.config_hash), str(newest.data.config_hash)}
        for bucket in (flts.settings.bucket_processed_data, flts.settings.bucket_model_bundles):
            assert {key.split("/")[1] for key in self._keys(flts, bucket)} == kept
        pointer = flts.pointer()
        assert pointer is not None
        flts.store.head(pointer["bundle"]["bucket"], pointer["bundle"]["object_key"])
        assert str(old.data.config_hash) not in kept

    def test_the_predecessor_of_the_champion_stays_so_that_it_can_be_returned_to(self, flts: Installation) -> None:
        first = self._finished(flts, 0, 0.9)
        second = self._finished(flts, 1, 0.5)
        self._finished(flts, 2, None)
        pointer = flts.pointer()
        assert pointer is not None
        assert (pointer["pipeline_run_id"], pointer["previous"]["pipeline_run_id"]) == (second.id, first.id)
        self._later(flts)

        self._janitor(flts)()

        assert {first.id, second.id} <= set(flts.run_store.runs.of(IDENTIFIER))
        flts.store.head(pointer["previous"]["bundle"]["bucket"], pointer["previous"]["bundle"]["object_key"])

    def test_an_unfinished_run_and_what_it_may_use_stay(self, flts: Installation) -> None:
        unfinished = flts.run(autoregression(200, 0.5, seed=8), test_rows=100)
        flts.send(unfinished.data, flts.trained(unfinished, "GRU"))
        for seed in range(3):
            self._finished(flts, seed, None)
        self._later(flts)

        self._janitor(flts)()

        assert unfinished.id in flts.run_store.runs.of(IDENTIFIER)
        assert any(str(unfinished.data.config_hash) in key for key in self._keys(flts, "model-bundles"))

    def test_an_identifier_with_a_broken_record_stays_whole_and_does_not_hold_up_the_others(
        self, flts: Installation
    ) -> None:
        broken = flts.run(identifier="a")
        flts.store.put(flts.settings.bucket_pipeline_runs, f"a/{broken.id}/expected.json", b"no json")
        for seed in range(3):
            self._finished(flts, seed, None)
        self._later(flts)

        self._janitor(flts)()

        assert flts.run_store.runs.of("a") == [broken.id]
        assert len(flts.run_store.runs.of(IDENTIFIER)) == 1

    def test_a_plan_changes_nothing(self, flts: Installation) -> None:
        for seed in range(3):
            self._finished(flts, seed, None)
        self._later(flts)
        before = flts.everything()

        settings = flts.settings.model_copy(update={"retain_runs": 1})
        (plan,) = Janitor(flts.store, flts.run_store, settings, flts.metrics, now=flts.now).plan()

        assert len(plan.runs) == 2
        assert plan.objects
        view = plan.view()
        assert view["run_bytes"] > 0
        assert all(group["bytes"] > 0 and group["why"] for group in view["objects"])
        assert flts.everything() == before

    def test_old_logs_go(self, flts: Installation) -> None:
        self._finished(flts, 0, None)
        bucket = flts.settings.bucket_inference_logs
        flts.store.put(bucket, f"{IDENTIFIER}/date=2020-01-01/a", b"x")
        flts.store.put(bucket, f"{IDENTIFIER}/date=2100-01-01/b", b"x")

        self._janitor(flts)()

        assert self._keys(flts, bucket) == {f"{IDENTIFIER}/date=2100-01-01/b"}

    def test_a_round_is_done_once_a_period_by_one_replica(self, flts: Installation) -> None:
        for seed in range(2):
            self._finished(flts, seed, None)
        self._later(flts)
        flts.run_store.leases.acquire("janitor", "another replica", 1000)

        self._janitor(flts)()

        assert len(flts.run_store.runs.of(IDENTIFIER)) == 2

    def test_records_that_still_run_after_a_day_are_ended_and_younger_ones_left_alone(self, flts: Installation) -> None:
        class Tracker:
            asked = 0

            def end_stale_runs(self, older_than_seconds: float) -> int:
                assert older_than_seconds == DAY
                self.asked += 1
                return 0

        flts.tracker = Tracker()
        flts.run()
        janitor = JanitorTick(flts.settings, flts.adapters(), now=flts.now)
        self._later(flts)
        flts.clock -= 1.5 * DAY
        janitor()
        young = flts.tracker.asked
        flts.clock += DAY

        JanitorTick(flts.settings, _adapters_of_a_later_day(flts), now=flts.now)()

        assert (young, flts.tracker.asked) == (0, 1)


def _adapters_of_a_later_day(flts: Installation) -> Adapters:
    store = RunStore(flts.store, flts.settings, clock=flts.now)
    return Adapters(flts.store, store, flts.tracker, flts.metrics, flts.settings)


def test_the_service_listens_where_the_design_says(flts: Installation) -> None:
    service = build_service(flts.settings, flts.adapters())

    group, signs = service.subscriptions
    assert ({topic.name for topic in group.topics}, group.mode) == (
        {"training-data", "model-training", "model-refit"},
        "group",
    )
    assert group.child == "eval_container.handler:build_handler"
    assert ({topic.name for topic in signs.topics}, signs.mode) == ({"run-progress", "model-training"}, "all")
    assert {tick.name for tick in service.ticks} == {"overdue", "spool", "janitor"}
    assert flts.settings.service_port == 8050
