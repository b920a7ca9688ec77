"""Settings of the trainers of networks."""

from __future__ import annotations

from pydantic import Field, field_validator

from flts.model_settings import TrainingSettings
from flts.trainers import trained_in
from flts.training.settings import TrainerSettings


class TrainSettings(TrainerSettings, TrainingSettings):
    """The environment of a trainer of networks."""

    service_port: int = Field(default=8021, ge=1, le=65535)
    """Port of /healthz, /readyz and /metrics."""
    model_type: str
    """Which registered model this deployment trains: GRU or LSTM."""

    @field_validator("model_type")
    @classmethod
    def _registered(cls, value: str) -> str:
        return trained_in("train_container", value)
