"""Composition roots of the two deployments: the server and the worker."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from flts.contracts import topics
from flts.service import Service, Subscription, Tick
from inference_container.handler import OnInferenceData, OnModelSelected

if TYPE_CHECKING:
    from flts.runtime.adapters import Adapters
    from inference_container.settings import InferenceSettings, WorkerSettings

# Seconds between two checks for a hint, an event about a decided run. Without a hint the worker polls the store every
# FORECAST_TICK_SECONDS.
WAKE_SECONDS = 0.5
HISTORIES_SECONDS = 5.0  # seconds between two checks for champions without a history; without a hint it reads nothing


def build_service(settings: InferenceSettings, adapters: Adapters) -> Service:
    """Return the inference server."""
    # Imported here and not at the top, so that the worker, which has no HTTP API, does not load FastAPI.
    from inference_container.api import InferenceApi  # noqa: PLC0415
    from inference_container.cache import ChampionCache  # noqa: PLC0415
    from inference_container.champions import Champions  # noqa: PLC0415
    from inference_container.domain.batching import Batcher  # noqa: PLC0415
    from inference_container.forecast_log import ForecastLog  # noqa: PLC0415
    from inference_container.predictor import Predictor  # noqa: PLC0415
    from inference_container.refresher import Refresher  # noqa: PLC0415

    metrics = adapters.metrics
    cache = ChampionCache(settings.cache_dir)
    champions = Champions(
        cache,
        metrics,
        default_identifier=settings.identifier,
        max_loaded=settings.max_loaded_champions,
        max_horizon_steps=settings.max_horizon_steps,
        history_enable=settings.history_enable,
    )
    forecast_log = ForecastLog(
        cache.spool,
        metrics,
        queue_bytes=settings.forecast_log_queue_bytes,
        spool_bytes=settings.forecast_log_spool_bytes,
        period_seconds=settings.forecast_log_flush_seconds,
    )
    refresher = Refresher(
        champions,
        metrics,
        period_seconds=settings.pointer_refresh_seconds,
        phase_seconds=secrets.SystemRandom().uniform(0, settings.pointer_refresh_seconds),
        silence_seconds=settings.fetch_timeout_seconds,
        flush_logs=forecast_log.flush,
    )
    batcher = Batcher(max_waiting=settings.max_waiting_requests, deadline_seconds=settings.request_deadline_seconds)
    predictor = Predictor(
        champions,
        batcher,
        metrics,
        max_rows=settings.max_request_rows,
        forecast_log=forecast_log if settings.forecast_log_enable else None,
    )
    api = InferenceApi(
        predictor,
        champions,
        metrics,
        max_body_bytes=settings.max_request_bytes,
        api_key=settings.inference_api_key.get_secret_value() if settings.inference_api_key else None,
        background=(refresher, forecast_log),
    )
    return Service(
        name="inference",
        subscriptions=(Subscription((topics.MODEL_SELECTED,), mode="all", handler=OnModelSelected(refresher.hint)),),
        api=api,
        ready={"the champions of the first list": champions.ready},
        on_start=(refresher.look,),
        on_stop=(forecast_log.stop, refresher.stop, batcher.close),
        requires_backends=False,
    )


def build_worker(settings: WorkerSettings, adapters: Adapters) -> Service:
    """Return the inference worker."""
    # Imported here and not at the top, because the server needs neither the store nor Parquet.
    from inference_container.batch_worker import BatchForecasts  # noqa: PLC0415
    from inference_container.stored_histories import StoredHistories  # noqa: PLC0415

    forecasts = BatchForecasts(adapters.store, adapters.run_store, settings, lambda: adapters.publisher)
    histories = StoredHistories(adapters.store, adapters.run_store.pointers, settings)

    def hint(identifier: str) -> None:
        forecasts.hint(identifier)
        histories.hint(identifier)

    return Service(
        name="inference-worker",
        subscriptions=(
            Subscription(
                (topics.INFERENCE_DATA,),
                mode="group",
                handler=OnInferenceData(adapters.store, adapters.run_store.forecasts, histories),
            ),
            Subscription((topics.MODEL_SELECTED,), mode="all", handler=OnModelSelected(hint)),
        ),
        ticks=(Tick("forecast", WAKE_SECONDS, forecasts.tick), Tick("histories", HISTORIES_SECONDS, histories.tick)),
    )
