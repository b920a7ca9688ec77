from __future__ import annotations

import hashlib
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from eval_container.ending import Ending
from eval_container.handler import DecideRun
from flts.contracts.champion_stage import ChampionStage, selected_event_id
from flts.contracts.events import Event, ModelSelected
from flts.contracts.ids import derived_event_id, new_pipeline_run_id
from flts.contracts.lifecycle import RunState
from flts.errors import BackendAwayError
from tests.dying_store import DyingStore, KilledError
from tests.evaluated_runs import (
    CREATED,
    IDENTIFIER,
    Installation,
    Recorder,
    Run,
    announced,
    autoregression,
    no_progress,
)


@pytest.fixture
def flts(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


def _events(flts: Installation, run: Run) -> list[Event]:
    return [run.data, flts.trained(run, "GRU", 0.7), flts.trained(run, "LSTM", 0.5)]


def _decisions(flts: Installation, run: Run) -> list[str]:
    listed = flts.store.list(flts.settings.bucket_pipeline_runs, f"{IDENTIFIER}/{run.id}/decision")
    return [info.key for info in listed]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_write_the_repeat_ends_in_one_same_decision(flts: Installation, after: bool) -> None:
    champion = flts.run(autoregression(700, 0.5, seed=9))
    flts.send(champion.data, flts.trained(champion, "GRU", 0.9), announced(champion, "LSTM"))
    template = flts.run()
    survived = False
    for at_write in range(1, 40):
        run = flts.again(template)
        *first, last = _events(flts, run)
        flts.send(*first)
        dying = DyingStore(flts.store, at_write=at_write, after=after)
        try:
            flts.handler(dying)(last, no_progress)
            survived = True
        except KilledError:
            pass

        told = flts.send(last)

        assert len(told) == 1, at_write
        assert isinstance(told[0], ModelSelected)
        assert len(_decisions(flts, run)) == 1
        outcome = flts.run_store.runs.outcome(IDENTIFIER, run.id)
        assert outcome is not None
        assert outcome["outcome"] == told[0].decision == ("promoted" if at_write == 1 else "kept")
        pointer = flts.pointer()
        assert pointer is not None
        assert pointer["model_type"] == "LSTM"
        assert flts.run_store.stages.of(IDENTIFIER, run.id)["eval"]["status"] == "done"
        assert run.id not in {name.pipeline_run_id for name in flts.run_store.runs.unfinished()}
        assert flts.send(*_events(flts, run)) == told * 3
        if survived:
            break
    assert survived
    assert at_write > 6, "the decision, pointers, outcome and stage are writes of their own"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_write_of_a_promotion_the_pointer_is_moved_once(tmp_path: Path, after: bool) -> None:
    for at_write in range(1, 40):
        flts = Installation(tmp_path / str(at_write))
        run = flts.run(autoregression(200, 0.5), test_rows=100)
        *first, last = _events(flts, run)
        flts.send(*first)
        dying = DyingStore(flts.store, at_write=at_write, after=after)
        killed = False
        try:
            flts.handler(dying)(last, no_progress)
        except KilledError:
            killed = True

        told = flts.send(last)

        assert [event.decision for event in told if isinstance(event, ModelSelected)] == ["promoted"]
        pointer = flts.pointer()
        assert pointer is not None
        assert (pointer["pipeline_run_id"], pointer["previous"]) == (run.id, None)
        assert flts.run_store.pointers.current_of_config(IDENTIFIER, str(run.data.config_hash)) == pointer
        outcome = flts.run_store.runs.outcome(IDENTIFIER, run.id)
        assert outcome is not None
        assert outcome["outcome"] == "promoted"
        if not killed:
            return
    pytest.fail("it never survived")


def test_replayed_three_times_in_random_order_a_finished_run_changes_nothing(flts: Installation) -> None:
    run = flts.run()
    events = _events(flts, run)
    told = flts.send(*events)
    before = flts.everything()

    for seed in range(3):
        order = events * 3
        random.Random(seed).shuffle(order)
        assert flts.send(*order) == told * 9

    assert flts.everything() == before


@pytest.mark.parametrize("seed", range(4))
def test_in_any_order_and_repeated_the_first_time_the_decision_is_the_same(flts: Installation, seed: int) -> None:
    run = flts.run()
    order = _events(flts, run) * 3
    random.Random(seed).shuffle(order)

    told = flts.send(*order)

    assert {
        (event.decision, event.model_type, event.event_id) for event in told if isinstance(event, ModelSelected)
    } == {("promoted", "LSTM", told[0].event_id)}
    assert len(_decisions(flts, run)) == 1


def test_two_evals_at_once_make_one_decision(flts: Installation) -> None:
    run = flts.run()
    *first, last = _events(flts, run)
    flts.send(*first)
    handlers = [flts.handler() for _ in range(2)]
    told: list[Event] = []

    def decide(handler: DecideRun) -> None:
        told.extend(handler(last, no_progress))

    threads = [threading.Thread(target=decide, args=(handler,)) for handler in handlers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(told) == 2
    assert told[0] == told[1]
    assert len(_decisions(flts, run)) == 1


def test_killed_after_the_move_and_overtaken_it_still_was_a_promotion(flts: Installation) -> None:
    older = flts.run()
    *first, last = _events(flts, older)
    flts.send(*first)
    newer = flts.run(autoregression(900, 0.9, seed=3))

    class DiesAfterTheMove(DyingStore):
        def put(self, bucket: str, key: str, *arguments: Any, **options: Any) -> Any:
            info = self._store.put(bucket, key, *arguments, **options)
            if key == f"{IDENTIFIER}/current.json":
                raise KilledError
            return info

    with pytest.raises(KilledError):
        flts.handler(DiesAfterTheMove(flts.store, at_write=0, after=True))(last, no_progress)
    flts.send(newer.data, flts.trained(newer, "GRU", 0.9), announced(newer, "LSTM"))
    current = flts.pointer()
    assert current is not None

    told = flts.send(last)

    assert isinstance(told[0], ModelSelected)
    assert current["pipeline_run_id"] == newer.id
    assert told[0].decision == "promoted"
    assert flts.pointer() == current


def test_a_store_that_is_away_is_said_so_and_no_decision_is_made(flts: Installation) -> None:
    run = flts.run()
    *first, last = _events(flts, run)
    flts.send(*first)

    class Away(DyingStore):
        def stream(self, *_: Any, **__: Any) -> Any:
            msg = "no answer"
            raise BackendAwayError(msg)

        get = stream

    with pytest.raises(BackendAwayError):
        flts.handler(Away(flts.store, at_write=0, after=True))(last, no_progress)

    assert _decisions(flts, run) == []


def test_mlflow_is_told_each_candidates_test_metrics_and_the_champion(flts: Installation) -> None:
    flts.tracker = Recorder()
    run = flts.run()
    events = _events(flts, run)

    told = flts.send(*events)

    assert isinstance(told[0], ModelSelected)
    board = flts.scoreboard(told[0])
    by_run = {row["run_id"]: row for row in board["candidates"]}
    assert flts.tracker.metrics.keys() == by_run.keys()
    assert flts.tracker.metrics[told[0].run_id] == {
        "test_rmse": told[0].rmse,
        "test_mae": told[0].mae,
        "test_mse": told[0].mse,
        "test_loss": told[0].score,
        "test_skill": by_run[told[0].run_id]["skill"],
    }
    assert flts.tracker.artifacts[told[0].run_id] == ["scoreboard.json"]
    assert flts.tracker.champions == [(IDENTIFIER, told[0].run_id)]
    flts.send(*events)
    assert len(flts.tracker.champions) == 1, "a finished run is not recorded again"


def test_a_refused_run_moves_no_alias(flts: Installation) -> None:
    flts.tracker = Recorder()
    run = flts.run(test_rows=1, context_rows=0)

    flts.send(run.data, flts.trained(run, "GRU", 1.0), announced(run, "LSTM"))

    assert flts.tracker.champions == []


def test_each_decision_is_counted_once(flts: Installation) -> None:
    run = flts.run()
    events = _events(flts, run)

    flts.send(*events, *events)

    assert 'flts_promotions_total{decision="promoted"} 1.0' in flts.metrics.text().decode()


@pytest.mark.parametrize("pointer", [b"no json", b"[]", b'{"run_id": 5}'])
def test_a_run_that_is_given_up_ends_even_if_the_champions_pointer_is_broken(
    flts: Installation, pointer: bytes
) -> None:
    run = flts.run()
    flts.store.put(flts.settings.promotion_bucket, f"{IDENTIFIER}/current.json", pointer)

    told = Ending(flts.adapters(), flts.now).give_up(run.data, None, "a broken pointer")

    assert [event.decision for event in told if isinstance(event, ModelSelected)] == ["refused"]
    assert isinstance(told[0], ModelSelected)
    assert told[0].previous_run_id is None
    assert [reason.partition(":")[0] for reason in told[0].reasons] == ["evaluation_failed", "pointer_unreadable"]
    outcome = flts.run_store.runs.outcome(IDENTIFIER, run.id)
    assert outcome is not None
    assert outcome["outcome"] == "refused"


def test_a_promotion_that_comes_again_after_a_newer_one_does_not_move_the_alias_back(flts: Installation) -> None:
    flts.tracker = Recorder()
    older = flts.run()
    events = _events(flts, older)
    flts.send(*events)
    pointer = flts.pointer()
    assert pointer is not None
    newer = flts.again(older)
    assert flts.run_store.pointers.move_current(IDENTIFIER, {**pointer, "pipeline_run_id": newer.id}) == "moved"
    flts.store.delete(flts.settings.bucket_pipeline_runs, f"{IDENTIFIER}/{older.id}/outcome.json")
    flts.tracker.champions.clear()

    told = flts.send(events[-1])

    assert [event.decision for event in told if isinstance(event, ModelSelected)] == ["promoted"]
    assert flts.tracker.champions == []


@pytest.mark.parametrize("known", [{"cancelled"}, set()], ids=["", "stored before there was a field for it"])
@pytest.mark.parametrize("ended", [False, True], ids=["killed before the outcome", "ended"])
def test_a_run_that_was_cancelled_first_is_adopted_as_cancelled(
    flts: Installation, ended: bool, known: set[str]
) -> None:
    run = flts.run()
    *first, last = _events(flts, run)
    flts.send(*first)
    cancelled = ModelSelected(
        event_id=derived_event_id(run.id, "promotion"),
        identifier=IDENTIFIER,
        pipeline_run_id=run.id,
        created_at=CREATED,
        decision="refused",
        reasons=["cancelled: a person cancelled it"],
        cancelled=True,
    )
    document = cancelled.model_dump(mode="json", exclude={"cancelled"} - known)
    flts.run_store.evaluations.decide(IDENTIFIER, run.id, {**document, "pointer": None})
    if ended:
        flts.run_store.runs.put_outcome(IDENTIFIER, run.id, RunState.CANCELLED, reason="a person cancelled it")

    told = flts.send(last, last)

    assert told == []
    assert flts.pointer() is None
    outcome = flts.run_store.runs.outcome(IDENTIFIER, run.id)
    assert outcome is not None
    assert (outcome["outcome"], outcome["reason"]) == ("cancelled", "a person cancelled it")


class TestStages:
    """Eval carries out the records of provisional and refitted champions."""

    @pytest.fixture
    def champion(self, flts: Installation) -> ModelSelected:
        flts.tracker = Recorder()
        run = flts.run()
        [told] = flts.send(*_events(flts, run))
        assert isinstance(told, ModelSelected)
        return told

    def _record(self, event: ModelSelected, stage: ChampionStage, run: str | None = None) -> dict[str, Any]:
        """Return the record of a stage, for the run of an event or for another run."""
        run = run or event.pipeline_run_id
        changed: dict[str, Any] = {
            "event_id": selected_event_id(run, stage),
            "pipeline_run_id": run,
            "run_id": hashlib.md5(stage.encode(), usedforsecurity=False).hexdigest(),
            "stage": stage,
        }
        selected = event.model_copy(update=changed).model_dump(mode="json")
        fields = ("run_id", "model_type", "config_hash", "pipeline_run_id", "bundle", "stage")
        return {**selected, "pointer": {name: selected[name] for name in fields}}

    def _ending(self, flts: Installation) -> Ending:
        return Ending(flts.adapters(), flts.now)

    def test_a_refitted_champion_moves_pointers_and_alias_and_is_no_promotion(
        self, flts: Installation, champion: ModelSelected
    ) -> None:
        before = flts.pointer()
        outcome = flts.run_store.runs.outcome(IDENTIFIER, champion.pipeline_run_id)
        record = self._record(champion, "refitted")

        told = self._ending(flts).carry_out(record)

        assert [event.event_id for event in told] == [selected_event_id(champion.pipeline_run_id, "refitted")]
        pointer = flts.pointer()
        assert before is not None
        assert pointer == {**record["pointer"], "previous": before["previous"]}
        assert flts.run_store.pointers.current_of_config(IDENTIFIER, str(champion.config_hash)) == pointer
        assert flts.tracker.champions == [(IDENTIFIER, champion.run_id), (IDENTIFIER, record["run_id"])]
        assert 'flts_promotions_total{decision="promoted"} 1.0' in flts.metrics.text().decode()
        assert flts.run_store.runs.outcome(IDENTIFIER, champion.pipeline_run_id) == outcome
        assert self._ending(flts).carry_out(record) == told
        assert flts.pointer() == pointer

    def test_a_provisional_champion_moves_the_pointer_only_where_there_is_no_champion(
        self, flts: Installation, champion: ModelSelected
    ) -> None:
        alone = champion.model_copy(update={"identifier": "alone"})
        record = self._record(alone, "provisional", new_pipeline_run_id())
        beside = self._record(champion, "provisional", new_pipeline_run_id())
        before = flts.pointer()

        [told] = self._ending(flts).carry_out(record)

        assert isinstance(told, ModelSelected)
        assert (told.stage, told.identifier) == ("provisional", "alone")
        assert flts.pointer("alone") == {**record["pointer"], "previous": None}
        assert self._ending(flts).carry_out(beside) == []
        assert flts.pointer() == before
        assert flts.tracker.champions == [(IDENTIFIER, champion.run_id)]
        assert 'flts_promotions_total{decision="promoted"} 1.0' in flts.metrics.text().decode()

    def test_a_decision_that_is_repeated_after_the_refit_changes_nothing(
        self, flts: Installation, champion: ModelSelected
    ) -> None:
        run = champion.pipeline_run_id
        refit = self._record(champion, "refitted")
        self._ending(flts).carry_out(refit)
        pointer = flts.pointer()
        flts.store.delete(flts.settings.bucket_pipeline_runs, f"{IDENTIFIER}/{run}/outcome.json")
        flts.tracker.champions.clear()
        decision = flts.run_store.evaluations.decision(IDENTIFIER, run)
        assert decision is not None

        told = self._ending(flts).finish(decision)

        assert told == [champion]
        assert flts.pointer() == pointer
        assert flts.tracker.champions == []
        assert flts.run_store.runs.end(IDENTIFIER, run) is RunState.PROMOTED

    def test_a_refit_that_a_newer_run_replaced_before_its_repeat_was_one(
        self, flts: Installation, champion: ModelSelected
    ) -> None:
        refit = self._record(champion, "refitted")
        told = self._ending(flts).carry_out(refit)
        newer = self._record(champion, "decided", new_pipeline_run_id())
        assert flts.run_store.pointers.move_current(IDENTIFIER, newer["pointer"]) == "moved"

        assert self._ending(flts).carry_out(refit) == told
        current = flts.pointer()
        assert current is not None
        assert current["pipeline_run_id"] == newer["pipeline_run_id"]

    def test_a_refit_after_a_newer_run_was_promoted_is_none(self, flts: Installation, champion: ModelSelected) -> None:
        newer = self._record(champion, "decided", new_pipeline_run_id())
        assert flts.run_store.pointers.move_current(IDENTIFIER, newer["pointer"]) == "moved"

        assert self._ending(flts).carry_out(self._record(champion, "refitted")) == []

        current = flts.pointer()
        assert current is not None
        assert current["pipeline_run_id"] == newer["pipeline_run_id"]
