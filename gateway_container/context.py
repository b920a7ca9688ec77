"""The objects that routes use; `gateway_container.api.create_app` stores them on the application."""

from __future__ import annotations

from dataclasses import dataclass

import anyio
from fastapi import Request

from flts.housekeeping.janitor import Janitor
from flts.observability.metrics import Metrics
from flts.storage.operations import Operations
from gateway_container.dead_letters import DeadLetterDesk
from gateway_container.deleting import Deleting
from gateway_container.intake import Intake
from gateway_container.live import LiveRuns
from gateway_container.outbox import Outbox
from gateway_container.proxy import InferenceProxy
from gateway_container.queries import Queries
from gateway_container.settings import GatewaySettings
from gateway_container.tail import Tails


@dataclass(frozen=True, slots=True)
class Gateway:
    """The gateway's parts."""

    settings: GatewaySettings
    intake: Intake
    outbox: Outbox
    queries: Queries
    tails: Tails
    live: LiveRuns
    proxy: InferenceProxy
    operations: Operations
    deleting: Deleting
    janitor: Janitor
    dead_letters: DeadLetterDesk
    metrics: Metrics
    validations: anyio.CapacityLimiter
    """Limits the uploads that are checked or stored at the same time, because each check holds a table in memory."""


def gateway_of(request: Request) -> Gateway:
    """Return the parts of the gateway that serves this request."""
    gateway = request.app.state.gateway
    assert isinstance(gateway, Gateway)
    return gateway
