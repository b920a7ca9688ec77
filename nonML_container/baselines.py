"""The work of the baselines' trainer in its child process: fit all baselines of a data set, in 1 to 2 s."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from flts.bundle.write import store_bundle
from flts.contracts.events import ModelTraining, TrainingData
from flts.contracts.ids import derived_run_id
from flts.forecasting.baselines import NoBaselineError
from flts.observability.logs import bind, get_logger
from flts.runtime.adapters import Adapters
from flts.service import Progress
from flts.trainers import Trainer
from flts.training.announce import Announcement, model_training
from flts.training.baselines import baseline_identity, make_baseline
from flts.training.dataset import claimed_training_set
from flts.training.fitting import TrainingSet
from flts.training.handler import is_wanted, reusable_bundle
from flts.training.report import ProgressReport
from flts.training.threads import default_threads
from nonML_container.settings import NonmlSettings

log = get_logger(__name__)


class TrainBaselines:
    """Make the baselines of a data set whose bundles are not stored yet, and return an event for every baseline.

    Baselines are not recorded in MLflow: their bundles and the scoreboard contain their results.

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

    def __call__(self, event: TrainingData, progress: Progress) -> Sequence[ModelTraining]:
        """Return an event for each baseline that could be fitted; a repeated delivery returns the same events."""
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
        # If this event was delivered before, the first delivery recorded the bundles that it made. Only these are
        # checked: a baseline that could not be fitted then is not tried again.
        for model_type in before.get("bundles", self._trainer.model_types):
            report.alive(model_type)
            with bind(run_id=derived_run_id(event.event_id, model_type), model_type=model_type):
                try:
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
            bundles={one.model_type: one.bundle and one.bundle.model_dump(mode="json") for one in announced},
        )
        return announced

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
        identity = baseline_identity(event, model_type, settings)
        found = reusable_bundle(store, bucket, event, identity) if self._settings.skip_duplicate_configs else None
        if found is None:
            threads = self._settings.train_threads or default_threads()
            made = make_baseline(
                data(),
                identity,
                settings,
                horizon=event.horizon_steps or settings.pass_steps,
                threads=threads,
                alive=lambda: report.alive(model_type),
            )
            claim = store_bundle(store, bucket, *made)
        else:
            claim, _ = found
        duration = time.perf_counter() - clock
        metrics = self._adapters.metrics
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
                duration_seconds=duration,
                reused=found is not None,
            ),
        )
