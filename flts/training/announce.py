"""The events of trainers. The module imports few modules, because the parent of the training child process uses it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from flts.contracts.claim_check import ClaimCheck
from flts.contracts.events import Event, ModelRefit, ModelTraining, RefitRequest, TrainingData
from flts.contracts.ids import derived_event_id, derived_run_id
from flts.errors import FltsError
from flts.observability.logs import get_logger
from flts.observability.metrics import TRAINING_OUTCOMES, begin_at_zero
from flts.runtime.adapters import Adapters
from flts.storage import layout
from flts.trainers import Trainer, trained_on

MAX_ERROR_CHARACTERS = 2000
REFIT_STAGE = "refit"
"""Stage of a run in which the trainer of the winner fits it again."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Announcement:
    """The result of a training that succeeded."""

    model_type: str
    run_id: str
    mlflow_run_id: str | None
    bundle: ClaimCheck
    duration_seconds: float
    metrics: dict[str, float | None] = field(default_factory=dict)
    reused: bool = False


def model_training(event: TrainingData, done: Announcement) -> ModelTraining:
    """Return the event of a training that succeeded."""
    return ModelTraining(
        event_id=derived_event_id(event.event_id, f"trained-{done.model_type}"),
        identifier=event.identifier,
        pipeline_run_id=event.pipeline_run_id,
        config_hash=event.config_hash,
        created_at=datetime.now(UTC),
        model_type=done.model_type,
        status="SUCCESS",
        run_id=done.run_id,
        mlflow_run_id=done.mlflow_run_id,
        experiment_name=event.identifier,
        model_uri=f"s3://{done.bundle.bucket}/{layout.folder_of(done.bundle.object_key)}",
        bundle=done.bundle,
        train=event.claim(),
        test=event.test,
        metrics=done.metrics,
        duration_seconds=done.duration_seconds,
        reused=done.reused,
    )


def announce_failure(
    adapters: Adapters, trainer: Trainer
) -> Callable[[Event, FltsError | None, str], Sequence[ModelTraining] | Sequence[ModelRefit]]:
    """Return the callback for the last failed attempt: it records the failure and announces it to eval."""
    begin_at_zero(adapters.metrics.trainings, trainer.model_types, TRAINING_OUTCOMES)
    begin_at_zero(adapters.metrics.training_duration, trainer.model_types)
    begin_at_zero(adapters.metrics.refits, trainer.model_types, TRAINING_OUTCOMES)
    begin_at_zero(adapters.metrics.refit_duration, trainer.model_types)

    def on_exhausted(
        event: Event, error: FltsError | None, message: str
    ) -> Sequence[ModelTraining] | Sequence[ModelRefit]:
        if isinstance(event, RefitRequest):
            return refit_failed(adapters, event, error, message)
        if not isinstance(event, TrainingData):
            return []
        now = datetime.now(UTC)
        code = error.code if error is not None else "error"
        run_id = derived_run_id(event.event_id, trainer.model_type)
        log.error("train_error", model_type=trainer.model_type, run_id=run_id, error=message, error_code=code)
        adapters.run_store.stages.put(
            event.identifier,
            event.pipeline_run_id,
            trainer.deployment,
            "failed",
            end=now,
            run_id=run_id,
            error=message[:MAX_ERROR_CHARACTERS],
            error_code=code,
        )
        model_types = trained_on(trainer.model_types, event.rows, event.columns)
        for model_type in model_types:
            adapters.metrics.trainings.labels(model_type=model_type, outcome="failed").inc()
        return [training_failed(event, model_type, message, now) for model_type in model_types]

    return on_exhausted


def training_failed(event: TrainingData, model_type: str, message: str, now: datetime) -> ModelTraining:
    """Return the event of a training that failed for the reason in ``message``."""
    return ModelTraining(
        # A replayed dead letter may still succeed after this failure. So the event of a failure has another id than the
        # event of a success.
        event_id=derived_event_id(event.event_id, f"failed-{model_type}"),
        identifier=event.identifier,
        pipeline_run_id=event.pipeline_run_id,
        config_hash=event.config_hash,
        created_at=now,
        model_type=model_type,
        status="FAILED",
        run_id=derived_run_id(event.event_id, model_type),
        experiment_name=event.identifier,
        train=event.claim(),
        test=event.test,
        duration_seconds=0.0,
        error=message[:MAX_ERROR_CHARACTERS],
    )


def model_refit(request: RefitRequest, bundle: ClaimCheck, *, duration_seconds: float, reused: bool) -> ModelRefit:
    """Return the event of a refit that succeeded."""
    return ModelRefit(
        event_id=derived_event_id(request.event_id, "refitted"),
        identifier=request.identifier,
        pipeline_run_id=request.pipeline_run_id,
        config_hash=request.config_hash,
        created_at=datetime.now(UTC),
        model_type=request.model_type,
        status="SUCCESS",
        judged=request.judged,
        bundle=bundle,
        duration_seconds=duration_seconds,
        reused=reused,
    )


def refit_failed(adapters: Adapters, request: RefitRequest, error: FltsError | None, message: str) -> list[ModelRefit]:
    """Record a refit that failed for the reason in ``message``, and return its event."""
    now, short = datetime.now(UTC), message[:MAX_ERROR_CHARACTERS]
    code = error.code if error is not None else "error"
    log.error("refit_error", model_type=request.model_type, error=message, error_code=code)
    details = {"model_type": request.model_type, "error": short, "error_code": code}
    adapters.run_store.stages.put(
        request.identifier, request.pipeline_run_id, REFIT_STAGE, "failed", end=now, **details
    )
    adapters.metrics.refits.labels(request.model_type, "failed").inc()
    return [
        ModelRefit(
            event_id=derived_event_id(request.event_id, "refit-failed"),
            identifier=request.identifier,
            pipeline_run_id=request.pipeline_run_id,
            config_hash=request.config_hash,
            created_at=now,
            model_type=request.model_type,
            status="FAILED",
            judged=request.judged,
            duration_seconds=0.0,
            error=short,
        )
    ]
