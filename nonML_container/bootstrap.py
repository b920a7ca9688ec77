"""Composition root of the trainer of Prophet."""

from __future__ import annotations

from flts.contracts import topics
from flts.runtime.adapters import Adapters
from flts.runtime.service import Service, Subscription
from flts.training.announce import announce_failure, stage_of
from nonML_container.settings import NonmlSettings

MODEL_TYPE = "PROPHET"


def build_service(settings: NonmlSettings, adapters: Adapters) -> Service:  # noqa: ARG001 - the form of every service
    """Return the trainer as a value; the work runs in a child process, which alone pays for prophet."""
    return Service(
        name=stage_of(MODEL_TYPE),
        subscriptions=(
            Subscription(
                topics=(topics.TRAINING_DATA,),
                mode="group",
                child="nonML_container.handler:train_in_child",
                on_exhausted=announce_failure(adapters, MODEL_TYPE),
            ),
        ),
    )
