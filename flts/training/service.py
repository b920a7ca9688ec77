"""The service of a trainer: it trains in a child process, and publishes an event if the last attempt failed."""

from __future__ import annotations

from flts.contracts import topics
from flts.contracts.events import Event, ModelRefit, RefitRequest
from flts.runtime.adapters import Adapters
from flts.service import Service, Subscription, WorkEvents
from flts.trainers import Trainer
from flts.training.announce import announce_failure

TRAINING_NICENESS = 10
"""Of trainings that take minutes: a process of the usual 0 gets nine times their share of a busy core. The trainer of
LINEAR and the baselines has 0, because a new data set is served by one of them first."""
TRAINING = WorkEvents(retry="train_retry_defer", failed="train_error", stuck="train_stuck")


def trainer_service(trainer: Trainer, adapters: Adapters, *, child: str) -> Service:
    """Return the service of one trainer.

    Parameters
    ----------
    trainer : Trainer
    adapters : Adapters
    child : str
        ``module:function`` that returns the handler in the child process.
    """
    return Service(
        name=trainer.deployment,
        subscriptions=(
            Subscription(
                topics=(topics.TRAINING_DATA, topics.MODEL_REFIT),
                mode="group",
                child=child,
                niceness=0 if trainer.baselines else TRAINING_NICENESS,
                wants=lambda event: _is_work_of(trainer, event),
                on_exhausted=announce_failure(adapters, trainer),
                log_events=TRAINING,
            ),
        ),
    )


def _is_work_of(trainer: Trainer, event: Event) -> bool:
    """Return whether an event is work of a trainer: any data set, and refits of its own models."""
    if isinstance(event, RefitRequest):
        return event.model_type in trainer.model_types
    return not isinstance(event, ModelRefit)
