"""The gateway's HTTP application: routes, middleware and the format of errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import flts
from flts.observability.metrics import HTTP_OUTCOMES, begin_at_zero
from gateway_container.context import Gateway
from gateway_container.problems import install_problems
from gateway_container.receive import refuse_encoded
from gateway_container.routes import datasets, dead_letters, forecasts, home, objects, operations, runs

UNKNOWN = "unknown"
"""The label of requests that match no route."""
ROUTERS = (datasets.router, runs.router, forecasts.router, objects.router, operations.router, dead_letters.router)

DESCRIPTION = """
A CSV of measurements becomes a served, measured forecast.

Upload with `POST /datasets/{identifier}`, follow with `GET /runs/{run_id}/events`, ask with `POST /predict`.
Writing and downloading need the gateway's key in the header `x-api-key`. Every error is
`{"error": {"code", "message", "field"?}}`.
"""


def create_app(gateway: Gateway) -> FastAPI:
    """Return the application that serves this gateway."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        gateway.live.close()
        await gateway.proxy.close()

    app = FastAPI(title="FLTS gateway", version=flts.__version__, description=DESCRIPTION, lifespan=lifespan)
    app.state.gateway = gateway
    app.state.routes = home.described_routes(ROUTERS)
    for router in (home.router, *ROUTERS):
        app.include_router(router, dependencies=[Depends(_refuse_encoded)])
    paths = {path for _, path, _ in home.described_routes((home.router, *ROUTERS))} | {UNKNOWN}
    begin_at_zero(gateway.metrics.http_requests, sorted(paths), HTTP_OUTCOMES)
    app.add_middleware(CountRequests, gateway=gateway)
    install_problems(app)
    return app


def _refuse_encoded(request: Request) -> None:
    refuse_encoded(request.headers)


class CountRequests:
    """Counts answers by route and outcome; the label is the route's template, so clients cannot add labels."""

    def __init__(self, app: ASGIApp, *, gateway: Gateway) -> None:
        self._app = app
        self._metrics = gateway.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            route = getattr(scope.get("route"), "path", UNKNOWN)
            self._metrics.http_requests.labels(route, f"{status // 100}xx").inc()
