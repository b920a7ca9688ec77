from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval_container.ending import Ending
from flts.bundle.write import store_bundle
from flts.contracts.events import EvaluateRequest, Event, ModelSelected, RollbackRequest
from flts.contracts.ids import derived_event_id, derived_run_id, new_pipeline_run_id
from flts.contracts.lifecycle import RunState
from flts.errors import RejectedError
from flts.forecasting.series import Series
from tests.evaluated_runs import (
    CREATED,
    IDENTIFIER,
    Installation,
    Run,
    announced,
    autoregression,
    timestamps_bundle,
    window_bundle,
)


@pytest.fixture
def flts(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


def _only(told: list[Event]) -> ModelSelected:
    assert len(told) == 1
    assert isinstance(told[0], ModelSelected)
    return told[0]


def _champion(flts: Installation, run: Run | None = None, coefficient: float = 0.6) -> tuple[Run, ModelSelected]:
    run = run or flts.run()
    told = flts.send(run.data, flts.trained(run, "GRU", coefficient), announced(run, "LSTM", error="out of memory"))
    selected = _only(told)
    assert selected.decision == "promoted"
    return run, selected


def test_a_run_is_decided_when_the_last_expected_type_is_final(flts: Installation) -> None:
    run = flts.run()

    assert flts.send(run.data) == []
    assert flts.send(flts.trained(run, "GRU", 0.8)) == []
    selected = _only(flts.send(flts.trained(run, "LSTM", 0.5)))

    assert (selected.decision, selected.model_type) == ("promoted", "LSTM")
    pointer = flts.pointer()
    assert pointer is not None
    assert (pointer["model_type"], pointer["run_id"]) == ("LSTM", selected.run_id)
    assert pointer["pipeline_run_id"] == run.id
    assert flts.run_store.pointers.current_of_config(IDENTIFIER, str(run.data.config_hash)) == pointer
    outcome = flts.run_store.runs.outcome(IDENTIFIER, run.id)
    assert outcome is not None
    assert outcome["outcome"] == "promoted"
    assert flts.run_store.stages.of(IDENTIFIER, run.id)["eval"]["status"] == "done"


def test_the_scoreboard_has_every_row_measured_on_the_same_origins(flts: Installation) -> None:
    run = flts.run()

    told = flts.send(run.data, flts.trained(run, "GRU", 0.8), flts.trained(run, "LSTM", 0.5))
    board = flts.scoreboard(_only(told))

    assert [row["model_type"] for row in board["candidates"]] == ["GRU", "LSTM"]
    assert [row["name"] for row in board["references"]] == ["persistence", "seasonal-naive", "ridge", "mean"]
    assert all(row["baseline"] for row in board["references"])
    rows = [*board["candidates"], *board["references"]]
    assert {row["table"][0]["n"] for row in rows} == {board["origins"]} == {200}
    lstm, persistence = board["candidates"][1], board["references"][0]
    assert persistence["skill"] == 0
    assert lstm["skill"] == pytest.approx(1 - lstm["composite"] / persistence["composite"])
    assert lstm["composite"] == pytest.approx(0.5 * lstm["rmse"] + 0.3 * lstm["mae"] + 0.2 * lstm["mse"])
    best = next(row for row in board["references"] if row["model_type"] == board["best_baseline"])
    assert best["score"] == pytest.approx(1)
    assert lstm["score"] == pytest.approx(lstm["composite"] / best["composite"])
    assert lstm["passed"]
    assert lstm["p_value"] < 0.01


def test_a_linear_models_error_is_the_one_computed_by_hand(flts: Installation) -> None:
    series = autoregression(800, 0.5)
    run = flts.run(series)

    told = flts.send(run.data, flts.trained(run, "GRU", 0.5), announced(run, "LSTM"))
    row = flts.scoreboard(_only(told))["candidates"][0]["table"][0]

    values = series.values[:, 0]
    errors = values[600:] - (100 + 0.5 * (values[599:-1] - 100))
    assert row["rmse_raw"] == pytest.approx(float((errors**2).mean() ** 0.5), rel=1e-4)
    assert row["mae_raw"] == pytest.approx(float(abs(errors).mean()), rel=1e-4)
    spread = values[:600].max() - values[:600].min()
    assert row["rmse"] == pytest.approx(row["rmse_raw"] / spread)


def test_interval_coverage_is_measured_and_flagged_where_it_is_low(flts: Installation) -> None:
    run = flts.run()

    told = flts.send(run.data, flts.trained(run, "GRU", 0.5, width=3.0), flts.trained(run, "LSTM", 0.5, width=0.2))
    good, narrow = flts.scoreboard(_only(told))["candidates"]

    assert good["coverage"][0]["coverage"] > 0.95
    assert "coverage_low" not in {warning["code"] for warning in good["warnings"]}
    assert narrow["coverage"][0]["low"]
    assert "coverage_low" in {warning["code"] for warning in narrow["warnings"]}


def test_missing_actuals_are_left_out_and_counted(flts: Installation) -> None:
    series = autoregression(800, 0.5)
    series.values[700:710] = float("nan")
    run = flts.run(series)

    board = flts.scoreboard(_only(flts.send(run.data, flts.trained(run, "GRU"), announced(run, "LSTM"))))

    assert board["left_out_cells"] == 10
    assert board["candidates"][0]["table"][0]["n"] == 190


def test_without_context_the_first_rows_are_left_out_for_everyone(flts: Installation) -> None:
    run = flts.run(context_rows=0)

    board = flts.scoreboard(_only(flts.send(run.data, flts.trained(run, "GRU"), announced(run, "LSTM"))))

    assert board["origins"] == 200 - 4


def test_a_failed_trainer_is_named_with_its_reason_and_the_rest_decide(flts: Installation) -> None:
    run = flts.run()

    selected = _only(flts.send(run.data, announced(run, "GRU", error="out of memory"), flts.trained(run, "LSTM")))

    assert (selected.decision, selected.model_type) == ("promoted", "LSTM")
    row = flts.scoreboard(selected)["candidates"][0]
    assert (row["status"], row["reasons"]) == ("failed", [{"code": "training_failed", "message": "out of memory"}])


def test_if_all_trainers_failed_the_best_baseline_is_served_and_their_reasons_are_given(flts: Installation) -> None:
    run = flts.run()

    selected = _only(flts.send(run.data, announced(run, "GRU", error="e1"), announced(run, "LSTM", error="e2")))

    assert (selected.decision, selected.model_type) == ("promoted", "PERSISTENCE")
    why = "no model passes the gate, so the best baseline is served: PERSISTENCE"
    assert selected.reasons == [f"baseline: {why}", "training_failed: GRU: e1", "training_failed: LSTM: e2"]
    pointer = flts.pointer()
    assert pointer is not None
    assert (pointer["baseline"], pointer["horizon_steps"], pointer["score"]) == (why, 1, 1.0)
    assert pointer["run_id"] == derived_run_id(run.data.event_id, "PERSISTENCE")
    flts.store.head(pointer["bundle"]["bucket"], pointer["bundle"]["object_key"])


def test_a_success_replaces_a_failure_while_undecided(flts: Installation) -> None:
    run = flts.run()

    told = flts.send(run.data, announced(run, "GRU", error="oops"), flts.trained(run, "GRU"), announced(run, "LSTM"))

    assert _only(told).model_type == "GRU"


def test_silent_trainers_are_named_when_the_tick_asks_for_a_decision(flts: Installation) -> None:
    run = flts.run()
    flts.send(run.data, flts.trained(run, "GRU"))
    flts.clock += 400

    selected = _only(flts.send(_overdue(run)))

    assert selected.model_type == "GRU"
    row = flts.scoreboard(selected)["candidates"][1]
    assert (row["status"], row["reasons"][0]["code"]) == ("missing", "silent")


def test_a_request_for_a_run_that_eval_knows_nothing_of_changes_nothing(flts: Installation) -> None:
    run = flts.run()

    assert flts.send(_overdue(run)) == []
    assert flts.run_store.evaluations.decision(IDENTIFIER, run.id) is None


def test_trainers_may_be_faster_than_the_training_data(flts: Installation) -> None:
    run = flts.run()

    assert flts.send(flts.trained(run, "GRU"), flts.trained(run, "LSTM", 0.6)) == []
    assert _only(flts.send(run.data)).decision == "promoted"


def test_only_expected_types_are_candidates(flts: Installation) -> None:
    run = flts.run()

    told = flts.send(run.data, flts.trained(run, "OTHER"), announced(run, "GRU"), flts.trained(run, "LSTM", 0.6))

    assert _only(told).model_type == "LSTM"


def test_a_late_event_only_tells_the_decision_again(flts: Installation) -> None:
    run, selected = _champion(flts)
    before = flts.everything()

    again = _only(flts.send(flts.trained(run, "LSTM", 0.5)))

    assert again == selected
    assert flts.everything() == before


def test_of_a_random_walk_the_last_value_is_served_and_no_model_that_repeats_it(flts: Installation) -> None:
    run = flts.run(autoregression(800, 1.0))

    selected = _only(flts.send(run.data, flts.trained(run, "GRU", 0.999), flts.trained(run, "LSTM", 1.0)))

    assert (selected.decision, selected.model_type) == ("promoted", "PERSISTENCE")
    assert [reason.split(":")[0] for reason in selected.reasons] == ["baseline", "no_skill", "no_skill"]


def test_a_horizon_in_the_message_is_scored_at_every_step(flts: Installation) -> None:
    run = flts.run(_daily())
    data = run.data.model_copy(update={"horizon_steps": 24})

    selected = _only(flts.send(data, flts.trained(run, "GRU", 0.8), flts.trained(run, "LSTM", 0.5)))

    board = flts.scoreboard(selected)
    assert (board["horizon_steps"], board["score_horizons"][-1], board["origins"]) == (24, 24, 177)
    assert board["seasons"] == [24]
    assert [(block["first"], block["last"]) for block in board["blocks"]] == [
        (1, 1),
        (2, 3),
        (4, 7),
        (8, 15),
        (16, 24),
        (1, 24),
    ]
    for row in (*board["candidates"], *board["references"]):
        assert row["score"] == pytest.approx(row["blocks"][-1])
    pointer = flts.pointer()
    assert pointer is not None
    assert pointer["horizon_steps"] == 24


@pytest.mark.parametrize(("daily", "seasons"), [(True, [24]), (False, [])])
def test_the_scoreboard_has_rows_of_a_season_only_if_the_training_rows_show_it(
    flts: Installation, daily: bool, seasons: list[int]
) -> None:
    run = flts.run(_daily() if daily else None)

    selected = _only(flts.send(run.data, flts.trained(run, "GRU", 0.8), flts.trained(run, "LSTM", 0.5)))

    board = flts.scoreboard(selected)
    assert board["seasons"] == seasons
    assert [extra["steps"] for extra in board["informative"]] == sorted([10, *seasons, 60])
    assert "seasonal-naive" in {row["name"] for row in board["references"]}


def test_a_candidate_that_few_rows_can_feed_is_refused_and_the_others_are_scored_on_all(tmp_path: Path) -> None:
    flts = Installation(tmp_path)
    run = flts.run()
    bundle, model = window_bundle(run, "GRU", 0.5)
    long = replace(bundle, rows_required=150, train_hash="e" * 64)
    claim = store_bundle(flts.store, flts.settings.bucket_model_bundles, long, model)

    selected = _only(flts.send(run.data, announced(run, "GRU", bundle=claim), flts.trained(run, "LSTM", 0.6)))

    board = flts.scoreboard(selected)
    assert (board["origins"], selected.model_type) == (200, "LSTM")
    assert board["candidates"][0]["reasons"] == [
        {"code": "needs_more_rows", "message": "it needs 150 rows, which 80 of 200 origins have"}
    ]


def test_a_least_skill_below_zero_promotes_the_best_of_the_bad(tmp_path: Path) -> None:
    flts = Installation(tmp_path, gate_min_skill=-10.0)
    run = flts.run(autoregression(800, 1.0))

    assert _only(flts.send(run.data, flts.trained(run, "GRU", 0.9), announced(run, "LSTM"))).decision == "promoted"


def test_the_champion_keeps_its_place_unless_beaten(flts: Installation) -> None:
    first, champion = _champion(flts, coefficient=0.5)
    second = flts.run(autoregression(900, 0.5, seed=7))

    selected = _only(flts.send(second.data, flts.trained(second, "GRU", 0.8), announced(second, "LSTM")))

    assert (selected.decision, selected.run_id) == ("kept", champion.run_id)
    assert selected.reasons[0].startswith("champion_not_beaten")
    pointer = flts.pointer()
    assert pointer is not None
    assert pointer["pipeline_run_id"] == first.id
    board = flts.scoreboard(selected)
    assert board["champion"]["score"] < board["candidates"][0]["score"]


def test_a_better_candidate_takes_the_champions_place_and_names_it(flts: Installation) -> None:
    first, champion = _champion(flts, coefficient=0.8)
    second = flts.run(autoregression(900, 0.5, seed=7))

    selected = _only(flts.send(second.data, flts.trained(second, "GRU", 0.5), announced(second, "LSTM")))

    assert (selected.decision, selected.previous_run_id) == ("promoted", champion.run_id)
    pointer = flts.pointer()
    assert pointer is not None
    assert pointer["previous"]["pipeline_run_id"] == first.id


def test_the_same_data_announced_again_keep_the_champion(flts: Installation) -> None:
    first, champion = _champion(flts)
    second = flts.again(first)

    selected = _only(
        flts.send(second.data, announced(second, "GRU", bundle=champion.bundle), announced(second, "LSTM"))
    )

    assert selected.decision == "kept"
    assert selected.reasons[0].startswith("same_bundle")


def test_a_champion_of_other_targets_does_not_defend_its_place(flts: Installation) -> None:
    _champion(flts)
    other = flts.run(autoregression(800, 0.5, columns=("up", "wind")))

    selected = _only(flts.send(other.data, flts.trained(other, "GRU", 0.6), announced(other, "LSTM")))

    assert selected.decision == "promoted"
    assert "champion_other_targets" in {reason.split(":")[0] for reason in selected.reasons}


def test_a_champion_whose_bundle_is_damaged_does_not_defend_its_place(flts: Installation) -> None:
    _, champion = _champion(flts, coefficient=0.5)
    assert champion.bundle is not None
    flts.store.put(champion.bundle.bucket, champion.bundle.object_key.replace("bundle.json", "model.onnx"), b"x")
    second = flts.run(autoregression(900, 0.5, seed=7))

    selected = _only(flts.send(second.data, flts.trained(second, "GRU", 0.8), announced(second, "LSTM")))

    assert selected.decision == "promoted"
    assert "champion_not_loaded" in {reason.split(":")[0] for reason in selected.reasons}


def test_a_bundle_with_another_hash_is_no_candidate(flts: Installation) -> None:
    run = flts.run()
    broken = flts.trained(run, "GRU", 0.5)
    assert broken.bundle is not None
    flts.store.put(broken.bundle.bucket, broken.bundle.object_key.replace("bundle.json", "model.onnx"), b"x" * 10)

    selected = _only(flts.send(run.data, broken, flts.trained(run, "LSTM", 0.6)))

    assert selected.model_type == "LSTM"
    row = flts.scoreboard(selected)["candidates"][0]
    assert (row["status"], row["reasons"][0]["code"]) == ("unusable", "hash_mismatch")


def test_a_bundle_of_another_run_is_no_candidate(flts: Installation) -> None:
    other = flts.run(autoregression(800, 0.3, seed=3))
    run = flts.run()
    foreign = flts.trained(other, "GRU").bundle

    selected = _only(flts.send(run.data, announced(run, "GRU", bundle=foreign), flts.trained(run, "LSTM", 0.6)))

    assert selected.model_type == "LSTM"
    assert flts.scoreboard(selected)["candidates"][0]["reasons"][0]["code"] == "other_bundle"


def test_a_tie_goes_to_the_smaller_model(flts: Installation) -> None:
    run = flts.run()

    told = flts.send(run.data, flts.trained(run, "GRU", 0.5, padding=1000), flts.trained(run, "LSTM", 0.5))

    assert _only(told).model_type == "LSTM"


def test_an_older_run_that_decides_late_is_superseded_and_moves_nothing(flts: Installation) -> None:
    older = flts.run()
    newer = flts.run(autoregression(800, 0.5, seed=5))
    _champion(flts, newer)
    before = flts.pointer()

    selected = _only(flts.send(older.data, flts.trained(older, "GRU"), announced(older, "LSTM")))

    assert selected.decision == "superseded"
    assert flts.pointer() == before
    outcome = flts.run_store.runs.outcome(IDENTIFIER, older.id)
    assert outcome is not None
    assert outcome["outcome"] == "superseded"
    assert flts.send(older.data) == [selected], "told again, it is the same"


def test_a_cancelled_run_is_not_decided(flts: Installation) -> None:
    run = flts.run()
    flts.run_store.runs.put_outcome(IDENTIFIER, run.id, RunState.CANCELLED)

    assert flts.send(run.data, flts.trained(run, "GRU"), flts.trained(run, "LSTM")) == []
    assert flts.run_store.evaluations.decision(IDENTIFIER, run.id) is None


def test_identifiers_have_champions_of_their_own(flts: Installation) -> None:
    _champion(flts)
    other = flts.run(identifier="t")

    selected = _only(flts.send(other.data, flts.trained(other, "GRU", 0.8), announced(other, "LSTM")))

    assert selected.decision == "promoted"
    assert flts.pointer("t") is not None
    assert flts.pointer("t") != flts.pointer()


def test_constant_targets_are_left_out_of_the_score(flts: Installation) -> None:
    series = autoregression(800, 0.5, columns=("down", "flat"))
    series.values[:, 1] = 7
    run = flts.run(series)

    board = flts.scoreboard(_only(flts.send(run.data, flts.trained(run, "GRU"), announced(run, "LSTM"))))

    assert board["targets"] == ["down"]


def test_a_data_set_of_constants_is_served_by_its_constant_bundle(tmp_path: Path) -> None:
    flts = Installation(tmp_path, expected_model_types=("GRU", "PROPHET"))
    series = autoregression(300, 0.5)
    series.values[:] = 7
    run = flts.run(series)
    claims = [
        store_bundle(flts.store, flts.settings.bucket_model_bundles, *timestamps_bundle(run, kind))
        for kind in ("GRU", "PROPHET")
    ]

    events = [announced(run, kind, bundle=claim) for kind, claim in zip(("GRU", "PROPHET"), claims, strict=True)]
    selected = _only(flts.send(run.data, *events))

    assert (selected.decision, selected.score) == ("promoted", None)
    assert selected.reasons[0].startswith("all_constant")
    assert flts.pointer() is not None
    second = flts.again(run)
    events = [announced(second, kind, bundle=claim) for kind, claim in zip(("GRU", "PROPHET"), claims, strict=True)]
    assert _only(flts.send(second.data, *events)).decision == "kept"


def test_a_timestamps_model_that_is_the_mean_is_no_better_than_the_mean(tmp_path: Path) -> None:
    flts = Installation(tmp_path, expected_model_types=("PROPHET",))
    run = flts.run(autoregression(800, 0.0))
    claim = store_bundle(flts.store, flts.settings.bucket_model_bundles, *timestamps_bundle(run))

    selected = _only(flts.send(run.data, announced(run, "PROPHET", bundle=claim)))

    assert (selected.decision, selected.model_type) == ("promoted", "MEAN")
    row = flts.scoreboard(selected)["candidates"][0]
    assert row["skill"] == pytest.approx(0.35, abs=0.1)
    assert [reason["code"] for reason in row["reasons"]] == ["no_skill"]


def test_a_baseline_is_served_where_no_test_row_has_a_whole_window_before_it(flts: Installation) -> None:
    run = flts.run(test_rows=4, context_rows=0)

    selected = _only(flts.send(run.data, flts.trained(run, "GRU"), announced(run, "LSTM")))

    assert (selected.decision, selected.model_type) == ("promoted", "PERSISTENCE")
    board = flts.scoreboard(selected)
    assert board["origins"] == 3
    assert "needs_more_rows" in str(board["candidates"][0]["reasons"])
    persistence, ridge = (
        next(row for row in board["references"] if row["model_type"] == name) for name in ("PERSISTENCE", "RIDGE")
    )
    assert ridge["score"] != persistence["score"], "its windows reach into the training rows"


def test_origins_are_those_that_the_horizon_follows(tmp_path: Path) -> None:
    flts = Installation(tmp_path, output_seq_len=12)
    run = flts.run(test_rows=40)
    bundle, model = window_bundle(run, "GRU", 0.5)
    claim = store_bundle(
        flts.store, flts.settings.bucket_model_bundles, replace(bundle, rows_required=48, train_hash="e" * 64), model
    )

    selected = _only(flts.send(run.data, announced(run, "GRU", bundle=claim), flts.trained(run, "LSTM", 0.6)))

    # 22 of the 40 test rows have 48 rows before them, but only 11 of these have the horizon after them.
    assert flts.scoreboard(selected)["candidates"][0]["reasons"] == [
        {"code": "needs_more_rows", "message": "it needs 48 rows, which 11 of 29 origins have"}
    ]


def test_too_few_test_rows_are_refused_with_the_reason(flts: Installation) -> None:
    run = flts.run(test_rows=1, context_rows=0)

    selected = _only(flts.send(run.data, flts.trained(run, "GRU"), announced(run, "LSTM")))

    assert selected.decision == "refused"
    assert any(reason.startswith("no_test_rows") for reason in selected.reasons)


def test_thirty_test_rows_end_in_a_decision(flts: Installation) -> None:
    run = flts.run(autoregression(80, 0.5), test_rows=30, context_rows=0)

    assert _only(flts.send(run.data, flts.trained(run, "GRU"), flts.trained(run, "LSTM"))).decision in {
        "promoted",
        "refused",
    }


class TestStages:
    """A provisional champion defends no place and is no predecessor; a refitted one is compared by its judged fit."""

    def _point(self, flts: Installation, of: ModelSelected, run: str, stage: str, **other: Any) -> dict[str, Any]:
        """Move the pointer to a stage of a run, as a later release does, and return the pointer."""
        assert of.bundle is not None
        pointer = {
            "run_id": of.run_id,
            "model_type": of.model_type,
            "config_hash": of.config_hash,
            "pipeline_run_id": run,
            "bundle": of.bundle.model_dump(mode="json"),
            "stage": stage,
            **other,
        }
        assert flts.run_store.pointers.move_current(IDENTIFIER, pointer) == "moved"
        return pointer

    def _provisional(self, flts: Installation) -> tuple[Run, ModelSelected]:
        """Leave a provisional champion whose bundle a trainer announces again, and no champion."""
        run, selected = _champion(flts)
        flts.store.delete(flts.settings.promotion_bucket, f"{IDENTIFIER}/current.json")
        return run, selected

    @pytest.mark.parametrize("by", ["the run itself", "a newer run"])
    def test_a_provisional_champion_defends_no_place(self, flts: Installation, by: str) -> None:
        earlier, selected = self._provisional(flts)
        run = flts.again(earlier)
        self._point(flts, selected, run.id if by == "the run itself" else new_pipeline_run_id(), "provisional")

        told = _only(flts.send(run.data, announced(run, "GRU", bundle=selected.bundle), announced(run, "LSTM")))

        assert (told.decision, told.bundle, told.previous_run_id) == ("promoted", selected.bundle, None)
        pointer = flts.pointer()
        assert pointer is not None
        assert (pointer["pipeline_run_id"], pointer["previous"]) == (run.id, None)
        assert "stage" not in pointer

    def test_a_refused_run_leaves_the_provisional_champion_and_names_no_champion(self, flts: Installation) -> None:
        earlier, selected = self._provisional(flts)
        run = flts.again(earlier)
        provisional = self._point(flts, selected, run.id, "provisional")

        shorter = run.data.model_copy(update={"raw_test_context_rows": 230})
        told = _only(flts.send(shorter, announced(run, "GRU"), announced(run, "LSTM")))
        given_up = _only(list(Ending(flts.adapters(), flts.now).give_up(flts.again(earlier).data, None, "failed")))

        assert (told.decision, told.previous_run_id) == ("refused", None)
        assert (given_up.decision, given_up.previous_run_id) == ("refused", None)
        assert flts.pointer() == {**provisional, "previous": None}

    def test_a_provisional_champion_has_no_predecessor(self, flts: Installation) -> None:
        _, selected = self._provisional(flts)
        self._point(flts, selected, new_pipeline_run_id(), "provisional")

        told = _only(flts.send(_rollback(new_pipeline_run_id())))

        assert (told.decision, told.reasons[0].split(":")[0]) == ("refused", "no_predecessor")

    def test_a_refitted_champion_is_compared_by_its_judged_fit(self, flts: Installation) -> None:
        first, selected = _champion(flts)
        refit = flts.trained(first, "GRU", 0.5).bundle
        assert refit is not None
        refitted = self._point(flts, selected, first.id, "refitted", bundle=refit.model_dump(mode="json"))
        second = flts.again(first)

        told = _only(
            flts.send(second.data, announced(second, "GRU", bundle=selected.bundle), announced(second, "LSTM"))
        )

        assert told.decision == "kept"
        assert told.reasons[0].startswith("same_bundle")
        assert told.bundle == refit
        assert flts.pointer() == {**refitted, "previous": None}

    def test_a_rollback_returns_to_the_refitted_champion_of_a_run_under_an_id_of_its_own(
        self, flts: Installation
    ) -> None:
        first, selected = _champion(flts, coefficient=0.8)
        refit = flts.trained(first, "GRU", 0.5).bundle
        assert refit is not None
        pointer = self._point(flts, selected, first.id, "refitted", bundle=refit.model_dump(mode="json"))
        flts.run_store.evaluations.put_refit(IDENTIFIER, first.id, {"pointer": pointer})
        second, _ = _champion(flts, flts.run(autoregression(900, 0.5, seed=7)), coefficient=0.5)

        named = _only(flts.send(_rollback(new_pipeline_run_id(), of_run=first.id)))
        back = _only(flts.send(_rollback(new_pipeline_run_id())))
        again = _only(flts.send(_rollback(new_pipeline_run_id())))

        assert [told.decision for told in (named, back, again)] == ["promoted"] * 3
        assert named.bundle == again.bundle == refit
        current = flts.pointer()
        assert current is not None
        assert current["previous"]["config_hash"] == second.data.config_hash
        assert "stage" not in current


class TestEvaluateAgain:
    def test_it_copies_the_other_runs_candidates_and_decides_a_run_of_its_own(self, flts: Installation) -> None:
        first, _ = _champion(flts)
        name = new_pipeline_run_id()

        selected = _only(flts.send(_evaluate(name, of_run=first.id)))

        assert (selected.pipeline_run_id, selected.decision) == (name, "kept")
        assert set(flts.run_store.evaluations.trained(IDENTIFIER, name)) == {"GRU", "LSTM"}
        assert flts.run_store.evaluations.decision(IDENTIFIER, first.id) != flts.run_store.evaluations.decision(
            IDENTIFIER, name
        )

    def test_it_promotes_what_the_champion_no_longer_beats(self, flts: Installation, tmp_path: Path) -> None:
        first = flts.run()
        strict = Installation(tmp_path, gate_min_skill=0.99)
        refused = _only(strict.send(first.data, flts.trained(first, "GRU"), announced(first, "LSTM")))
        name = new_pipeline_run_id()

        selected = _only(flts.send(_evaluate(name, of_run=first.id)))

        assert (refused.model_type, selected.model_type) == ("PERSISTENCE", "GRU")
        pointer = flts.pointer()
        assert pointer is not None
        assert pointer["pipeline_run_id"] == name

    def test_a_run_without_candidates_is_refused(self, flts: Installation) -> None:
        selected = _only(flts.send(_evaluate(new_pipeline_run_id(), of_run=new_pipeline_run_id())))

        assert selected.decision == "refused"
        assert selected.reasons[0].startswith("nothing_to_evaluate")


class TestRollback:
    def _two_champions(self, flts: Installation) -> tuple[Run, ModelSelected, Run, ModelSelected]:
        first, old = _champion(flts, coefficient=0.8)
        second, new = _champion(flts, flts.run(autoregression(900, 0.5, seed=7)), coefficient=0.5)
        return first, old, second, new

    def test_it_returns_to_the_predecessor_and_moves_the_pointer_forward(self, flts: Installation) -> None:
        _, old, second, new = self._two_champions(flts)
        name = new_pipeline_run_id()

        selected = _only(flts.send(_rollback(name)))

        assert (selected.decision, selected.run_id, selected.bundle) == ("promoted", old.run_id, old.bundle)
        assert selected.reasons[0].startswith("rollback")
        pointer = flts.pointer()
        assert pointer is not None
        assert (pointer["pipeline_run_id"], pointer["run_id"]) == (name, old.run_id)
        assert pointer["previous"]["pipeline_run_id"] == second.id
        assert selected.previous_run_id == new.run_id

    def test_it_returns_to_the_champion_of_a_named_run(self, flts: Installation) -> None:
        first, old, _, _ = self._two_champions(flts)

        selected = _only(flts.send(_rollback(new_pipeline_run_id(), of_run=first.id)))

        assert selected.run_id == old.run_id

    def test_repeated_it_does_not_go_back_and_forth(self, flts: Installation) -> None:
        self._two_champions(flts)
        request = _rollback(new_pipeline_run_id())
        selected = _only(flts.send(request))
        before = flts.everything()

        assert flts.send(request, request) == [selected, selected]
        assert flts.everything() == before

    def test_without_a_predecessor_it_is_refused(self, flts: Installation) -> None:
        _champion(flts)

        selected = _only(flts.send(_rollback(new_pipeline_run_id())))

        assert (selected.decision, selected.reasons[0].split(":")[0]) == ("refused", "no_predecessor")

    def test_a_champion_whose_bundle_is_damaged_is_not_returned_to(self, flts: Installation) -> None:
        _, old, second, _ = self._two_champions(flts)
        assert old.bundle is not None
        flts.store.put(old.bundle.bucket, old.bundle.object_key, b"{}")

        selected = _only(flts.send(_rollback(new_pipeline_run_id())))

        assert (selected.decision, selected.reasons[0].split(":")[0]) == ("refused", "bundle_not_loaded")
        pointer = flts.pointer()
        assert pointer is not None
        assert pointer["pipeline_run_id"] == second.id


def test_a_run_that_cannot_be_decided_is_refused_after_the_last_try(flts: Installation) -> None:
    run = flts.run()
    event = flts.trained(run, "GRU")
    flts.send(run.data, event)

    told = Ending(flts.adapters(), flts.now).give_up(event, None, "the test rows are gone")

    assert _only(list(told)).reasons[0].startswith("evaluation_failed")
    outcome = flts.run_store.runs.outcome(IDENTIFIER, run.id)
    assert outcome is not None
    assert outcome["outcome"] == "refused"


def test_a_run_whose_rows_violate_a_bound_is_not_decided(tmp_path: Path) -> None:
    flts = Installation(tmp_path, lower_bound="none", upper_bound="-1e6")
    run = flts.run()
    flts.send(run.data, flts.trained(run, "GRU"))

    with pytest.raises(RejectedError, match=r"UPPER_BOUND is -1000000, and .* in the training rows") as refused:
        flts.send(announced(run, "LSTM"))

    assert (refused.value.code, refused.value.field) == ("bad_setting", "UPPER_BOUND")


def test_giving_up_on_a_decided_run_tells_its_decision(flts: Installation) -> None:
    run, selected = _champion(flts)

    assert Ending(flts.adapters(), flts.now).give_up(run.data, None, "whatever") == [selected]


def _daily() -> Series:
    """Return an autoregression with a wave of a day."""
    series = autoregression(800, 0.5)
    wave = 3 * np.sin(2 * np.pi * np.arange(len(series)) / 24)
    return replace(series, values=series.values + wave[:, None])


def _overdue(run: Run) -> EvaluateRequest:
    return _evaluate(run.id, of_run=run.id)


def _evaluate(run: str, *, of_run: str) -> EvaluateRequest:
    return EvaluateRequest(
        event_id=derived_event_id(run, "request"),
        identifier=IDENTIFIER,
        pipeline_run_id=run,
        created_at=CREATED,
        of_run=of_run,
    )


def _rollback(run: str, *, of_run: str | None = None) -> RollbackRequest:
    return RollbackRequest(
        event_id=derived_event_id(run, "request"),
        identifier=IDENTIFIER,
        pipeline_run_id=run,
        created_at=CREATED,
        of_run=of_run,
    )
