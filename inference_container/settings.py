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
    """Identifier for requests that name none; without a champion of it, `global`, else the only champion."""
    cache_dir: Path = Path("/var/cache/flts")
    """Folder of the champions on disk, so that a restarted replica serves them before any backend answers."""
    pointer_refresh_seconds: float = Field(default=60, gt=0)
    """Longest time between two polls of the champions' pointers; a message causes an earlier poll."""
    fetch_timeout_seconds: float = Field(default=120, gt=0)
    """Longest time without a report of the fetching child, which reports each champion; then it is stopped."""
    max_loaded_champions: int = Field(default=64, ge=1, le=10_000)
    """Most champions in memory; the least recently used one is unloaded first, the default one never."""
    max_horizon_steps: int = Field(default=2016, ge=1, le=100_000)
    """Longest `inference_length`."""
    max_request_bytes: int = Field(default=4 * 2**20, ge=1024)
    """Most bytes of one request's body."""
    max_request_rows: int = Field(default=20_000, ge=1)
    """Most rows of one request."""
    max_waiting_requests: int = Field(default=1024, ge=1)
    """Most requests under way; further requests are answered 503 with Retry-After."""
    request_deadline_seconds: float = Field(default=5, gt=0)
    """Longest time a request may wait for its answer before it is answered 503."""
    inference_api_key: SecretStr | None = None
    """Key that /predict and /models require in the header `x-api-key`; if unset, they require none."""
    history_enable: bool = True
    """Keep the last rows of each champion's data set, and forecast from them where a request has no or too few rows."""
    forecast_log_enable: bool = True
    """Write served forecasts to the bucket of forecast logs, outside of the request path."""
    forecast_log_queue_bytes: int = Field(default=64 * 2**20, ge=1)
    """Most bytes of forecasts that wait to be logged; a full queue drops and counts further ones."""
    forecast_log_flush_seconds: float = Field(default=5, gt=0)
    """Time between two writes of waiting forecasts to the cache folder; the next poll of all pointers uploads them."""
    forecast_log_spool_bytes: int = Field(default=256 * 2**20, ge=0)
    """Most bytes of forecast logs in the cache folder while the store is away."""


class FetchSettings(InferenceSettings, StoreSettings):
    """Settings of the fetching child. The server checks them at its start too, to report all errors together."""


class WorkerSettings(ServiceSettings, KafkaSettings, StoreSettings):
    """Settings of the inference worker."""

    service_port: int = Field(default=8024, ge=1, le=65535)
    """Port of /healthz, /readyz and /metrics."""
    forecast_tick_seconds: float = Field(default=5, gt=0)
    """Time between two polls for decided runs that wait for their batch forecast."""
    forecast_max_rows: int = Field(default=200_000, ge=1)
    """Most test rows of one batch forecast; if there are more, the latest are forecast."""
    forecast_long_steps: int = Field(default=1440, ge=1, le=100_000)
    """Most steps of the one long forecast in each batch; it has the run's horizon if that is more than one step."""
