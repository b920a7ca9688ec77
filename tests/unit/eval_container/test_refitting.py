"""A promoted model is fitted again: eval requests the refit, compares it and moves the pointer, or keeps the judged."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval_container.bootstrap import build_service
from eval_container.ending import Ending
from flts.bundle.arrays import INTERVALS, PROBE
from flts.bundle.format import Bundle
from flts.bundle.load import fetch_bundle
from flts.bundle.write import store_bundle
from flts.contracts.champion_stage import selected_event_id
from flts.contracts.claim_check import ClaimCheck
from flts.contracts.events import Event, ModelRefit, ModelSelected, RefitRequest, RollbackRequest
from flts.contracts.ids import derived_event_id, new_pipeline_run_id
from flts.contracts.lifecycle import RunState
from flts.training.onnx_file import with_arrays
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
    timestamps_bundle,
    window_bundle,
)

GRU, WORSE = 0.5, -0.4
"""Coefficients of the judged model, which is the best, and of one whose loss is more than twice that."""


@pytest.fixture
def flts(tmp_path: Path) -> Installation:
    return Installation(tmp_path, refit=True)


def decided(flts: Installation, run: Run | None = None, **changes: Any) -> tuple[Run, ModelSelected, RefitRequest]:
    """Return a run whose GRU was promoted, its decision and the request to refit it."""
    run = run or flts.run()
    data = run.data.model_copy(update=changes)
    returned = flts.send(data, flts.trained(run, "GRU", GRU), announced(run, "LSTM"))
    selected, request = returned
    assert isinstance(selected, ModelSelected)
    assert selected.decision == "promoted"
    assert isinstance(request, RefitRequest)
    return run, selected, request


def as_refit(made: tuple[Bundle, bytes], **changes: Any) -> tuple[Bundle, bytes]:
    """Return a bundle of format 1 as the bundle of a refit, in format 2."""
    bundle, model = made
    assert bundle.probe is not None
    assert bundle.intervals is not None
    kind = np.float32 if bundle.input_kind == "window" else np.int64
    name = "window" if bundle.input_kind == "window" else "seconds"
    answers = np.asarray(bundle.probe["outputs"])
    arrays = {
        f"{PROBE}{name}": np.asarray(bundle.probe["inputs"], kind),
        f"{PROBE}forecast": answers,
        INTERVALS: bundle.intervals.values,
    }
    whole = with_arrays(model, arrays)
    digest = hashlib.sha256(whole).hexdigest()
    changes = {"fit": "refitted", **changes}
    return replace(bundle, probe=None, model_sha256=digest, model_size=len(whole), **changes), whole


def refit_of(
    flts: Installation, run: Run, request: RefitRequest, coefficient: float = GRU, **changes: Any
) -> ModelRefit:
    """Store a refit of the judged model of a request, and return the trainer's event."""
    judged, _ = fetch_bundle(flts.store, request.judged)
    made = as_refit(window_bundle(run, "GRU", coefficient), **{"train_hash": judged.train_hash, **changes})
    return event_of(request, store_bundle(flts.store, flts.settings.bucket_model_bundles, *made))


def event_of(request: RefitRequest, bundle: ClaimCheck | None, error: str | None = None) -> ModelRefit:
    return ModelRefit(
        event_id=derived_event_id(request.event_id, "refitted" if bundle else "refit-failed"),
        identifier=request.identifier,
        pipeline_run_id=request.pipeline_run_id,
        config_hash=request.config_hash,
        created_at=CREATED,
        model_type=request.model_type,
        status="SUCCESS" if bundle else "FAILED",
        judged=request.judged,
        bundle=bundle,
        duration_seconds=1.0,
        error=error,
    )


def record(flts: Installation, run: Run) -> dict[str, Any]:
    found = flts.run_store.evaluations.refit(IDENTIFIER, run.id)
    assert found is not None
    return found


class TestRequest:
    def test_it_asks_the_trainer_of_the_winner_and_follows_the_decision(self, flts: Installation) -> None:
        run, selected, request = decided(flts)

        assert request.event_id == derived_event_id(run.id, "refit-request")
        assert (request.model_type, request.judged) == ("GRU", selected.bundle)
        assert (request.claim(), request.test, request.raw_test) == (run.data.claim(), run.data.test, run.data.raw_test)
        assert flts.run_store.runs.end(IDENTIFIER, run.id) is RunState.PROMOTED
        assert flts.send(announced(run, "LSTM")) == [selected, request], "a late event repeats it with the same id"

    def test_no_request_after_the_refit_was_recorded(self, flts: Installation) -> None:
        run, selected, request = decided(flts)
        flts.send(event_of(request, None, "out of memory"))

        assert flts.send(announced(run, "LSTM")) == [selected]

    @pytest.mark.parametrize("by", ["installation", "run"])
    def test_refit_false_of_the_installation_or_the_run_skips_it(self, tmp_path: Path, by: str) -> None:
        flts = Installation(tmp_path, refit=by != "installation")
        run = flts.run()
        data = run.data.model_copy(update={"settings": {"REFIT": False}}) if by == "run" else run.data

        (returned,) = flts.send(data, flts.trained(run, "GRU", GRU), announced(run, "LSTM"))

        assert isinstance(returned, ModelSelected)
        assert returned.decision == "promoted"

    def test_a_run_may_switch_it_on(self, tmp_path: Path) -> None:
        decided(Installation(tmp_path, refit=False), settings={"REFIT": "true"})

    def test_no_request_for_a_baseline_that_repeats_rows(self, flts: Installation) -> None:
        run = flts.run(autoregression(800, 1.0))

        (returned,) = flts.send(run.data, announced(run, "GRU"), announced(run, "LSTM"))

        assert isinstance(returned, ModelSelected)
        assert (returned.decision, returned.model_type) == ("promoted", "PERSISTENCE")

    def test_no_request_for_a_champion_that_stays_nor_for_a_rollback(self, flts: Installation) -> None:
        first, selected, _ = decided(flts)
        second = flts.again(first)
        same = announced(second, "GRU", bundle=selected.bundle)

        (kept,) = flts.send(second.data, same, announced(second, "LSTM"))
        run = new_pipeline_run_id()
        rollback = RollbackRequest(
            event_id=derived_event_id(run, "rollback"),
            identifier=IDENTIFIER,
            pipeline_run_id=run,
            created_at=CREATED,
            of_run=first.id,
        )
        (back,) = flts.send(rollback)

        assert isinstance(kept, ModelSelected)
        assert isinstance(back, ModelSelected)
        assert (kept.decision, back.decision) == ("kept", "promoted")

    def test_eval_does_not_consume_its_own_requests(self, flts: Installation) -> None:
        _, _, request = decided(flts)
        group, _ = build_service(flts.settings, flts.adapters()).subscriptions

        assert not group.wants(request)
        assert group.wants(event_of(request, None, "failed"))


class TestResult:
    def test_a_refit_that_is_as_good_becomes_the_champion(self, flts: Installation) -> None:
        flts.tracker = Recorder()
        run, selected, request = decided(flts)
        before = flts.pointer()
        event = refit_of(flts, run, request, 0.52)
        assert before is not None
        assert event.bundle is not None

        (returned,) = flts.send(event)

        assert isinstance(returned, ModelSelected)
        assert returned.event_id == selected_event_id(run.id, "refitted")
        assert (returned.stage, returned.decision, returned.bundle) == ("refitted", "promoted", event.bundle)
        assert (returned.run_id, returned.score, returned.model_type) == (selected.run_id, selected.score, "GRU")
        folder = event.bundle.object_key.removesuffix("/bundle.json")
        changed = {
            "bundle": event.bundle.model_dump(mode="json"),
            "model_uri": f"s3://{event.bundle.bucket}/{folder}",
            "stage": "refitted",
        }
        assert flts.pointer() == {**before, **changed}
        assert flts.run_store.pointers.current_of_config(IDENTIFIER, str(run.data.config_hash)) == flts.pointer()
        assert record(flts, run)["reasons"][0].startswith("refitted: fitted again on all rows; its mean squared error")
        assert flts.run_store.evaluations.judged(IDENTIFIER, flts.pointer() or {})["bundle"] == before["bundle"]
        assert flts.tracker.champions[-1] == (IDENTIFIER, selected.run_id)
        assert flts.tracker.tags[selected.run_id]["refit"] == "promoted"
        assert flts.tracker.artifacts[selected.run_id] == ["refit/bundle.json"]
        assert 'flts_promotions_total{decision="promoted"} 1.0' in flts.metrics.text().decode()

    def test_a_repeated_result_changes_nothing(self, flts: Installation) -> None:
        run, _, request = decided(flts)
        event = refit_of(flts, run, request)
        returned = flts.send(event)
        before = flts.everything()

        assert flts.send(event, event) == returned * 2
        assert flts.everything() == before

    def test_a_refit_that_is_more_than_twice_as_bad_is_thrown_away(self, flts: Installation) -> None:
        flts.tracker = Recorder()
        run, selected, request = decided(flts)
        before = flts.pointer()

        assert flts.send(refit_of(flts, run, request, WORSE)) == []

        assert flts.pointer() == before
        refused = record(flts, run)
        assert (refused["decision"], refused["pointer"], refused["bundle"]) == ("refused", None, None)
        assert refused["stage"] == "refitted"
        assert refused["reasons"][0].startswith("refit_lost: ")
        assert flts.tracker.tags[selected.run_id]["refit"] == "refused"

    def test_the_limit_is_twice_the_loss_of_the_judged_model(self, flts: Installation) -> None:
        """A process with coefficient 0.5 has the one-step loss v (1 + (c - 0.5)^2 / 0.75) for coefficient c."""
        run, _, request = decided(flts)

        assert len(flts.send(refit_of(flts, run, request, GRU - 0.7))) == 1  # 1.65 times
        ratio = float(record(flts, run)["reasons"][0].split(" times that")[0].rsplit(" ", 1)[1])
        assert ratio == pytest.approx(1 + 0.7**2 / 0.75, rel=0.2)

    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            ({"fit": "judged"}, "other_bundle: its bundle has another fit"),
            ({"train_hash": "a" * 64}, "other_bundle: its bundle has another train_hash"),
        ],
    )
    def test_another_bundle_is_refused(self, flts: Installation, changes: dict[str, Any], code: str) -> None:
        run, _, request = decided(flts)

        assert flts.send(refit_of(flts, run, request, **{"fitted_until": 1_700_000_000, **changes})) == []
        assert record(flts, run)["reasons"] == [code]

    def test_another_kind_of_model_is_refused(self, flts: Installation) -> None:
        run, _, request = decided(flts)
        judged, _ = fetch_bundle(flts.store, request.judged)
        made = as_refit(timestamps_bundle(run, "GRU"), train_hash=judged.train_hash)
        claim = store_bundle(flts.store, flts.settings.bucket_model_bundles, *made)

        assert flts.send(event_of(request, claim)) == []
        assert record(flts, run)["reasons"] == ["other_bundle: its bundle has another input_kind"]

    def test_a_damaged_bundle_is_refused(self, flts: Installation) -> None:
        run, _, request = decided(flts)
        event = refit_of(flts, run, request)
        assert event.bundle is not None
        flts.store.put(event.bundle.bucket, event.bundle.object_key.replace("bundle.json", "model.onnx"), b"x")

        assert flts.send(event) == []
        assert record(flts, run)["pointer"] is None

    def test_a_trainer_that_failed_leaves_the_judged_model_with_the_reason(self, flts: Installation) -> None:
        run, _, request = decided(flts)
        before = flts.pointer()

        assert flts.send(event_of(request, None, "out of memory")) == []
        assert flts.send(refit_of(flts, run, request)) == [], "the first record stays"
        assert record(flts, run)["reasons"] == ["refit_failed: out of memory"]
        assert flts.pointer() == before

    def test_a_result_for_a_run_that_did_not_promote_the_model_is_ignored(self, flts: Installation) -> None:
        run, _, request = decided(flts)
        other = flts.again(run)
        event = refit_of(flts, run, request)

        assert flts.send(event.model_copy(update={"pipeline_run_id": other.id})) == []
        assert flts.send(event.model_copy(update={"model_type": "LSTM"})) == []
        assert flts.run_store.evaluations.refit(IDENTIFIER, run.id) is None

    def test_a_newer_champion_stays_and_a_rollback_to_the_run_returns_to_its_refit(self, flts: Installation) -> None:
        first, _, request = decided(flts, flts.run(autoregression(900, 0.5, seed=7)))
        decided(flts, flts.run(config="other"))
        before = flts.pointer()
        event = refit_of(flts, first, request)

        assert flts.send(event) == []
        assert flts.pointer() == before
        assert record(flts, first)["pointer"]["bundle"]["sha256"] == event.bundle.sha256  # type: ignore[union-attr]  # a success

    def test_a_result_that_eval_cannot_handle_is_recorded_as_refused(self, flts: Installation) -> None:
        run, _, request = decided(flts)

        assert list(Ending(flts.adapters(), flts.now).give_up(refit_of(flts, run, request), None, "killed")) == []
        assert record(flts, run)["reasons"] == ["refit_failed: eval gave up after its last try: killed"]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_write_the_repeat_ends_in_the_same_refitted_champion(flts: Installation, after: bool) -> None:
    template = flts.run()
    at_write, survived = 0, False
    while not survived:
        at_write += 1
        flts.store.delete(flts.settings.promotion_bucket, f"{IDENTIFIER}/current.json")
        run, _, request = decided(flts, flts.again(template))
        event: Event = refit_of(flts, run, request)
        try:
            flts.handler(DyingStore(flts.store, at_write=at_write, after=after))(event, no_progress)
            survived = True
        except KilledError:
            pass

        (returned,) = flts.send(event)

        assert isinstance(returned, ModelSelected)
        assert returned.event_id == selected_event_id(run.id, "refitted")
        pointer = flts.pointer()
        assert pointer is not None
        assert (pointer["pipeline_run_id"], pointer["stage"]) == (run.id, "refitted")
        assert record(flts, run)["pointer"]["bundle"] == pointer["bundle"]
    assert at_write > 3, "the record and both pointers are writes of their own"
