"""Composition root: the gateway as a value."""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from flts.contracts import topics
from flts.contracts.events import Event
from flts.errors import BackendAwayError
from flts.housekeeping.deletion import Deletion
from flts.housekeeping.janitor import Janitor
from flts.observability.logs import get_logger
from flts.observability.metrics import UPLOAD_OUTCOMES, begin_at_zero
from flts.runtime.adapters import Adapters
from flts.runtime.service import Service, Subscription, Tick
from flts.storage.operations import Operations
from gateway_container.api import create_app
from gateway_container.checking import ChecksFiles, FileChecks
from gateway_container.context import Gateway
from gateway_container.deleting import Deleting
from gateway_container.handler import WatchRuns
from gateway_container.intake import Intake
from gateway_container.live import LiveRuns
from gateway_container.outbox import Outbox
from gateway_container.proxy import InferenceProxy
from gateway_container.queries import Queries
from gateway_container.settings import GatewaySettings
from gateway_container.tail import Tails

log = get_logger(__name__)

OUTBOX_SECONDS = 2.0
OUTBOX_GRACE_SECONDS = 30.0  # a publisher waits 25 for its acknowledgement
CLEAN_SECONDS = 24 * 3600.0


def build_gateway(settings: GatewaySettings, adapters: Adapters, checks: ChecksFiles) -> Gateway:
    """Return the gateway's parts, connected."""
    live = LiveRuns(queue_size=settings.sse_queue_size)

    def publish(events: Sequence[Event]) -> None:
        # Looked up at each call: there is a publisher only once the service has started.
        if not adapters.has_publisher:
            msg = "the gateway has not connected to the broker yet"
            raise BackendAwayError(msg, code="kafka_away")
        adapters.publisher.publish_all(events)

    begin_at_zero(adapters.metrics.uploads, UPLOAD_OUTCOMES)
    store, runs = adapters.store, adapters.run_store
    operations = Operations(store, settings)
    intake = Intake(store, runs, settings, checks)
    return Gateway(
        settings=settings,
        intake=intake,
        outbox=Outbox(
            runs, publish, live, scan_seconds=settings.outbox_scan_seconds, grace_seconds=OUTBOX_GRACE_SECONDS
        ),
        queries=Queries(store, runs, live, raw_bucket=settings.bucket_raw_data),
        tails=Tails(store, runs, settings),
        live=live,
        proxy=InferenceProxy(settings.inference_url, timeout_seconds=settings.proxy_timeout_seconds),
        operations=operations,
        deleting=Deleting(Deletion(store, runs, settings), runs, intake, operations, publish=publish, live=live),
        janitor=Janitor(store, runs, settings, adapters.metrics),
        metrics=adapters.metrics,
        validations=anyio.CapacityLimiter(settings.parallel_validations),
    )


def build_service(settings: GatewaySettings, adapters: Adapters) -> Service:
    """Return the gateway as a service."""
    checks = FileChecks(settings)
    gateway = build_gateway(settings, adapters, checks)

    def forget_idempotency_keys() -> Sequence[Event]:
        removed = gateway.intake.forget_idempotency_keys()
        if removed:
            log.info("idempotency_keys_removed", removed=removed)
        return ()

    return Service(
        name="fastapi-app",
        subscriptions=(Subscription(topics=topics.ALL, mode="all", handler=WatchRuns(gateway.live)),),
        ticks=(
            Tick("outbox", OUTBOX_SECONDS, gateway.outbox.tick),
            Tick("idempotency-keys", CLEAN_SECONDS, forget_idempotency_keys),
        ),
        api=create_app(gateway),
        on_start=(checks.warm_up,),
        on_drain=(gateway.live.close,),
        on_stop=(checks.close,),
    )
