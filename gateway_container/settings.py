"""Settings of the gateway."""

from __future__ import annotations

from typing import Self

from pydantic import Field, SecretStr, model_validator

from flts.recipe_settings import RecipeSettings
from flts.settings import (
    DEFAULT_CREDENTIALS,
    KafkaSettings,
    RetentionSettings,
    ServiceSettings,
    UploadLimits,
    WindowSettings,
)

SHORTEST_KEY = 16


class GatewaySettings(
    ServiceSettings,
    KafkaSettings,
    RetentionSettings,
    UploadLimits,
    RecipeSettings,
    WindowSettings,
):
    """The gateway's settings; they include the recipe and the windows, with which the gateway checks uploads."""

    gateway_api_key: SecretStr
    """Key for writing, /download and /dead-letters (header `x-api-key`); two, `new,old`, during a change of the key."""
    inference_url: str = "http://inference:8000"
    """Address of the inference service, to which the gateway forwards /predict and /models."""
    mlflow_ui_url: str = ""
    """Address of MLflow for people's browsers; linked from the gateway's page."""
    proxy_timeout_seconds: float = Field(default=30, gt=0)
    """Longest wait for an answer of the inference service."""
    max_predict_bytes: int = Field(default=16 * 2**20, ge=1)
    """Bytes of one /predict body."""
    upload_idle_seconds: float = Field(default=60, gt=0)
    """An upload that sends nothing for this long is ended."""
    parallel_validations: int = Field(default=2, ge=1, le=64)
    """Uploads that are read and checked at the same time; further uploads wait."""
    validation_memory_bytes: int = Field(default=3 * 2**30, ge=64 * 2**20)
    """Bytes that the check of one upload may use in its child process, at most the container's free memory; an upload
    that needs more is refused as too_large."""
    validation_seconds: float = Field(default=300, gt=0)
    """Longest time of the check of one upload."""
    announce_wait_seconds: float = Field(default=5, gt=0)
    """How long an upload's answer waits for the broker; the outbox then continues to announce the run."""
    outbox_scan_seconds: float = Field(default=10, gt=0)
    """Time between two searches of the store for runs that were never announced."""
    resume_after_seconds: float = Field(default=900, ge=0)
    """`flts resume` announces runs again that have been without progress for this long."""
    sse_queue_size: int = Field(default=256, ge=4)
    """Events that wait for one client that follows a run; a slower client is disconnected and connects again."""
    sse_keep_alive_seconds: float = Field(default=15, gt=0)
    """Time between two keep-alive comments in a stream of events."""
    sse_poll_seconds: float = Field(default=2, gt=0)
    """Time between two reads of a run's records while a client follows the run, because messages are only hints."""
    replay_per_second: float = Field(default=50, gt=0, le=1_000)
    """Dead letters that are replayed in a second at most."""
    idempotency_keep_days: float = Field(default=7, gt=0)
    """How long an Idempotency-Key is remembered."""

    @model_validator(mode="after")
    def _keys_are_keys(self) -> Self:
        keys = self.api_keys()
        if not 1 <= len(keys) <= 2:  # noqa: PLR2004 - one key, or the old and the new key while the key is changed
            msg = "GATEWAY_API_KEY: one key, or two (the old and the new one) separated by a comma"
            raise ValueError(msg)
        for key in keys:
            if not self.allow_default_credentials and (len(key) < SHORTEST_KEY or key.lower() in DEFAULT_CREDENTIALS):
                msg = (
                    f"GATEWAY_API_KEY: must have at least {SHORTEST_KEY} characters "
                    "(ALLOW_DEFAULT_CREDENTIALS=1 accepts less on a throw-away installation)"
                )
                raise ValueError(msg)
        return self

    def api_keys(self) -> tuple[str, ...]:
        """Return the valid keys."""
        return tuple(part.strip() for part in self.gateway_api_key.get_secret_value().split(",") if part.strip())
