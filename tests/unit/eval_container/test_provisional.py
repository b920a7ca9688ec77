"""A data set without champion has a provisional one as soon as the trainer of the baselines is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flts.contracts.champion_stage import selected_event_id
from flts.contracts.events import EvaluateRequest, Event, ModelSelected, ModelTraining
from flts.contracts.ids import derived_event_id, new_pipeline_run_id
from flts.contracts.lifecycle import RunState
from flts.forecasting.grid import FixedGrid
from flts.forecasting.series import Series
from flts.trainers import BASELINES
from tests.direct_models import made_series
from tests.dying_store import DyingStore, KilledError
from tests.early_models import baselines, linear
from tests.evaluated_runs import (
    CREATED,
    IDENTIFIER,
    STEP_SECONDS,
    Installation,
    Recorder,
    Run,
    announced,
    autoregression,
    no_progress,
)

HORIZON = 12


@pytest.fixture
def flts(tmp_path: Path) -> Installation:
    return installation(tmp_path)


def installation(folder: Path, *, waits_for: tuple[str, ...] = ("GRU", "LINEAR")) -> Installation:
    return Installation(folder, expected_model_types=waits_for, output_seq_len=HORIZON)


def daily() -> Series:
    return made_series(FixedGrid(3_600), 500, 24, 475_000, 2)


def early_events(flts: Installation, run: Run) -> list[ModelTraining]:
    """Return the events of the trainer of the baselines, and record its stage, as it does before it publishes."""
    made = baselines(flts, run, HORIZON)
    bundles = {event.model_type: None for event in made}
    flts.run_store.stages.put(IDENTIFIER, run.id, "nonml-baseline", "done", bundles=bundles)
    return [linear(flts, run, HORIZON), *made]


def only(told: list[Event]) -> ModelSelected:
    [event] = told
    assert isinstance(event, ModelSelected)
    return event


def provisional_of(flts: Installation, run: Run) -> dict[str, Any] | None:
    return flts.run_store.evaluations.provisional(IDENTIFIER, run.id)


def test_the_process_that_proves_bundles_starts_with_the_training_rows(
    flts: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[None] = []
    monkeypatch.setattr("flts.bundle.proof.warm_up", lambda: started.append(None))
    run = flts.run(daily())
    result = announced(run, "GRU", error="out of memory")

    assert flts.send(result) == []
    assert started == []
    assert flts.send(run.data) == []
    assert len(started) == 1

    flts.send(*early_events(flts, run))
    assert flts.run_store.evaluations.decision(IDENTIFIER, run.id) is not None
    flts.send(run.data)
    assert len(started) == 1, "a decided run proves no bundle"


def test_the_last_result_of_the_baselines_trainer_makes_a_provisional_champion(flts: Installation) -> None:
    flts.tracker = Recorder()
    run = flts.run(daily())
    *first, last = early_events(flts, run)

    assert flts.send(run.data, *first) == []
    selected = only(flts.send(last))

    assert (selected.stage, selected.decision, selected.model_type) == ("provisional", "promoted", "LINEAR")
    assert selected.event_id == selected_event_id(run.id, "provisional") != selected_event_id(run.id)
    assert (selected.run_id, selected.bundle, selected.previous_run_id) == (first[0].run_id, first[0].bundle, None)
    board = flts.scoreboard(selected)
    assert [row["model_type"] for row in board["candidates"]] == ["LINEAR"]
    assert board["candidates"][0]["score"] == selected.score
    pointer = flts.pointer()
    assert pointer is not None
    assert (pointer["stage"], pointer["pipeline_run_id"], pointer["previous"]) == ("provisional", run.id, None)
    assert (pointer["model_type"], pointer["score"]) == ("LINEAR", selected.score)
    assert (pointer["horizon_steps"], pointer["baseline"]) == (HORIZON, None)
    assert flts.run_store.pointers.current_of_config(IDENTIFIER, str(run.data.config_hash)) == pointer
    record = provisional_of(flts, run)
    assert record is not None
    assert ModelSelected.model_validate(record) == selected
    assert {**record["pointer"], "previous": None} == pointer


def test_a_provisional_champion_is_no_promotion_and_the_run_goes_on(flts: Installation) -> None:
    flts.tracker = Recorder()
    run = flts.run(daily())

    flts.send(run.data, *early_events(flts, run))

    assert flts.run_store.evaluations.decision(IDENTIFIER, run.id) is None
    assert flts.run_store.runs.end(IDENTIFIER, run.id) is None
    assert "eval" not in flts.run_store.stages.of(IDENTIFIER, run.id)
    assert "flts_promotions_total{" not in flts.metrics.text().decode()
    assert (flts.tracker.champions, flts.tracker.runs, flts.tracker.metrics) == ([], [], {})


def test_the_decision_replaces_the_provisional_champion_and_names_no_predecessor(flts: Installation) -> None:
    flts.tracker = Recorder()
    run = flts.run(daily())
    provisional = only(flts.send(run.data, *early_events(flts, run)))

    decided = only(flts.send(flts.trained(run, "GRU", 0.9)))

    assert (decided.stage, decided.decision, decided.previous_run_id) == (None, "promoted", None)
    assert decided.score == provisional.score, "LINEAR is judged on the same rows"
    pointer = flts.pointer()
    assert pointer is not None
    assert ("stage" in pointer, pointer["pipeline_run_id"], pointer["previous"]) == (False, run.id, None)
    assert flts.tracker.champions == [(IDENTIFIER, decided.run_id)]
    assert 'flts_promotions_total{decision="promoted"} 1.0' in flts.metrics.text().decode()
    assert only(flts.send(flts.trained(run, "GRU", 0.9))) == decided, "the provisional event is not sent again"


@pytest.mark.parametrize("left_out", ["LINEAR", *BASELINES])
def test_eval_waits_for_each_model_that_the_trainer_made(flts: Installation, left_out: str) -> None:
    run = flts.run(daily())
    events = early_events(flts, run)
    *others, last = sorted(events, key=lambda event: event.model_type == left_out)

    assert flts.send(run.data, *others) == []
    assert only(flts.send(last)).stage == "provisional"


def test_a_baseline_that_the_data_do_not_allow_is_not_awaited(flts: Installation) -> None:
    run = flts.run(daily())
    events = [event for event in early_events(flts, run) if event.model_type in {"LINEAR", "PERSISTENCE", "MEAN"}]
    made = dict.fromkeys(("PERSISTENCE", "MEAN"))
    flts.store.delete(flts.settings.bucket_pipeline_runs, f"{IDENTIFIER}/{run.id}/stages/nonml-baseline.json")
    flts.run_store.stages.put(IDENTIFIER, run.id, "nonml-baseline", "done", bundles=made)

    assert only(flts.send(run.data, *events)).stage == "provisional"


def test_results_of_other_trainers_do_not_send_the_provisional_champion_again(tmp_path: Path) -> None:
    flts = installation(tmp_path, waits_for=("GRU", "LSTM", "LINEAR"))
    run = flts.run(daily())
    *first, last = early_events(flts, run)
    flts.send(run.data, *first)
    provisional = only(flts.send(last))

    assert flts.send(flts.trained(run, "GRU", 0.9)) == []
    assert only(flts.send(last)) == provisional, "a repeat of the message that made it does"


def test_where_linear_failed_the_best_baseline_is_provisional(flts: Installation) -> None:
    run = flts.run(autoregression(500, 1.0))
    [_, *others] = early_events(flts, run)

    selected = only(flts.send(run.data, announced(run, "LINEAR", error="too few rows"), *others))

    assert (selected.stage, selected.model_type) == ("provisional", "PERSISTENCE")
    assert "training_failed: LINEAR: too few rows" in selected.reasons
    pointer = flts.pointer()
    assert pointer is not None
    assert pointer["baseline"] == "no model passes the gate, so the best baseline is served: PERSISTENCE"


def test_a_run_that_does_not_wait_for_linear_serves_the_best_baseline(tmp_path: Path) -> None:
    flts = installation(tmp_path, waits_for=("GRU",))
    run = flts.run(autoregression(500, 1.0))

    assert only(flts.send(run.data, *early_events(flts, run))).model_type == "PERSISTENCE"


def test_a_run_whose_types_are_all_final_is_decided_at_once(tmp_path: Path) -> None:
    flts = installation(tmp_path, waits_for=("LINEAR",))
    run = flts.run(daily())

    [selected, *repeats] = flts.send(run.data, *early_events(flts, run))

    assert isinstance(selected, ModelSelected)
    assert selected.stage is None
    assert repeats == [selected] * len(BASELINES)
    assert provisional_of(flts, run) is None


def test_a_data_set_with_a_champion_has_no_provisional_one(flts: Installation) -> None:
    earlier = flts.run(daily())
    flts.send(earlier.data, flts.trained(earlier, "GRU", 0.9), linear(flts, earlier, HORIZON))
    champion = flts.pointer()
    assert champion is not None
    run = flts.again(earlier)

    assert flts.send(run.data, *early_events(flts, run)) == []

    assert flts.pointer() == champion
    assert provisional_of(flts, run) is None


def test_a_newer_run_replaces_the_provisional_champion_and_an_older_run_does_not(flts: Installation) -> None:
    older = flts.run(daily())
    middle, newer = flts.again(older), flts.again(older)
    assert only(flts.send(middle.data, *early_events(flts, middle))).pipeline_run_id == middle.id

    assert flts.send(older.data, *early_events(flts, older)) == []
    assert provisional_of(flts, older) is None
    assert only(flts.send(newer.data, *early_events(flts, newer))).pipeline_run_id == newer.id

    pointer = flts.pointer()
    assert pointer is not None
    assert (pointer["pipeline_run_id"], pointer["previous"]) == (newer.id, None)


@pytest.mark.parametrize("fault", ["constant", "no test rows", "no bundle of the data"])
def test_where_nothing_can_be_scored_there_is_none_and_the_run_goes_on(flts: Installation, fault: str) -> None:
    if fault == "constant":
        values = np.full((500, 1), 7.0)
        run = flts.run(Series(STEP_SECONDS * np.arange(500), ("down",), values, FixedGrid(STEP_SECONDS)))
        events = [announced(run, kind, error="constant") for kind in ("LINEAR", "PERSISTENCE")]
    else:
        run = flts.run(daily(), test_rows=200 if fault == "no bundle of the data" else 3)
        events = early_events(flts, run)
    if fault == "no bundle of the data":
        flts.store.delete(run.data.meta.bucket, run.data.meta.object_key)

    assert flts.send(run.data, *events) == []

    assert (provisional_of(flts, run), flts.pointer()) == (None, None)
    assert flts.run_store.runs.end(IDENTIFIER, run.id) is None


def test_a_broken_pointer_ends_no_run_early(flts: Installation) -> None:
    run = flts.run(daily())
    flts.store.put(flts.settings.promotion_bucket, f"{IDENTIFIER}/current.json", b"no json")

    assert flts.send(run.data, *early_events(flts, run)) == []


def test_models_of_another_run_that_are_judged_again_make_no_provisional_champion(flts: Installation) -> None:
    run = flts.run(daily())
    flts.send(run.data, *early_events(flts, run))
    name = new_pipeline_run_id()
    request = EvaluateRequest(
        event_id=derived_event_id(name, "evaluate"),
        identifier=IDENTIFIER,
        pipeline_run_id=name,
        created_at=CREATED,
        of_run=run.id,
    )

    selected = only(flts.send(request))

    assert selected.stage is None
    assert flts.run_store.evaluations.provisional(IDENTIFIER, name) is None


@pytest.mark.parametrize("by", ["a decision", "an outcome"])
def test_a_run_that_ends_while_eval_judges_gets_no_provisional_champion(flts: Installation, by: str) -> None:
    run = flts.run(daily())
    *first, last = early_events(flts, run)
    flts.send(run.data, *first)

    def end_the_run(*_: object, **__: object) -> None:
        if by == "a decision":
            flts.run_store.evaluations.decide(IDENTIFIER, run.id, {"decision": "refused", "cancelled": True})
        else:
            flts.run_store.runs.put_outcome(IDENTIFIER, run.id, RunState.CANCELLED, reason="a person cancelled it")

    assert list(flts.handler()(last, end_the_run)) == []

    assert (provisional_of(flts, run), flts.pointer()) == (None, None)
    scoreboards = flts.store.list(flts.settings.bucket_pipeline_runs, f"{IDENTIFIER}/{run.id}/scoreboard")
    assert list(scoreboards) == []


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_write_the_repeat_ends_in_one_record_pointer_and_event(tmp_path: Path, after: bool) -> None:
    for at_write in range(1, 20):
        flts = installation(tmp_path / str(at_write))
        run = flts.run(autoregression(200, 0.5), test_rows=60)
        *first, last = early_events(flts, run)
        flts.send(run.data, *first)
        dying = DyingStore(flts.store, at_write=at_write, after=after)
        killed = False
        try:
            flts.handler(dying)(last, no_progress)
        except KilledError:
            killed = True
        left = provisional_of(flts, run)

        told = only(flts.send(last))

        record, pointer = provisional_of(flts, run), flts.pointer()
        assert record is not None
        assert left in (None, record), "a record that exists is adopted"
        assert ModelSelected.model_validate(record) == told
        assert pointer == {**record["pointer"], "previous": None}
        assert flts.run_store.pointers.current_of_config(IDENTIFIER, str(run.data.config_hash)) == pointer
        before = flts.everything()
        assert only(flts.send(last)) == told
        assert flts.everything() == before
        if not killed:
            assert at_write > 4, "the scoreboard, the record and both pointers are writes of their own"
            return
    pytest.fail("it never survived")
