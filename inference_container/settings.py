"""Settings of the inference server and of the inference worker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr

from flts.contracts.ids import IDENTIFIER_PATTERN
from flts.settings import KafkaSettings, ServiceSettings, StoreSettings


class InferenceSettings(ServiceSettings, KafkaSettings):
    """Settings of the inference server. It has no store; only its fetching child connects to one."""

    identifier: Annotated[str, Field(pattern=f"^{IDENTIFIER_PATTERN.pattern}$")] | None = None
    """Identifier answered where a request names none; else `global`, else the only champion."""
    cache_dir: Path = Path("/var/cache/flts")
    """Folder that keeps the champions, so that a restart serves them before any backend answers."""
    pointer_refresh_seconds: float = Field(default=60, gt=0)
    """Longest time between two looks at the champions' pointers; messages only make it sooner."""
    fetch_timeout_seconds: float = Field(default=120, gt=0)
    """Longest time the fetching child may take without fetching one more champion."""
    max_loaded_champions: int = Field(default=64, ge=1, le=10_000)
    """Champions held in memory; the one not asked for the longest is let go first."""
    max_horizon_steps: int = Field(default=2016, ge=1, le=100_000)
    """Longest `inference_length`."""
    max_request_bytes: int = Field(default=4 * 2**20, ge=1024)
    """Bytes of one request's body."""
    max_request_rows: int = Field(default=20_000, ge=1)
    """Rows of one request."""
    max_waiting_requests: int = Field(default=1024, ge=1)
    """Requests under way at once; further ones are answered 503 with Retry-After."""
    request_deadline_seconds: float = Field(default=5, gt=0)
    """Longest time a request may wait for its answer before it is answered 503."""
    inference_api_key: SecretStr | None = None
    """Key that /predict and /models ask for in the header `x-api-key`; unset leaves them open."""
    forecast_log_enable: bool = True
    """Write served forecasts to the bucket of forecast logs, behind the requests."""
    forecast_log_queue_bytes: int = Field(default=64 * 2**20, ge=1)
    """Bytes of forecasts that wait to be written; a full queue drops and counts, never a request."""
    forecast_log_flush_seconds: float = Field(default=5, gt=0)
    """Time between two writes of waiting forecasts to the cache folder, from where the next look at the pointers
    takes them to the store."""
    forecast_log_spool_bytes: int = Field(default=256 * 2**20, ge=0)
    """Bytes of forecast logs kept in the cache folder while the store is away."""


class FetchSettings(InferenceSettings, StoreSettings):
    """Settings of the fetching child. The server checks them at its start too, to report all errors together."""


class WorkerSettings(ServiceSettings, KafkaSettings, StoreSettings):
    """Settings of the inference worker."""

    service_port: int = Field(default=8024, ge=1, le=65535)
    """Port of /healthz, /readyz and /metrics."""
    forecast_tick_seconds: float = Field(default=5, gt=0)
    """Time between two looks for runs that were decided and wait for their batch forecast."""
    forecast_max_rows: int = Field(default=200_000, ge=1)
    """Most test rows that one batch forecast covers; of more, the latest."""
    forecast_long_steps: int = Field(default=1440, ge=1, le=100_000)
    """Horizon of the one long forecast in each batch."""
