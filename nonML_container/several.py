"""The work of the trainer of several model types in its child process: fit its candidates and baselines."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from flts.bundle.format import Bundle
from flts.bundle.write import store_bundle
from flts.contracts.events import ModelRefit, ModelTraining, RefitRequest, TrainingData
from flts.contracts.ids import derived_run_id
from flts.errors import RejectedError
from flts.forecasting.baselines import NoBaselineError
from flts.observability.logs import bind, get_logger
from flts.runtime.adapters import Adapters
from flts.service import Progress
from flts.trainers import Trainer, trained_on
from flts.training.announce import Announcement, model_training, training_failed
from flts.training.baselines import baseline_identity, make_baseline
from flts.training.bundling import Identity
from flts.training.dataset import claimed_training_set, horizon_steps
from flts.training.fitting import TrainingSet
from flts.training.handler import is_wanted
from flts.training.linear import LINEAR, linear_identity, make_linear
from flts.training.refit import refit
from flts.training.report import ProgressReport
from flts.training.reuse import reusable_bundle
from flts.training.theta import THETA, make_theta, theta_identity
from flts.training.threads import default_threads
from nonML_container.settings import NonmlSettings

log = get_logger(__name__)

Make = Callable[[TrainingSet, Identity, Callable[[], None]], tuple[Bundle, bytes]]
"""Fits a model type on the training rows; the last argument is called while it works."""
_CANDIDATES = {LINEAR: (linear_identity, make_linear), THETA: (theta_identity, make_theta)}


class TrainSeveral:
    """Make the models of a data set whose bundles are not stored yet, and return an event for every model.

    The candidates come first (`Trainer.model_types`). None of the models is recorded in MLflow here: eval records the
    candidates, and the scoreboard contains the results of the baselines.

    Parameters
    ----------
    adapters : Adapters
    settings : NonmlSettings
        A run's overrides replace them.
    trainer : Trainer
        The entry of the baselines in the registry.
    """

    def __init__(self, adapters: Adapters, settings: NonmlSettings, trainer: Trainer) -> None:
        self._adapters = adapters
        self._settings = settings
        self._trainer = trainer

    def __call__(
        self, event: TrainingData | RefitRequest, progress: Progress
    ) -> Sequence[ModelTraining] | Sequence[ModelRefit]:
        """Return the events of a data set, or that of a refit; a repeated delivery returns the same events.

        A candidate that cannot be fitted has an event with status FAILED, because the run waits for it. A baseline that
        cannot be fitted has no event.
        """
        if isinstance(event, RefitRequest):
            return self._refit(event, progress)
        runs, stage = self._adapters.run_store, self._trainer.deployment
        if not is_wanted(runs, event):
            return []
        report = ProgressReport(stage, progress)
        settings = self._settings.with_overrides(event.settings)
        before = runs.stages.read(event.identifier, event.pipeline_run_id, stage) or {}
        started = datetime.now(UTC)
        runs.stages.put(event.identifier, event.pipeline_run_id, stage, "started", started)

        @functools.cache
        def data() -> TrainingSet:
            report.state("downloading")
            log.info("train_start", model_types=list(self._trainer.model_types))
            return claimed_training_set(self._adapters.store, event, settings)

        announced = []
        for model_type in trained_on(self._wanted(before), event.rows, event.columns):
            report.alive(model_type)
            with bind(run_id=derived_run_id(event.event_id, model_type), model_type=model_type):
                try:
                    failed = before.get("failed", {}).get(model_type)
                    if failed is not None:
                        announced.append(training_failed(event, model_type, failed, datetime.now(UTC)))
                    else:
                        announced.append(self._announce(event, model_type, data, settings, report))
                except NoBaselineError as error:
                    log.info("baseline_left_out", reason=error.message)
        runs.stages.put(
            event.identifier,
            event.pipeline_run_id,
            stage,
            "done",
            started,
            datetime.now(UTC),
            # Release 0.1.0 makes a baseline of every name in `bundles`. So the candidates are not among them.
            bundles={one.model_type: _claim(one) for one in announced if one.model_type in self._trainer.baselines},
            failed={one.model_type: one.error for one in announced if one.status == "FAILED"},
        )
        return announced

    def _refit(self, event: RefitRequest, progress: Progress) -> Sequence[ModelRefit]:
        settings = self._settings.with_overrides(event.settings)
        identity, make = self._maker(event, event.model_type, settings)

        def bundle(data: TrainingSet, identity: Identity, report: ProgressReport) -> tuple[Bundle, bytes]:
            return make(data, identity, lambda: report.alive(event.model_type))

        return refit(self._adapters, event, settings, progress, identity=identity, make=bundle)

    def _wanted(self, before: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the model types to announce, in their order.

        If this event was delivered before, the first delivery recorded the baselines that it made. Only these are
        checked: a baseline that could not be fitted then is not tried again.
        """
        baselines = before.get("bundles", self._trainer.baselines)
        return (*self._trainer.candidates, *(name for name in self._trainer.baselines if name in baselines))

    def _announce(
        self,
        event: TrainingData,
        model_type: str,
        data: Callable[[], TrainingSet],
        settings: NonmlSettings,
        report: ProgressReport,
    ) -> ModelTraining:
        clock = time.perf_counter()
        store, bucket = self._adapters.store, self._settings.bucket_model_bundles
        metrics = self._adapters.metrics
        identity, make = self._maker(event, model_type, settings)
        found = reusable_bundle(store, bucket, event, identity) if self._settings.skip_duplicate_configs else None
        if found is None:
            rows = data()
            try:
                made = make(rows, identity, lambda: report.alive(model_type))
            except RejectedError as error:
                if model_type in self._trainer.baselines:
                    raise
                metrics.trainings.labels(model_type, "failed").inc()
                log.warning("train_error", error=error.message, error_code=error.code)
                return training_failed(event, model_type, error.message, datetime.now(UTC))
            claim, bundle = store_bundle(store, bucket, *made), made[0]
        else:
            claim, bundle = found
        duration = time.perf_counter() - clock
        metrics.trainings.labels(model_type, "done" if found is None else "reused").inc()
        if found is None:
            metrics.training_duration.labels(model_type).observe(duration)
        log.info(
            "train_success",
            duration_seconds=round(duration, 3),
            reused=found is not None,
            object_key=claim.object_key,
        )
        return model_training(
            event,
            Announcement(
                model_type=model_type,
                run_id=derived_run_id(event.event_id, model_type),
                mlflow_run_id=None,
                bundle=claim,
                metrics=dict(bundle.metrics),
                duration_seconds=duration,
                reused=found is not None,
            ),
        )

    def _maker(self, event: TrainingData, model_type: str, settings: NonmlSettings) -> tuple[Identity, Make]:
        """Return the names of a model type's bundle, and the function that makes it."""
        threads = self._settings.train_threads or default_threads()
        horizon = horizon_steps(event, settings)
        if model_type in _CANDIDATES:
            candidate_identity, make_candidate = _CANDIDATES[model_type]
            return candidate_identity(event, settings, horizon), lambda data, identity, alive: make_candidate(
                data, identity, horizon=horizon, threads=threads, alive=alive
            )
        return baseline_identity(event, model_type, settings), lambda data, identity, alive: make_baseline(
            data, identity, settings, horizon=horizon, threads=threads, alive=alive
        )


def _claim(event: ModelTraining) -> dict[str, Any] | None:
    return None if event.bundle is None else event.bundle.model_dump(mode="json")
