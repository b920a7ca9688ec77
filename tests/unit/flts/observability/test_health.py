from __future__ import annotations

import asyncio
import json
from typing import Any

from prometheus_client import CollectorRegistry

from flts.observability.health import AsgiApp, Health, HealthApp, Message, Receive, Send
from flts.observability.metrics import Metrics


def ask(app: AsgiApp, path: str, method: str = "GET", kind: str = "http") -> tuple[int, bytes]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        sent.append(message)

    # The type of an ASGI app promises an awaitable. This app returns a coroutine, which asyncio.run needs.
    asyncio.run(app({"type": kind, "path": path, "method": method}, receive, send))  # type: ignore[arg-type]
    return sent[0]["status"], sent[1]["body"]


def make(health: Health, api: AsgiApp | None = None) -> HealthApp:
    return HealthApp(health, Metrics(CollectorRegistry()), api)


def test_alive_as_long_as_every_loop_goes_round() -> None:
    now = [0.0]
    health = Health(clock=lambda: now[0])
    health.watch("consume", silent_seconds=60)
    app = make(health)

    now[0] = 59
    assert ask(app, "/healthz")[0] == 200
    now[0] = 61
    status, body = ask(app, "/healthz")
    assert status == 503
    assert json.loads(body)["stalled"] == ["consume"]
    health.beat("consume")
    assert ask(app, "/healthz")[0] == 200
    now[0] = 200
    health.forget("consume")
    assert ask(app, "/healthz")[0] == 200


def test_ready_when_nothing_is_waited_for_and_says_what_is() -> None:
    health = Health()
    holds = {"backends": False}
    health.require("backends", lambda: holds["backends"])
    health.require("champion", lambda: bool(1 / holds["backends"]))
    app = make(health)

    status, body = ask(app, "/readyz")
    assert status == 503
    assert json.loads(body)["waiting_for"] == ["backends", "champion"]
    holds["backends"] = True
    assert ask(app, "/readyz")[0] == 200


def test_metrics_are_prometheus_text() -> None:
    status, body = ask(make(Health()), "/metrics")

    assert status == 200
    assert b"# TYPE flts_training_stuck_total counter" in body


def test_everything_else_is_the_services_own() -> None:
    async def api(scope: Message, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 201, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    assert ask(make(Health(), api), "/predict") == (201, b"/predict")
    assert ask(make(Health(), api), "/healthz")[0] == 200
    assert ask(make(Health()), "/predict")[0] == 404
    assert ask(make(Health()), "/healthz", method="POST")[0] == 405


def test_a_service_without_an_api_lives_through_its_servers_start_and_end() -> None:
    asked = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent: list[Any] = []

    async def receive() -> Message:
        return next(asked)

    async def send(message: Message) -> None:
        sent.append(message["type"])

    asyncio.run(make(Health())({"type": "lifespan"}, receive, send))

    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
