"""Composition root of preprocess."""

from __future__ import annotations

from flts.contracts import topics
from flts.observability.metrics import PREPROCESS_OUTCOMES, begin_at_zero
from flts.runtime.adapters import Adapters
from flts.service import Handler, Service, Subscription
from preprocess_container.handler import PreprocessUpload
from preprocess_container.settings import PreprocessSettings

NAME = "preprocess"


def build_service(settings: PreprocessSettings, adapters: Adapters) -> Service:
    """Return the service; it reads uploads in a child process, so that a hostile upload ends only the child process."""
    begin_at_zero(adapters.metrics.datasets_preprocessed, PREPROCESS_OUTCOMES)
    return Service(
        name=NAME,
        subscriptions=(
            Subscription(
                topics=(topics.RAW_DATA,),
                mode="group",
                child="preprocess_container.bootstrap:build_handler",
                on_exhausted=PreprocessUpload(adapters, settings).give_up,
            ),
        ),
    )


def build_handler(settings: PreprocessSettings, adapters: Adapters) -> Handler:
    """Return the handler; called in the child process."""
    return PreprocessUpload(adapters, settings)
