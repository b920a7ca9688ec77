"""The service of a trainer: it trains in a child process, and publishes an event if the last attempt failed."""

from __future__ import annotations

from flts.contracts import topics
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
                topics=(topics.TRAINING_DATA,),
                mode="group",
                child=child,
                niceness=0 if trainer.baselines else TRAINING_NICENESS,
                on_exhausted=announce_failure(adapters, trainer),
                log_events=TRAINING,
            ),
        ),
    )
