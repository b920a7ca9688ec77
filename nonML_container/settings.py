"""Settings of the trainer of Prophet."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flts.settings import ProphetSettings
from flts.training.settings import TrainerSettings


class NonmlSettings(TrainerSettings, ProphetSettings):
    """The environment of ``nonml-prophet``."""

    service_port: int = Field(default=8022, ge=1, le=65535)
    """Port of /healthz, /readyz and /metrics."""
    prophet_optimiser: Literal["exact", "stan"] = "exact"
    """How the most likely parameters are found: `exact` solves for them (additive models), `stan` is Prophet's own."""
