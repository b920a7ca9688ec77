"""Composition root of the gateway."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio

from flts.contracts import topics
from flts.contracts.events import Event
from flts.dead_letters.accounting import Accounting
from flts.dead_letters.letters import DeadLetters
from flts.dead_letters.replay import Replayer, ReplayMarks
from flts.errors import BackendAwayError
from flts.housekeeping.deletion import Deletion
from flts.housekeeping.janitor import Janitor
from flts.messaging.kafka import Publisher
from flts.observability.logs import get_logger
from flts.observability.metrics import UPLOAD_OUTCOMES, begin_at_zero
from flts.runtime.adapters import Adapters
from flts.service import Service, Subscription, Tick
from flts.storage.operations import Operations
from gateway_container.api import create_app
from gateway_container.checking import ChecksFiles, FileChecks
from gateway_container.context import Gateway
from gateway_container.dead_letters import DeadLetterDesk, check_run
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
# Seconds from a run's start until the outbox publishes the run's event. Before that the request's own publisher may
# still wait for the broker's acknowledgement, which takes up to 25 s.
OUTBOX_GRACE_SECONDS = 30.0
CLEAN_SECONDS = 24 * 3600.0
ACCOUNTING_SECONDS = 30.0
NAME = "fastapi-app"


def build_gateway(settings: GatewaySettings, adapters: Adapters, checks: ChecksFiles) -> Gateway:
    """Return the gateway's parts with their dependencies."""
    live = LiveRuns(queue_size=settings.sse_queue_size)

    def publisher() -> Publisher:
        # The publisher does not exist yet when the gateway is built, only after the service has started. This function
        # therefore looks it up at each call.
        if not adapters.has_publisher:
            msg = "the gateway has not connected to the broker yet"
            raise BackendAwayError(msg, code="kafka_away")
        return adapters.publisher

    def publish(events: Sequence[Event]) -> None:
        publisher().publish_all(events)

    begin_at_zero(adapters.metrics.uploads, UPLOAD_OUTCOMES)
    store, run_store = adapters.store, adapters.run_store
    runs = run_store.runs
    operations = Operations(store, settings)
    intake = Intake(store, run_store, settings, checks)
    return Gateway(
        settings=settings,
        intake=intake,
        outbox=Outbox(
            run_store, publish, live, scan_seconds=settings.outbox_scan_seconds, grace_seconds=OUTBOX_GRACE_SECONDS
        ),
        queries=Queries(store, run_store, live, raw_bucket=settings.bucket_raw_data),
        tails=Tails(store, run_store, settings),
        live=live,
        proxy=InferenceProxy(settings.inference_url, timeout_seconds=settings.proxy_timeout_seconds),
        operations=operations,
        deleting=Deleting(Deletion(store, runs, settings), runs, intake, operations, publish=publish, live=live),
        janitor=Janitor(store, run_store, settings, adapters.metrics),
        dead_letters=_dead_letter_desk(settings, adapters, operations, publisher),
        metrics=adapters.metrics,
        validations=anyio.CapacityLimiter(settings.parallel_validations),
    )


def _dead_letter_desk(
    settings: GatewaySettings, adapters: Adapters, operations: Operations, publisher: Callable[[], Publisher]
) -> DeadLetterDesk:
    letters = DeadLetters(settings, NAME)
    marks = ReplayMarks(adapters.store, settings.bucket_pipeline_runs)
    return DeadLetterDesk(
        letters=letters,
        accounting=Accounting(settings, NAME, letters=letters),
        marks=marks,
        replayer=Replayer(
            settings,
            letters,
            marks,
            leases=adapters.run_store.leases,
            publish=lambda *record: publisher().publish_record(*record),
            check=check_run(adapters.run_store),
        ),
        operations=operations,
        settings=settings,
        metrics=adapters.metrics,
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
        name=NAME,
        subscriptions=(Subscription(topics=topics.ALL, mode="all", handler=WatchRuns(gateway.live)),),
        ticks=(
            Tick("outbox", OUTBOX_SECONDS, gateway.outbox.tick),
            Tick("idempotency-keys", CLEAN_SECONDS, forget_idempotency_keys),
            Tick("accounting", ACCOUNTING_SECONDS, gateway.dead_letters.measure),
            Tick("replay-marks", CLEAN_SECONDS, gateway.dead_letters.forget_old),
        ),
        api=create_app(gateway),
        on_start=(checks.warm_up,),
        on_drain=(gateway.live.close,),
        on_stop=(checks.close,),
    )
