"""The handler of all trainers: it consumes a claimed data set and returns one ``ModelTraining`` event."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from flts.bundle import proof
from flts.bundle.format import Bundle
from flts.bundle.load import fetch_bundle
from flts.bundle.write import store_bundle
from flts.contracts.claim_check import ClaimCheck
from flts.contracts.events import ModelRefit, ModelTraining, RefitRequest, TrainingData
from flts.contracts.ids import derived_run_id
from flts.errors import ObjectNotFoundError, RejectedError, SeriesTooShortError
from flts.observability.logs import bind, get_logger
from flts.processes.replayed import is_replayed
from flts.runtime.adapters import Adapters
from flts.service import Progress
from flts.storage.run_store import RunStore
from flts.trainers import Trainer
from flts.training.announce import Announcement, announce_failure, model_training
from flts.training.bundling import Identity, identity_of, make_bundle
from flts.training.constant import constant_model
from flts.training.dataset import claimed_training_set, horizon_steps, log_feature_summary
from flts.training.fitting import FittedModel, Fitter, HorizonTooShortError, TrainingSet
from flts.training.folds import make_with_folds
from flts.training.patience import patiently
from flts.training.record import Record
from flts.training.refit import refit
from flts.training.report import ProgressReport
from flts.training.reuse import reusable_bundle
from flts.training.settings import TrainerSettings
from flts.training.threads import default_threads

TRAINER_VERSION = 1
"""Version; a change of FLTS that makes another model of the same rows raises it. Part of train_hash."""

SettingsT = TypeVar("SettingsT", bound=TrainerSettings)

log = get_logger(__name__)


class TrainOnDataset(Generic[SettingsT]):
    """Train a model on a data set, unless its bundle is stored already, and return the event that announces it.

    Parameters
    ----------
    adapters : Adapters
    settings : TrainerSettings and the fitter's own
        A run's overrides replace them.
    trainer : Trainer
        The model type's entry in the registry.
    fitter : Fitter
        The model type's fit.
    """

    def __init__(self, adapters: Adapters, settings: SettingsT, trainer: Trainer, fitter: Fitter[SettingsT]) -> None:
        self._adapters = adapters
        self._settings = settings
        self._trainer = trainer
        self._fitter = fitter
        self._stage = trainer.deployment

    def __call__(
        self, event: TrainingData | RefitRequest, progress: Progress
    ) -> Sequence[ModelTraining] | Sequence[ModelRefit]:
        """Return the event with the result of the training or refit; a repeated delivery returns the same event.

        If the rows are too few for the model, or a network could not reach the horizon, the event has the status FAILED
        and the reason.

        If the run ended without this model, the trainer trains nothing and returns no event: eval does not wait for it.
        """
        if isinstance(event, RefitRequest):
            return self._refit(event, progress)
        model_type = self._trainer.model_type
        run_id = derived_run_id(event.event_id, model_type)
        with bind(run_id=run_id, model_type=model_type):
            stage = self._adapters.run_store.stages.read(event.identifier, event.pipeline_run_id, self._stage) or {}
            if stage.get("status") == "done" and (announced := self._announced(event, run_id, stage)) is not None:
                return [announced]
            if not is_wanted(self._adapters.run_store, event):
                return []
            try:
                return [self._announce(event, run_id, progress)]
            except (SeriesTooShortError, HorizonTooShortError) as error:
                # The run ends with another model. A replay would end in the same way, so there is no dead letter.
                return announce_failure(self._adapters, self._trainer)(event, error, error.message)

    def _announced(self, event: TrainingData, run_id: str, stage: Mapping[str, Any]) -> ModelTraining | None:
        """Return the event that this training returned before, or None if its stage or its bundle is not usable.

        A record that is delivered again must not be recorded in MLflow again, because each repeat would lengthen
        MLflow's history of the run.
        """
        try:
            claim = ClaimCheck.model_validate(stage["bundle"])
            bundle, model_bytes = fetch_bundle(self._adapters.store, claim)
            proof.prove(bundle, model_bytes)
            done = Announcement(
                model_type=self._trainer.model_type,
                run_id=run_id,
                mlflow_run_id=stage["mlflow_run_id"],
                bundle=claim,
                metrics=dict(bundle.metrics),
                duration_seconds=float(stage["duration_seconds"]),
                reused=bool(stage["reused"]),
            )
        except (RejectedError, ObjectNotFoundError, KeyError, ValueError) as error:
            log.warning("train_record_not_usable", reason=str(error))
            return None
        log.info("train_repeat", object_key=claim.object_key)
        return model_training(event, done)

    def _announce(self, event: TrainingData, run_id: str, progress: Progress) -> ModelTraining:
        started = datetime.now(UTC)
        stages = self._adapters.run_store.stages
        stages.put(event.identifier, event.pipeline_run_id, self._stage, "started", started)
        clock = time.perf_counter()
        settings = self._settings.with_overrides(event.settings)
        identity = self._identity(event, settings)
        report = ProgressReport(self._stage, progress)
        store, bucket = self._adapters.store, self._settings.bucket_model_bundles
        found = reusable_bundle(store, bucket, event, identity) if self._settings.skip_duplicate_configs else None
        if found is None:
            claim, bundle, mlflow_run_id = self._train(event, run_id, identity, settings, report)
        else:
            claim, bundle, mlflow_run_id = self._reuse(event, run_id, found, settings, report)
        duration = time.perf_counter() - clock
        metrics = self._adapters.metrics
        metrics.trainings.labels(identity.model_type, "done" if found is None else "reused").inc()
        if found is None:  # not for a reused bundle, which would count as a training of milliseconds
            metrics.training_duration.labels(identity.model_type).observe(duration)
        stages.put(
            event.identifier,
            event.pipeline_run_id,
            self._stage,
            "done",
            started,
            datetime.now(UTC),
            run_id=run_id,
            reused=found is not None,
            bundle=claim.model_dump(mode="json"),
            train=event.claim().model_dump(mode="json"),
            mlflow_run_id=mlflow_run_id,
            duration_seconds=duration,
        )
        log.info(
            "train_success",
            duration_seconds=round(duration, 3),
            reused=found is not None,
            object_key=claim.object_key,
            **{name: value for name, value in bundle.metrics.items() if name.startswith("val_")},
        )
        return model_training(
            event,
            Announcement(
                model_type=identity.model_type,
                run_id=run_id,
                mlflow_run_id=mlflow_run_id,
                bundle=claim,
                metrics=dict(bundle.metrics),
                duration_seconds=duration,
                reused=found is not None,
            ),
        )

    def _refit(self, event: RefitRequest, progress: Progress) -> Sequence[ModelRefit]:
        settings = self._settings.with_overrides(event.settings)
        threads = self._settings.train_threads or default_threads()

        def make(data: TrainingSet, identity: Identity, report: ProgressReport) -> tuple[Bundle, bytes]:
            return make_bundle(self._fit(data, settings, report), data, identity, threads=threads, alive=lambda: None)

        identity = self._identity(event, settings)
        return refit(self._adapters, event, settings, progress, identity=identity, make=make)

    def _identity(self, event: TrainingData, settings: SettingsT) -> Identity:
        parts = {
            **self._fitter.hash_parts(settings, event.horizon_steps),
            "settings": self._own(settings),
            "trainer_version": TRAINER_VERSION,
        }
        return identity_of(event, self._trainer.model_type, parts)

    def _own(self, settings: SettingsT) -> dict[str, Any]:
        """Return the settings of this model type; a hyperparameter of another type does not change train_hash."""
        return settings.hashed(self._trainer.settings)

    def _reuse(
        self,
        event: TrainingData,
        run_id: str,
        found: tuple[ClaimCheck, Bundle],
        settings: SettingsT,
        report: ProgressReport,
    ) -> tuple[ClaimCheck, Bundle, str | None]:
        claim, bundle = found
        log.info("train_skip_duplicate", object_key=claim.object_key, train_hash=bundle.train_hash)
        report.state("reused")
        with Record(self._adapters.tracker, event, run_id, self._parameters(event, settings), reused=True) as record:
            record.final(bundle.metrics)
            mlflow_run_id = record.close(event, claim, bundle)
        return claim, bundle, mlflow_run_id

    def _train(
        self,
        event: TrainingData,
        run_id: str,
        identity: Identity,
        settings: SettingsT,
        report: ProgressReport,
    ) -> tuple[ClaimCheck, Bundle, str | None]:
        report.state("downloading")
        with Record(self._adapters.tracker, event, run_id, self._parameters(event, settings)) as record:
            report.record = record
            data = claimed_training_set(self._adapters.store, event, settings)
            data = replace(data, horizon=event.horizon_steps)
            log_feature_summary(data, settings)
            log.info("train_start", train_hash=identity.train_hash)
            fitted = self._fit(data, settings, report)
            report.state("calibrating")
            threads = self._settings.train_threads or default_threads()
            made = make_with_folds(
                fitted,
                data,
                identity,
                horizon=horizon_steps(event, settings),
                threads=threads,
                alive=lambda: report.state("calibrating"),
            )
            store, bucket = self._adapters.store, self._settings.bucket_model_bundles

            def keep() -> tuple[ClaimCheck, Bundle]:
                claim = store_bundle(store, bucket, *made)
                # Another attempt may have stored its bundle first. So the bundle is read back, and the stored bundle is
                # announced and recorded.
                return claim, fetch_bundle(store, claim)[0]

            # The write is retried while the store is unavailable, so that a long training is not repeated.
            claim, stored = patiently(keep, alive=lambda: report.state("storing"))
            record.history(fitted.history)
            record.final(stored.metrics)
            mlflow_run_id = record.close(event, claim, stored)
        return claim, stored, mlflow_run_id

    def _fit(self, data: TrainingSet, settings: SettingsT, report: ProgressReport) -> FittedModel:
        if not data.recipe.varying_targets:
            log.info("train_all_constant", targets=list(data.recipe.targets))
            return constant_model(data)
        return self._fitter.fit(data, settings, report)

    def _parameters(self, event: TrainingData, settings: SettingsT) -> Mapping[str, object]:
        return {
            "model_type": self._trainer.model_type,
            "config_hash": event.config_hash,
            **self._own(settings),
            **self._fitter.hash_parts(settings, event.horizon_steps),
        }


def is_wanted(runs: RunStore, event: TrainingData) -> bool:
    """Return whether to train for this event: not if the run has ended, unless the event is a replay."""
    # A replayed dead letter trains the model although its run has ended, because a later run can reuse the bundle.
    if is_replayed():
        return True
    ended = runs.runs.end(event.identifier, event.pipeline_run_id)
    if ended is not None:
        log.info("train_skip_ended", outcome=ended)
    return ended is None
