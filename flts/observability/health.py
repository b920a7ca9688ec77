"""The paths /healthz, /readyz and /metrics, the same in every service, in front of the service's own API."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from flts.observability.metrics import CONTENT_TYPE, Metrics

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Message, Receive, Send], Awaitable[None]]

PATHS = ("/healthz", "/readyz", "/metrics")


class Health:
    """The heartbeats of loops (/healthz) and the conditions of readiness (/readyz). Thread-safe."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._beats: dict[str, tuple[float, float]] = {}
        self._conditions: dict[str, Callable[[], bool]] = {}

    def watch(self, loop: str, *, silent_seconds: float) -> None:
        """Expect a heartbeat of a loop within every ``silent_seconds``, from now on."""
        with self._lock:
            self._beats[loop] = (self._clock(), silent_seconds)

    def beat(self, loop: str) -> None:
        """Record a heartbeat of a loop."""
        with self._lock:
            if loop in self._beats:
                self._beats[loop] = (self._clock(), self._beats[loop][1])

    def forget(self, loop: str) -> None:
        """Expect no more heartbeats of a loop, because it has ended normally."""
        with self._lock:
            self._beats.pop(loop, None)

    def require(self, what: str, holds: Callable[[], bool]) -> None:
        """Add a named condition of readiness."""
        with self._lock:
            self._conditions[what] = holds

    def stalled(self) -> list[str]:
        """Return the loops whose last heartbeat is too old."""
        now = self._clock()
        with self._lock:
            return sorted(loop for loop, (last, silent) in self._beats.items() if now - last > silent)

    def waiting_for(self) -> list[str]:
        """Return the names of the conditions of readiness that are false or raise an error."""
        with self._lock:
            conditions = list(self._conditions.items())
        return [what for what, holds in conditions if not _holds(holds)]


class HealthApp:
    """ASGI application that answers the three paths and passes all other requests to the service's API.

    Parameters
    ----------
    health, metrics
        The state that the paths show.
    api : ASGI application or None
        The service's API. Without an API every other path is answered with 404.
    """

    def __init__(self, health: Health, metrics: Metrics, api: AsgiApp | None = None) -> None:
        self._health = health
        self._metrics = metrics
        self._api = api

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] == "http" and scope["path"] in PATHS:
            await self._answer(scope, send)
        elif self._api is not None:
            await self._api(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _live_through(receive, send)
        elif scope["type"] == "http":
            await _send_json(send, 404, {"error": {"code": "not_found", "message": f"paths here: {', '.join(PATHS)}"}})

    async def _answer(self, scope: Message, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await _send_json(send, 405, {"error": {"code": "method_not_allowed", "message": "GET only"}})
        elif scope["path"] == "/healthz":
            stalled = self._health.stalled()
            await _send_json(
                send, 503 if stalled else 200, {"status": "stalled" if stalled else "ok", "stalled": stalled}
            )
        elif scope["path"] == "/readyz":
            # A condition may wait for a lock or a file, so a thread outside the event loop evaluates it.
            waiting = await asyncio.to_thread(self._health.waiting_for)
            body = {"status": "waiting" if waiting else "ready", "waiting_for": waiting}
            await _send_json(send, 503 if waiting else 200, body)
        else:
            text = await asyncio.to_thread(self._metrics.text)
            await _send(send, 200, CONTENT_TYPE, text)


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return bool(condition())
    except Exception:  # noqa: BLE001 - a condition that raises an error counts as not met
        return False


async def _live_through(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _send_json(send: Send, status: int, body: dict[str, Any]) -> None:
    await _send(send, status, "application/json", json.dumps(body).encode())


async def _send(send: Send, status: int, content_type: str, body: bytes) -> None:
    headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
