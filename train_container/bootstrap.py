"""Composition root of the trainer of networks."""

from __future__ import annotations

from flts.runtime.adapters import Adapters
from flts.service import Service
from flts.trainers import trainer_of
from flts.training.service import trainer_service
from train_container.settings import TrainSettings


def build_service(settings: TrainSettings, adapters: Adapters) -> Service:
    """Return the trainer's service; it trains in a child process, and only this process imports torch."""
    return trainer_service(trainer_of(settings.model_type), adapters, child="train_container.handler:train_in_child")
