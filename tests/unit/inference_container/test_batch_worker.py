"""Test rows wait in the store until their run is decided; then the worker forecasts them exactly once."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flts.bundle.format import Bundle
from flts.bundle.write import store_bundle
from flts.contracts.events import Event, InferenceData, ModelSelected, ModelTraining, PerformanceEval
from flts.contracts.ids import derived_event_id, derived_run_id, new_pipeline_run_id
from flts.contracts.lifecycle import RunState
from flts.errors import BackendAwayError, HashMismatchError, ObjectNotFoundError
from flts.forecasting.grid import FixedGrid
from flts.forecasting.series import Series
from flts.housekeeping.deletion import Deletion
from flts.messaging.attempts import StoredAttempts
from flts.storage import layout
from flts.storage.claims import put_claimed
from flts.storage.filesystem import FilesystemStore
from flts.storage.frames import series_to_parquet
from flts.storage.run_store import RunStore
from inference_container import batch_worker
from inference_container.batch_worker import STAGE, BatchForecasts
from inference_container.handler import OnInferenceData, OnModelSelected
from inference_container.history_file import decode
from inference_container.settings import WorkerSettings
from inference_container.stored_histories import StoredHistories
from tests.eventually import eventually
from tests.made_series import make_series, with_values
from tests.serving import BUCKETS, champion_of, clock_bundle, promote, window_bundle

CONTEXT_ROWS = 10
TRAIN = make_series(400)
TEST = make_series(600).rows(400 - CONTEXT_ROWS, 500)


def quiet(*_: object, **__: object) -> None:
    """Ignore a progress report."""


class Worker:
    """The parts of the worker on a store in a folder."""

    def __init__(self, home: Path) -> None:
        self.settings = WorkerSettings(
            kafka_bootstrap_servers="unused", store="filesystem", store_path=home, forecast_long_steps=30
        )
        self.store = FilesystemStore(home)
        for bucket in BUCKETS:
            self.store.ensure_bucket(bucket)
        self.run_store = RunStore(self.store, self.settings)
        histories = StoredHistories(self.store, self.run_store.pointers, self.settings)
        self.on_claim = OnInferenceData(self.store, self.run_store.forecasts, histories)
        self.published: list[Event] = []
        self.broker_away = False
        self.restart()

    def restart(self) -> None:
        self.forecasts = BatchForecasts(self.store, self.run_store, self.settings, lambda: self)

    def publish_all(self, events: Sequence[Event]) -> None:
        if self.broker_away:
            msg = "no broker"
            raise BackendAwayError(msg)
        self.published.extend(events)

    def claim(
        self, run: str, series: Series = TEST, *, identifier: str = "tiny", horizon_steps: int | None = None
    ) -> InferenceData:
        """Store test rows, and pass their event to the worker as the topic would."""
        data = series_to_parquet(series)
        raw = put_claimed(
            self.store, "processed-data", f"{identifier}/{run}/raw.parquet", data,
            rows=len(series), columns=len(series.columns),
        )  # fmt: skip
        event = InferenceData(
            event_id=derived_event_id(run, "inference-data"),
            identifier=identifier,
            pipeline_run_id=run,
            config_hash="c" * 64,
            created_at=datetime(2024, 5, 6, 23, 30, tzinfo=UTC),
            bucket=raw.bucket, object_key=raw.object_key, size=raw.size, sha256=raw.sha256, rows=raw.rows or 0,
            columns=raw.columns or 0, meta=raw, test=raw, raw_test=raw, raw_test_context_rows=CONTEXT_ROWS,
            step_seconds=series.grid.step_seconds, horizon_steps=horizon_steps,
        )  # fmt: skip
        assert list(self.on_claim(event, quiet)) == []
        return event

    def decide(self, run: str, decision: str, made: tuple[Bundle, bytes] | None = None) -> None:
        """Write the records that eval writes: the trained model, the decision, the pointer, the outcome."""
        if made is not None:
            bundle, model = made
            claim = store_bundle(self.store, "model-bundles", bundle, model)
            self.run_store.evaluations.put_trained(
                ModelTraining(
                    event_id=derived_event_id(run, "trained"), identifier=bundle.identifier, pipeline_run_id=run,
                    config_hash=bundle.config_hash, created_at=datetime.now(UTC), model_type="GRU", status="SUCCESS",
                    run_id=derived_run_id(run, "GRU"), experiment_name=bundle.identifier, bundle=claim, train=claim,
                    test=claim, duration_seconds=1,
                )
            )  # fmt: skip
        self.run_store.evaluations.decide("tiny", run, {"decision": decision, "model_type": "GRU"})
        if decision == "promoted":
            assert made is not None
            promote(self.store, self.run_store, made, pipeline_run_id=run)
        self.run_store.runs.put_outcome("tiny", run, RunState(decision))

    def attempts(self) -> list[str]:
        """Return the keys of the counted attempts."""
        keys = (info.key for info in self.store.list(self.settings.bucket_pipeline_runs, ""))
        return [key for key in keys if layout.ATTEMPT.parse(key) is not None]

    def told(self) -> PerformanceEval:
        [event] = self.published
        assert isinstance(event, PerformanceEval)
        return event


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    return Worker(tmp_path)


def test_a_claim_that_came_before_any_champion_is_forecast_after_the_promotion(worker: Worker) -> None:
    run = new_pipeline_run_id()
    worker.claim(run)
    worker.forecasts.look()
    assert worker.published == []
    assert worker.run_store.forecasts.waiting() == [("tiny", run)]

    worker.decide(run, "promoted", window_bundle(TRAIN))
    worker.forecasts.look()

    event = worker.told()
    assert (event.status, event.pipeline_run_id, event.run_id) == ("done", run, derived_run_id(run, "GRU"))
    assert event.log is not None
    assert event.log.object_key == f"tiny/date=2024-05-06/{run}.parquet"
    assert event.rows == event.log.rows == 100
    assert worker.run_store.forecasts.waiting() == []
    assert (worker.run_store.forecasts.read("tiny", run) or {})["status"] == "done"
    assert worker.run_store.stages.of("tiny", run)[STAGE]["status"] == "done"


def test_a_claim_whose_rows_are_missing_or_others_is_refused_and_nothing_is_kept(worker: Worker) -> None:
    event = worker.claim(new_pipeline_run_id())
    later = event.model_copy(update={"pipeline_run_id": new_pipeline_run_id()})
    claim = event.raw_test

    worker.store.put(claim.bucket, claim.object_key, b"other rows")
    with pytest.raises(HashMismatchError):
        worker.on_claim(later, quiet)
    worker.store.delete(claim.bucket, claim.object_key)
    with pytest.raises(ObjectNotFoundError):
        worker.on_claim(later, quiet)

    assert worker.run_store.forecasts.inference("tiny", later.pipeline_run_id) is None


def test_the_log_holds_every_forecast_with_its_bounds_and_the_metrics_are_theirs(worker: Worker) -> None:
    run = new_pipeline_run_id()
    made = window_bundle(TRAIN)
    worker.claim(run)
    worker.decide(run, "promoted", made)
    worker.forecasts.look()

    table = pd.read_parquet(io.BytesIO(worker.store.get("inference-logs", f"tiny/date=2024-05-06/{run}.parquet")[0]))
    champion = champion_of(made)
    assert table.index[0] == pd.Timestamp(int(TEST.times[CONTEXT_ROWS]), unit="s", tz="UTC")
    np.testing.assert_array_equal(table["down_actual"], TEST.values[CONTEXT_ROWS:, 0])  # noqa: PD011 - no pandas here
    for row in (CONTEXT_ROWS, 57):
        expected = champion.forecaster.forecast(TEST.rows(0, row), 1)
        assert expected.upper is not None
        np.testing.assert_allclose(table["up"].iloc[row - CONTEXT_ROWS], expected.mean[0, 1], rtol=1e-6)
        np.testing.assert_allclose(table["up_upper"].iloc[row - CONTEXT_ROWS], expected.upper[0, 1], rtol=1e-6)
    long = champion.forecaster.forecast(TEST.rows(0, CONTEXT_ROWS), 30)
    assert long.lower is not None
    np.testing.assert_allclose(table["load_long"].iloc[:30], long.mean[:, 2], rtol=1e-5)
    np.testing.assert_allclose(table["load_long_lower"].iloc[:30], long.lower[:, 2], rtol=1e-5)
    assert table["load_long"].iloc[30:].isna().all()

    metrics = worker.told().metrics["down"]
    errors = table["down_actual"] - table["down"]
    inside = (table["down_lower"] <= table["down_actual"]) & (table["down_actual"] <= table["down_upper"])
    np.testing.assert_allclose(metrics["1"]["rmse"], np.sqrt((errors**2).mean()))
    np.testing.assert_allclose(metrics["1"]["mae"], errors.abs().mean())
    np.testing.assert_allclose(metrics["1"]["coverage"], inside.mean())
    np.testing.assert_allclose(metrics["30"]["mae"], (table["down_actual"] - table["down_long"]).iloc[:30].abs().mean())
    assert (metrics["1"]["rows"], metrics["30"]["rows"]) == (100, 30)


def test_missing_actuals_are_left_out_of_the_metrics_and_counted(worker: Worker) -> None:
    run = new_pipeline_run_id()
    values = np.copy(TEST.values)
    values[50:60, 0] = np.nan
    worker.claim(run, with_values(TEST, values))
    worker.decide(run, "promoted", window_bundle(TRAIN))
    worker.forecasts.look()

    metrics = worker.told().metrics
    assert (metrics["down"]["1"]["rows"], metrics["up"]["1"]["rows"]) == (90, 100)


@pytest.mark.parametrize("decision", ["kept", "refused"])
def test_a_run_that_promoted_nothing_is_forecast_by_the_champion(worker: Worker, decision: str) -> None:
    earlier = promote(worker.store, worker.run_store, clock_bundle(TRAIN))
    run = new_pipeline_run_id()
    worker.claim(run)
    worker.decide(run, decision, window_bundle(TRAIN))

    worker.forecasts.look()

    event = worker.told()
    assert (event.status, event.run_id, event.model_type) == ("done", earlier["run_id"], "PROPHET")


def test_a_run_that_was_superseded_is_forecast_by_the_champion_that_stands(worker: Worker) -> None:
    older = new_pipeline_run_id()
    worker.claim(older)
    standing = promote(worker.store, worker.run_store, clock_bundle(TRAIN))
    worker.run_store.evaluations.decide("tiny", older, {"decision": "promoted", "model_type": "GRU"})
    worker.forecasts.look()
    assert worker.published == [], "the outcome is awaited"
    worker.decide(older, "superseded", window_bundle(TRAIN))

    worker.forecasts.look()

    event = worker.told()
    assert (event.status, event.run_id) == ("done", standing["run_id"])


def test_a_promoted_run_whose_pointer_is_still_provisional_is_awaited(worker: Worker) -> None:
    run = new_pipeline_run_id()
    worker.claim(run)
    pointer = promote(worker.store, worker.run_store, clock_bundle(TRAIN), pipeline_run_id=run)
    provisional = {**pointer, "stage": "provisional"}
    worker.store.put("model-promotion", "tiny/current.json", json.dumps(provisional).encode())
    worker.run_store.evaluations.decide("tiny", run, {"decision": "promoted", "model_type": "GRU"})
    worker.forecasts.look()
    assert worker.published == [], "eval is about to move the pointer"
    worker.decide(run, "promoted", window_bundle(TRAIN))

    worker.forecasts.look()

    assert (worker.told().status, worker.told().model_type) == ("done", "GRU")


def test_a_refitted_champion_forecasts_test_rows_by_the_fit_that_was_judged(worker: Worker) -> None:
    decided = promote(worker.store, worker.run_store, clock_bundle(TRAIN))
    earlier = decided["pipeline_run_id"]
    worker.run_store.evaluations.decide("tiny", earlier, {"decision": "promoted", "pointer": decided})
    refitted = {**decided, "run_id": "f" * 32, "stage": "refitted"}
    assert worker.run_store.pointers.move_current("tiny", refitted) == "moved"
    run = new_pipeline_run_id()
    worker.claim(run)
    worker.decide(run, "kept")

    worker.forecasts.look()

    assert (worker.told().status, worker.told().run_id) == ("done", decided["run_id"])


def test_without_any_champion_after_the_outcome_the_rows_are_skipped_with_the_reason(worker: Worker) -> None:
    run = new_pipeline_run_id()
    worker.claim(run)
    worker.decide(run, "refused")

    worker.forecasts.look()

    event = worker.told()
    assert event.status == "skipped"
    assert event.reason == "the run ended as refused, and tiny has no champion"
    assert worker.run_store.stages.of("tiny", run)[STAGE]["status"] == "skipped"
    assert worker.run_store.forecasts.waiting() == []


@pytest.mark.parametrize(
    ("series", "says"),
    [
        (TEST.select(("down", "up")), "load"),
        (TEST.rows(0, CONTEXT_ROWS), "10 rows before it"),
        (Series(TEST.times[0] + 60 * np.arange(len(TEST)), TEST.columns, TEST.values, FixedGrid(60)), "steps of 1 min"),
    ],
    ids=["a column is gone", "no row has a window", "another step"],
)
def test_rows_that_the_champions_recipe_cannot_read_are_skipped_with_the_reason(
    worker: Worker, series: Series, says: str
) -> None:
    run = new_pipeline_run_id()
    worker.claim(run, series)
    worker.decide(run, "promoted", window_bundle(TRAIN))

    worker.forecasts.look()

    assert worker.told().status == "skipped"
    assert says in (worker.told().reason or "")


def test_a_repeat_after_a_lost_acknowledgement_says_and_writes_the_same(worker: Worker) -> None:
    run = new_pipeline_run_id()
    worker.claim(run)
    worker.decide(run, "promoted", window_bundle(TRAIN))
    worker.broker_away = True
    worker.forecasts.look()
    # The worker writes the record only after the broker has acknowledged the event.
    assert worker.run_store.forecasts.read("tiny", run) is None
    before = [(info.key, info.etag) for info in worker.store.list("inference-logs")]
    assert len(before) == 1

    worker.broker_away = False
    worker.restart()  # a new process, whose only state is the store
    worker.forecasts.look()
    worker.forecasts.look()

    event = worker.told()
    assert event.event_id == derived_event_id(derived_event_id(run, "inference-data"), "performance-eval")
    assert [(info.key, info.etag) for info in worker.store.list("inference-logs")] == before


def test_a_claim_that_always_fails_is_given_up_after_its_tries_and_holds_up_nobody(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned, good = new_pipeline_run_id(), new_pipeline_run_id()
    for run in (poisoned, good):
        worker.claim(run)
        worker.decide(run, "promoted", window_bundle(TRAIN))
    load = worker.forecasts._load

    def sometimes(promotion: Any) -> Any:
        if promotion.pipeline_run_id == poisoned:
            msg = "a bug"
            raise ZeroDivisionError(msg)
        return load(promotion)

    monkeypatch.setattr(worker.forecasts, "_load", sometimes)
    for _ in range(worker.settings.failure_max_retries + 1):
        worker.forecasts.look()

    told = {event.pipeline_run_id: event for event in worker.published if isinstance(event, PerformanceEval)}
    assert len(worker.published) == 2
    assert told[good].status == "done"
    assert told[poisoned].status == "skipped"
    assert "gave up after 3 tries" in (told[poisoned].reason or "")


def test_a_backend_that_is_away_is_not_counted_as_a_try(worker: Worker) -> None:
    run = new_pipeline_run_id()
    worker.claim(run)
    worker.decide(run, "promoted", window_bundle(TRAIN))
    worker.broker_away = True
    for _ in range(10):
        worker.forecasts.look()

    worker.broker_away = False
    worker.forecasts.look()

    assert worker.told().status == "done"


def test_a_promotion_counts_only_once_the_pointer_has_moved(worker: Worker) -> None:
    run = new_pipeline_run_id()
    worker.claim(run)
    worker.run_store.evaluations.decide("tiny", run, {"decision": "promoted", "model_type": "GRU"})

    worker.forecasts.look()

    assert worker.published == []
    assert worker.run_store.forecasts.waiting() == [("tiny", run)]


def test_a_tick_looks_when_it_is_time_or_when_a_decision_was_announced(worker: Worker) -> None:
    worker.settings = worker.settings.model_copy(update={"forecast_tick_seconds": 3600})
    worker.restart()
    run = new_pipeline_run_id()
    worker.forecasts.tick()
    worker.claim(run)
    worker.decide(run, "promoted", window_bundle(TRAIN))
    worker.forecasts.tick()
    assert worker.published == []  # the worker polls the store once an hour, so it has not looked for the decision yet

    selected = ModelSelected(
        event_id=derived_event_id(run, "promotion"), identifier="tiny", pipeline_run_id=run,
        created_at=datetime.now(UTC), decision="promoted",
    )  # fmt: skip
    assert list(OnModelSelected(worker.forecasts.hint)(selected, quiet)) == []
    worker.forecasts.tick()

    assert worker.told().status == "done"


def test_more_rows_than_a_batch_may_have_leave_the_latest(worker: Worker) -> None:
    worker.settings = worker.settings.model_copy(update={"forecast_max_rows": 40})
    worker.restart()
    run = new_pipeline_run_id()
    worker.claim(run)
    worker.decide(run, "promoted", window_bundle(TRAIN))

    worker.forecasts.look()

    assert worker.told().rows == 40
    assert (worker.run_store.forecasts.read("tiny", run) or {})["left_out_rows"] == 60


@pytest.mark.parametrize(("horizon", "steps"), [(None, 30), (1, 30), (2, 2), (24, 24), (31, 30)])
def test_the_long_forecast_has_the_horizon_of_the_run(worker: Worker, horizon: int | None, steps: int) -> None:
    run = new_pipeline_run_id()
    worker.claim(run, horizon_steps=horizon)
    worker.decide(run, "promoted", window_bundle(TRAIN))

    worker.forecasts.look()

    assert (worker.run_store.forecasts.read("tiny", run) or {})["long_steps"] == steps
    assert set(worker.told().metrics["down"]) == {"1", str(steps)}


def test_metrics_of_very_many_targets_do_not_burst_the_message(worker: Worker) -> None:
    names = tuple(f"target-{number:03}" for number in range(150))
    wide = Series(TRAIN.times[:200], names, np.random.default_rng(0).normal(size=(200, 150)), TRAIN.grid)
    run = new_pipeline_run_id()
    worker.claim(run, wide.rows(100, 200))
    worker.decide(run, "promoted", window_bundle(wide, input_seq_len=5))

    worker.forecasts.look()

    event = worker.told()
    assert event.status == "done", event.reason
    assert 0 < len(event.metrics) < 150
    assert len(event.model_dump_json()) < 16_384
    assert len((worker.run_store.forecasts.read("tiny", run) or {})["metrics"]) == 150


def test_a_bundle_that_is_not_the_promised_one_is_skipped_with_the_reason(worker: Worker) -> None:
    run = new_pipeline_run_id()
    worker.claim(run)
    bundle, model = window_bundle(TRAIN)
    worker.decide(run, "promoted", (bundle, model))
    for info in list(worker.store.list("model-bundles")):
        if info.key.endswith("model.onnx"):
            worker.store.put("model-bundles", info.key, model + b"\0")

    worker.forecasts.look()

    assert worker.told().status == "skipped"
    assert hashlib.sha256(model).hexdigest()[:12] in (worker.told().reason or "")


def test_a_replica_at_work_is_no_failed_try_to_the_others(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_pipeline_run_id()
    worker.claim(run)
    worker.decide(run, "promoted", window_bundle(TRAIN))
    others = [
        BatchForecasts(worker.store, worker.run_store, worker.settings, lambda: worker)
        for _ in range(worker.settings.failure_max_retries + 1)
    ]
    load = worker.forecasts._load
    tried: list[str] = []

    def load_while_others_look(promotion: Any) -> Any:
        for other in others:
            other.look()
        tried.extend(worker.attempts())
        return load(promotion)

    monkeypatch.setattr(worker.forecasts, "_load", load_while_others_look)
    worker.forecasts.look()

    assert worker.told().status == "done"
    assert len(tried) == 1
    assert worker.attempts() == []


def test_a_lease_is_renewed_while_the_work_runs(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1e9]
    worker.run_store = RunStore(worker.store, worker.settings, clock=lambda: now[0])
    worker.restart()
    other = BatchForecasts(worker.store, worker.run_store, worker.settings, lambda: worker)
    monkeypatch.setattr(batch_worker, "RENEWAL_SECONDS", 0.01)
    run = new_pipeline_run_id()
    worker.claim(run)
    worker.decide(run, "promoted", window_bundle(TRAIN))
    acquire, renewed = worker.run_store.leases.acquire, []

    def acquire_noted(name: str, owner: str, seconds: float) -> bool:
        began = now[0]
        taken = acquire(name, owner, seconds)
        renewed.append(began)
        return taken

    monkeypatch.setattr(worker.run_store.leases, "acquire", acquire_noted)
    load = worker.forecasts._load

    def load_slowly(promotion: Any) -> Any:
        for _ in range(3):
            now[0] += 0.75 * batch_worker.LEASE_SECONDS
            eventually(lambda: now[0] in renewed, "a renewal")
        other.look()
        assert worker.published == []
        return load(promotion)

    monkeypatch.setattr(worker.forecasts, "_load", load_slowly)
    worker.forecasts.look()

    assert worker.told().status == "done"
    assert not [thread for thread in threading.enumerate() if thread.name == "forecast-lease"]


def test_a_killed_workers_run_is_taken_up_within_seconds(worker: Worker) -> None:
    now = [1e9]
    worker.run_store = RunStore(worker.store, worker.settings, clock=lambda: now[0])
    worker.restart()
    run = new_pipeline_run_id()
    worker.claim(run)
    worker.decide(run, "promoted", window_bundle(TRAIN))
    killed = f"{STAGE}-{run[-2:]}"
    assert worker.run_store.leases.acquire(killed, "a worker that was killed", batch_worker.LEASE_SECONDS)
    worker.forecasts.look()
    assert worker.published == []

    now[0] += 10
    worker.forecasts.look()

    assert worker.told().status == "done"


def test_what_another_replica_finished_meanwhile_is_neither_tried_nor_skipped(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_pipeline_run_id()
    worker.claim(run)
    worker.decide(run, "promoted", window_bundle(TRAIN))
    seen = worker.run_store.forecasts.waiting()
    worker.forecasts.look()
    worker.restart()
    monkeypatch.setattr(worker.run_store.forecasts, "waiting", lambda: seen)
    tried: list[Event] = []
    monkeypatch.setattr(StoredAttempts, "begin", lambda _, event: tried.append(event))

    for _ in range(worker.settings.failure_max_retries + 1):
        worker.forecasts.look()

    assert worker.told().status == "done"
    assert tried == []


def test_a_forecast_that_was_being_made_while_its_data_set_was_deleted_leaves_nothing(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_pipeline_run_id()
    worker.claim(run)
    worker.decide(run, "promoted", window_bundle(TRAIN))
    deletion = Deletion(worker.store, worker.run_store.runs, worker.settings)
    forecast = batch_worker.forecast_test_rows

    def forecast_while_it_is_deleted(*given: Any, **named: Any) -> Any:
        made = forecast(*given, **named)
        deletion.carry_out("tiny", report=lambda: None)
        return made

    monkeypatch.setattr(batch_worker, "forecast_test_rows", forecast_while_it_is_deleted)
    worker.forecasts.look()

    left = [info.key for bucket in BUCKETS for info in worker.store.list(bucket)]
    assert [key for key in left if not key.startswith(("_deleted/", "_spool/forget-", "_leases/"))] == []
    assert worker.run_store.forecasts.waiting() == []


def test_the_last_test_rows_are_stored_as_history_before_the_run_is_decided(worker: Worker) -> None:
    event = worker.claim(new_pipeline_run_id())

    data, _ = worker.store.get("processed-data", layout.HISTORY("tiny", event.config_hash or ""))

    history = decode(data)
    assert isinstance(history, Series)
    assert history.times.tolist() == TEST.times.tolist()
    np.testing.assert_array_equal(history.values, TEST.values)
