"""Composition root of the trainers of models that are not networks."""

from __future__ import annotations

from flts.runtime.adapters import Adapters
from flts.service import Service
from flts.trainers import trainer_of
from flts.training.service import trainer_service
from nonML_container.settings import NonmlSettings


def build_service(settings: NonmlSettings, adapters: Adapters) -> Service:
    """Return the trainer's service; it trains in a child process, and only this process imports the model's library."""
    return trainer_service(trainer_of(settings.model_type), adapters, child="nonML_container.handler:train_in_child")
