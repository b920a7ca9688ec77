"""Settings that every trainer has."""

from __future__ import annotations

from pydantic import Field

from flts.settings import KafkaSettings, ServiceSettings, StoreSettings, TrackingSettings, WindowSettings


class TrainerSettings(ServiceSettings, KafkaSettings, StoreSettings, TrackingSettings, WindowSettings):
    """Settings of every trainer; the hyperparameters are in the model's own class."""

    skip_duplicate_configs: bool = True
    """Announce the stored bundle of the same config_hash and train_hash again instead of training it anew."""
    train_threads: int | None = Field(default=None, ge=1, le=256)
    """Threads of one training; unset: the container's CPU limit, or half of a whole machine's cores, at most 8."""
