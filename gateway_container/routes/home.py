"""The page for people at ``/``."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute

from gateway_container.context import gateway_of
from gateway_container.pages import home_page

router = APIRouter(include_in_schema=False)

SHOWN_RUNS = 20


@router.get("/")
def home(request: Request) -> HTMLResponse:
    """Show the champions, the newest runs and the routes."""
    gateway = gateway_of(request)
    page = home_page(
        runs=gateway.queries.runs(None, SHOWN_RUNS),
        champions=gateway.queries.champions(),
        routes=request.app.state.routes,
        mlflow_ui_url=gateway.settings.mlflow_ui_url,
    )
    # The policy forbids scripts and external resources, so that text from a record on this page cannot run as code.
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    return HTMLResponse(page, headers={"content-security-policy": policy, "x-content-type-options": "nosniff"})


def described_routes(routers: tuple[APIRouter, ...]) -> list[tuple[str, str, str]]:
    """Return (method, path, summary) of every route."""
    return [
        (method, route.path, route.summary or "")
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in sorted(route.methods or ())
    ]
