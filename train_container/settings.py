"""Settings of the trainer of neural models."""

from __future__ import annotations

from pydantic import Field, field_validator

from flts.settings import TrainingSettings
from flts.training.settings import TrainerSettings
from train_container.domain.models import MODELS


class TrainSettings(TrainerSettings, TrainingSettings):
    """The environment of ``train-gru`` and ``train-lstm``."""

    service_port: int = Field(default=8021, ge=1, le=65535)
    """Port of /healthz, /readyz and /metrics."""
    model_type: str
    """Which registered model this deployment trains: GRU or LSTM."""

    @field_validator("model_type")
    @classmethod
    def _registered(cls, value: str) -> str:
        name = value.upper()
        if name not in MODELS:
            msg = f"{value} is no registered model; there are {', '.join(sorted(MODELS))}"
            raise ValueError(msg)
        return name
