"""Settings of the trainers of models that are not networks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from flts.model_settings import ProphetSettings
from flts.trainers import trained_in
from flts.training.settings import TrainerSettings


class NonmlSettings(TrainerSettings, ProphetSettings):
    """The environment of a trainer of models that are not networks."""

    service_port: int = Field(default=8022, ge=1, le=65535)
    """Port of /healthz, /readyz and /metrics."""
    model_type: str = "PROPHET"
    """Which registered model this deployment trains."""
    prophet_optimiser: Literal["exact", "stan"] = "exact"
    """How the most likely parameters are found: `exact` solves for them (additive models), `stan` is Prophet's own."""

    @field_validator("model_type")
    @classmethod
    def _registered(cls, value: str) -> str:
        return trained_in("nonML_container", value)
