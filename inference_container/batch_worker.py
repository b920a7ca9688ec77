"""The inference worker forecasts a run's test rows in batch, after eval has decided the run.

The worker keeps no state in memory: each round begins with the list of waiting forecasts in the store, so a killed
worker resumes where it stopped. Its objects are create-only and its events have derived ids, so a repetition changes
nothing.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

from flts.bundle import proof
from flts.bundle.load import fetch_bundle
from flts.contracts.champion_stage import is_champion
from flts.contracts.events import Event, InferenceData, PerformanceEval
from flts.contracts.ids import derived_event_id
from flts.contracts.lifecycle import RunState
from flts.errors import FltsError, RejectedError, RetryableError, RunDeletedError
from flts.housekeeping.deletion import Deletion
from flts.housekeeping.guard import refuse_deleted
from flts.messaging.attempts import AttemptsExhaustedError, StoredAttempts
from flts.observability.logs import bind, get_logger
from flts.storage import layout
from flts.storage.claimed_frames import read_claimed_series
from flts.storage.claims import put_claimed
from flts.storage.frames import series_to_parquet
from flts.storage.ports import ObjectStore
from flts.storage.run_store import RunStore
from inference_container.domain.batch_forecast import BatchForecast, forecast_test_rows
from inference_container.domain.champion import Champion, load_champion
from inference_container.domain.promotion import Promotion
from inference_container.settings import WorkerSettings

log = get_logger(__name__)

STAGE = "forecast"
# A replica holds a lease while it forecasts a run, so that no two replicas forecast the same run at once. A killed
# replica cannot release its lease, so the lease is short, and a living replica renews it during the work.
LEASE_SECONDS = 8.0
RENEWAL_SECONDS = 2.0
# Bytes of the metrics in an event, which has at most 16 KiB; forecast.json has the metrics of every target.
METRICS_BYTES = 8_000


class Publishes(Protocol):
    """The method of the publisher that the worker calls."""

    def publish_all(self, events: Sequence[Event]) -> None:
        """Publish and wait for the acknowledgement."""
        ...


class BatchForecasts:
    """Finds decided runs whose test rows wait, and forecasts these rows.

    Parameters
    ----------
    store : ObjectStore
    run_store : RunStore
    settings : WorkerSettings
    publisher : callable
        Returns the publisher once the service has one.
    """

    def __init__(
        self, store: ObjectStore, run_store: RunStore, settings: WorkerSettings, publisher: Callable[[], Publishes]
    ) -> None:
        self._store = store
        self._evaluations = run_store.evaluations
        self._forecasts = run_store.forecasts
        self._leases = run_store.leases
        self._pointers = run_store.pointers
        self._runs = run_store.runs
        self._stages = run_store.stages
        self._settings = settings
        self._publisher = publisher
        self._hinted = threading.Event()
        self._next_look = 0.0
        self._owner = uuid.uuid4().hex
        self._deletion = Deletion(store, run_store.runs, settings)
        self._attempts = StoredAttempts(store, settings.bucket_pipeline_runs, STAGE, settings.failure_max_retries)

    def hint(self, identifier: str) -> None:
        """Poll the store at the next tick, because a run of this identifier was decided."""
        log.debug("forecast_hint", identifier=identifier)
        self._hinted.set()

    def tick(self) -> Sequence[Event]:
        """Process the waiting runs after a hint, or once FORECAST_TICK_SECONDS have passed."""
        if not self._hinted.is_set() and time.monotonic() < self._next_look:
            return ()
        self._hinted.clear()
        self._next_look = time.monotonic() + self._settings.forecast_tick_seconds
        self.look()
        return ()

    def look(self) -> None:
        """Forecast every waiting run that is decided; an error in one run does not stop the others.

        The worker publishes the event itself and does not return it: the run may leave the list of waiting runs only
        after the broker's acknowledgement.
        """
        for identifier, run in self._forecasts.waiting():
            with bind(identifier=identifier, pipeline_run_id=run):
                try:
                    refuse_deleted(self._deletion, identifier, run)
                    self._look_at(identifier, run)
                except RunDeletedError:
                    continue
                except RetryableError as error:
                    log.warning("forecast_waits", error=error)
                except Exception:
                    # The attempt is counted, and the loop goes on with the next run. After the last attempt the worker
                    # skips the forecast.
                    log.exception("forecast_error")

    def _look_at(self, identifier: str, run: str) -> None:
        event = self._forecasts.inference(identifier, run)
        if event is None or not self._is_decided(identifier, run):
            return
        with self._lease(run) as mine:
            # Another replica may have finished this forecast since this replica listed the waiting runs, so the result
            # is read again under the lease.
            if mine and self._forecasts.read(identifier, run) is None:
                self._try(event)

    def _try(self, event: InferenceData) -> None:
        try:
            self._try_once(event)
        finally:
            # The run may have been deleted while this replica wrote the forecast. In that case this call deletes what
            # was written.
            refuse_deleted(self._deletion, event.identifier, event.pipeline_run_id, worked=True)

    def _try_once(self, event: InferenceData) -> None:
        try:
            number = self._attempts.begin(event)
        except AttemptsExhaustedError as error:
            self._skip(event, f"gave up after {error.attempts} tries; the worker's log says why")
            self._attempts.clear(event, error.attempts)
            return
        try:
            self._work(event)
        except RetryableError:
            # The attempt failed because a backend is unavailable and not because of the forecast, so it is not counted.
            self._attempts.withdraw(event, number)
            raise
        except Exception as error:
            self._attempts.failed(event, number, str(error))
            raise
        self._attempts.clear(event, number)

    @contextmanager
    def _lease(self, run: str) -> Iterator[bool]:
        """Acquire and renew the run's lease during the block; yield whether this replica holds it."""
        # The store keeps the object of every lease. The name has only the last two digits of the run, so there are at
        # most 256 objects. Two runs with the same lease wait for each other.
        name = f"{STAGE}-{run[-2:]}"
        if not self._leases.acquire(name, self._owner, LEASE_SECONDS):
            yield False
            return
        ended = threading.Event()
        renewal = threading.Thread(target=self._renew, args=(name, ended), name="forecast-lease", daemon=True)
        renewal.start()
        try:
            yield True
        finally:
            ended.set()
            renewal.join()
            try:
                self._leases.release(name, self._owner)
            except RetryableError as error:  # the lease expires by itself after LEASE_SECONDS
                log.warning("forecast_lease_kept", error=error)

    def _renew(self, name: str, ended: threading.Event) -> None:
        while not ended.wait(RENEWAL_SECONDS):
            try:
                self._leases.acquire(name, self._owner, LEASE_SECONDS)
            except FltsError as error:
                # The next pass of the loop tries again. If the lease expires before that, another replica may repeat
                # the work.
                log.warning("forecast_lease_not_renewed", error=error)

    def _is_decided(self, identifier: str, run: str) -> bool:
        if self._runs.end(identifier, run) is not None:
            return True
        decision = self._evaluations.decision(identifier, run)
        if decision is None:
            return False
        # The run has no outcome yet. Eval writes the decision first, then the champion pointer, then the outcome, so a
        # promoted run counts as decided only once the pointer names it, and not its provisional stage. If the pointer
        # names a newer run, this run is superseded, or was promoted and replaced; only the outcome states which, so the
        # worker waits for the outcome.
        pointer = self._pointers.current(identifier)
        return decision.get("decision") != "promoted" or (
            pointer is not None and is_champion(pointer[0]) and pointer[0].get("pipeline_run_id") == run
        )

    def _work(self, event: InferenceData) -> None:
        identifier, run = event.identifier, event.pipeline_run_id
        self._stages.put(identifier, run, STAGE, "started")
        try:
            promotion = self._promotion(event)
            if promotion is None:
                self._skip(event, self._why_no_champion(identifier, run))
                return
            champion = self._load(promotion)
            series = read_claimed_series(self._store, event.raw_test)
            batch = forecast_test_rows(
                champion,
                series,
                context_rows=event.raw_test_context_rows,
                max_rows=self._settings.forecast_max_rows,
                long_steps=self._long_steps(event),
            )
        except RejectedError as error:
            self._skip(event, error.message)
            return
        self._finish(event, champion, batch)

    def _long_steps(self, event: InferenceData) -> int:
        """Return the steps of the long forecast: the horizon of the run, unless it is a single step."""
        most, horizon = self._settings.forecast_long_steps, event.horizon_steps or 1
        return min(horizon, most) if horizon > 1 else most

    def _promotion(self, event: InferenceData) -> Promotion | None:
        """Return the promotion by this run, else the judged fit of the current champion, else None."""
        identifier, run = event.identifier, event.pipeline_run_id
        decision = self._evaluations.decision(identifier, run) or {}
        if decision.get("decision") == "promoted" and self._runs.end(identifier, run) in {None, RunState.PROMOTED}:
            winner = self._evaluations.trained(identifier, run).get(str(decision.get("model_type")))
            if winner is not None and winner.bundle is not None:
                return Promotion.read(identifier, winner.model_dump(mode="json"))
        pointer = self._pointers.current(identifier)
        if pointer is None:
            return None
        return Promotion.read(identifier, self._evaluations.judged(identifier, pointer[0]))

    def _why_no_champion(self, identifier: str, run: str) -> str:
        word = self._runs.end(identifier, run) or (self._evaluations.decision(identifier, run) or {}).get("decision")
        return f"the run ended as {word}, and {identifier} has no champion"

    def _load(self, promotion: Promotion) -> Champion:
        bundle, model = fetch_bundle(self._store, promotion.bundle)
        proof.prove(bundle, model)
        return load_champion(promotion, bundle, model, max_horizon_steps=self._settings.forecast_long_steps)

    def _finish(self, event: InferenceData, champion: Champion, batch: BatchForecast) -> None:
        # The day of the event and not the current day, so that a repetition writes the same key.
        day = event.created_at.astimezone(UTC).date().isoformat()
        claim = put_claimed(
            self._store,
            self._settings.bucket_inference_logs,
            layout.FORECASTS(event.identifier, day, f"{event.pipeline_run_id}.parquet"),
            series_to_parquet(batch.table),
            rows=len(batch.table),
            columns=len(batch.table.columns),
        )
        promotion = champion.promotion
        details: dict[str, Any] = {
            "run_id": promotion.run_id,
            "model_type": promotion.model_type,
            "config_hash": promotion.config_hash,
            "rows": len(batch.table),
            "long_steps": batch.long_steps,
            "left_out_rows": batch.left_out_rows,
            "log": claim.model_dump(mode="json"),
        }
        identifier, run = event.identifier, event.pipeline_run_id
        self._stages.put(identifier, run, STAGE, "done", **details)
        self._publish(
            event,
            "done",
            run_id=promotion.run_id,
            model_type=promotion.model_type,
            config_hash=promotion.config_hash,
            log=claim,
            rows=len(batch.table),
            metrics=_small(batch.metrics),
        )
        self._forecasts.put(identifier, run, "done", **details, metrics=batch.metrics)
        log.info("forecast_done", **{name: details[name] for name in ("run_id", "model_type", "rows", "long_steps")})

    def _skip(self, event: InferenceData, reason: str) -> None:
        identifier, run = event.identifier, event.pipeline_run_id
        if self._forecasts.read(identifier, run) is not None:
            # Another replica acquired the lease meanwhile and wrote the result, which must stay.
            return
        self._stages.put(identifier, run, STAGE, "skipped", reason=reason)
        self._publish(event, "skipped", reason=reason, config_hash=event.config_hash)
        self._forecasts.put(identifier, run, "skipped", reason=reason)
        log.info("forecast_skipped", reason=reason)

    def _publish(self, event: InferenceData, status: str, **fields: Any) -> None:
        fact = PerformanceEval(
            event_id=derived_event_id(event.event_id, "performance-eval"),
            identifier=event.identifier,
            pipeline_run_id=event.pipeline_run_id,
            created_at=datetime.now(UTC),
            status=status,
            **fields,
        )
        self._publisher().publish_all([fact])


def _small(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics of the first targets, up to METRICS_BYTES."""
    kept: dict[str, Any] = {}
    size = 0
    for target, of_target in metrics.items():
        size += len(json.dumps({target: of_target}))
        if size > METRICS_BYTES:
            break
        kept[target] = of_target
    return kept
