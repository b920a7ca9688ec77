"""The trainer of the models that are not networks, without Kafka: an event in, a bundle that forecasts out."""

from __future__ import annotations

from flts.bundle.forecaster import Forecaster
from flts.bundle.load import fetch_bundle
from flts.bundle.model import BundleModel
from flts.contracts.events import ModelTraining
from nonML_container.handler import train_in_child
from nonML_container.settings import NonmlSettings
from tests.training_sets import Progress, Stored, adapters_of


def trained(
    stored: Stored, settings: NonmlSettings, progress: Progress | None = None
) -> tuple[ModelTraining, Forecaster]:
    """Train on a stored data set; return the trainer's event, and its bundle loaded as inference loads it."""
    handler = train_in_child(settings, adapters_of(stored, settings))
    (event,) = handler(stored.event, progress or Progress())
    assert isinstance(event, ModelTraining)
    assert event.bundle is not None
    return event, Forecaster(BundleModel(*fetch_bundle(stored.store, event.bundle)))
