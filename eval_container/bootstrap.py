"""Composition root of eval."""

from __future__ import annotations

import time

from eval_container.ending import Ending
from eval_container.housekeeping import DrainSpool, JanitorTick, Overdue, SignsOfLife
from eval_container.settings import EvalSettings
from flts.contracts import topics
from flts.contracts.events import RefitRequest
from flts.observability.metrics import DECISIONS, begin_at_zero
from flts.runtime.adapters import Adapters
from flts.service import Service, Subscription, Tick

MAX_JANITOR_TICK_SECONDS = 3600.0
"""Seconds; the lease states when a round is due, and an hourly check keeps the period across restarts and replicas."""


def build_service(settings: EvalSettings, adapters: Adapters) -> Service:
    """Return the service of eval; models run in its child process, and only this process imports ONNX Runtime."""
    signs = SignsOfLife()
    begin_at_zero(adapters.metrics.promotions, DECISIONS)
    janitor_tick_seconds = min(settings.janitor_period_seconds, MAX_JANITOR_TICK_SECONDS)
    return Service(
        name="eval",
        subscriptions=(
            Subscription(
                topics=(topics.TRAINING_DATA, topics.MODEL_TRAINING, topics.MODEL_REFIT),
                mode="group",
                child="eval_container.handler:build_handler",
                wants=lambda event: not isinstance(event, RefitRequest),
                on_exhausted=Ending(adapters, time.time).give_up,
            ),
            Subscription(topics=(topics.RUN_PROGRESS, topics.MODEL_TRAINING), mode="all", handler=signs),
        ),
        ticks=(
            Tick("overdue", settings.eval_tick_seconds, Overdue(settings, adapters, signs)),
            Tick("spool", settings.spool_drain_seconds, DrainSpool(settings, adapters)),
            Tick("janitor", janitor_tick_seconds, JanitorTick(settings, adapters)),
        ),
    )
