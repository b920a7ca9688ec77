"""The trainers in the forms that tests need, all derived from `flts.trainers`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flts.trainers import BASELINES, DEFAULT_MODEL_TYPES, SHORT_ROWS, TRAINERS, trained_on
from nonML_container.settings import NonmlSettings
from train_container.settings import TrainSettings

SETTINGS: dict[str, type[Any]] = {"train_container": TrainSettings, "nonML_container": NonmlSettings}
"""Settings class of the trainers in a folder."""
INSTALLED = tuple(trainer.deployment for trainer in TRAINERS if trainer.enabled)
"""Deployments of the trainers that are on by default."""
OFF = tuple(trainer for trainer in TRAINERS if not trainer.enabled)
"""Trainers that are off by default."""
EVERY_TYPE = ",".join(sorted(name for trainer in TRAINERS for name in trainer.awaited))
"""EXPECTED_MODEL_TYPES of an installation with every trainer, in the chart's order."""
LONG_TYPES = trained_on(DEFAULT_MODEL_TYPES, SHORT_ROWS, 1)
"""Model types of an installation by default that a run on many rows waits for."""
PORTS = tuple(f"{trainer.deployment.replace('-', '_').upper()}_PORT" for trainer in TRAINERS)
"""Variables of the trainers' ports that Compose publishes."""


def of_models(trained: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's results without the baselines, for which no run waits."""
    return {model_type: one for model_type, one in trained.items() if model_type not in BASELINES}
