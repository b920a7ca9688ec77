"""Composition root of the trainer."""

from __future__ import annotations

from flts.contracts import topics
from flts.runtime.adapters import Adapters
from flts.runtime.service import Service, Subscription
from flts.training.announce import announce_failure, stage_of
from train_container.settings import TrainSettings


def build_service(settings: TrainSettings, adapters: Adapters) -> Service:
    """Return the trainer as a value; the work runs in a child process, which alone pays for torch."""
    return Service(
        name=stage_of(settings.model_type),
        subscriptions=(
            Subscription(
                topics=(topics.TRAINING_DATA,),
                mode="group",
                child="train_container.handler:train_in_child",
                on_exhausted=announce_failure(adapters, settings.model_type),
            ),
        ),
    )
