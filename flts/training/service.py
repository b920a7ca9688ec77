"""The service of a trainer: it trains in a child process, and publishes an event if the last attempt failed."""

from __future__ import annotations

from flts.contracts import topics
from flts.runtime.adapters import Adapters
from flts.service import Service, Subscription, WorkEvents
from flts.trainers import Trainer
from flts.training.announce import announce_failure

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
                on_exhausted=announce_failure(adapters, trainer),
                log_events=TRAINING,
            ),
        ),
    )
