"""Runs: start, list, show, follow live, announce again, cancel, evaluate again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flts.contracts.events import EvaluateRequest
from flts.contracts.ids import GLOBAL_IDENTIFIER, check_identifier
from flts.errors import ConflictError, RetryableError
from flts.observability.logs import bind
from flts.processes.scratch import scratch_folder
from gateway_container.context import Gateway, gateway_of
from gateway_container.domain.uploads import LONGEST_REASON, StartRequest, clean_overrides, parse_reason
from gateway_container.domain.views import changed_stages
from gateway_container.intake import StartedRun
from gateway_container.receive import LONGEST_FIELD_BYTES, receive_bytes
from gateway_container.routes.datasets import announce, requested_view, started_view
from gateway_container.security import api_key_scheme, require_key

router = APIRouter(tags=["runs"])
WRITE = [Depends(api_key_scheme), Depends(require_key)]


class StartRun(BaseModel):
    """Start a run on the newest upload of an identifier."""

    model_config = ConfigDict(extra="forbid")

    identifier: str = GLOBAL_IDENTIFIER
    settings: dict[str, Any] = {}
    """Settings for this run, e.g. ``{"EPOCHS": 5}``."""
    force: bool = False
    """Compute everything again, also results that an earlier run has stored."""
    salt: str | None = Field(default=None, max_length=200)
    """Sets EXTRA_HASH_SALT: a new salt makes a new config_hash, so everything is computed again."""
    reason: str | None = Field(default=None, max_length=LONGEST_REASON)
    """The reason; it is stored with the run."""


@router.post(
    "/runs",
    status_code=202,
    dependencies=WRITE,
    openapi_extra={
        "requestBody": {"content": {"application/json": {"schema": StartRun.model_json_schema()}}, "required": True}
    },
    summary="Start a run on the newest upload",
)
async def start_run(request: Request) -> JSONResponse:
    """Check the newest upload with these settings and start a run on it.

    Settings of the upload that say how its files are read and which columns are forecast or known ahead are kept
    unless the request names them.
    """
    gateway = gateway_of(request)
    body = await _start_body(gateway, request)
    check_identifier(body.identifier)
    overrides = clean_overrides(body.settings)
    if body.salt is not None:
        overrides["EXTRA_HASH_SALT"] = body.salt
    asked = StartRequest(
        body.identifier,
        overrides,
        body.force,
        "retrain",
        request.headers.get("idempotency-key"),
        parse_reason(body.reason),
    )

    def work() -> StartedRun:
        began = datetime.now(UTC)
        with bind(identifier=body.identifier), scratch_folder("run") as folder:
            train, test = gateway.intake.fetch_newest(body.identifier, folder)
            kept = gateway.intake.data_settings(body.identifier, train, test)
            request_of_run = replace(asked, inherited=kept)
            return gateway.intake.start(gateway.intake.check(train, test, request_of_run), request_of_run, began=began)

    started = await anyio.to_thread.run_sync(work, limiter=gateway.validations)
    announced = await announce(gateway, started.event)
    return JSONResponse(started_view(started, announced=announced), status_code=202)


@router.post("/runs/resume", dependencies=WRITE, summary="Announce unfinished runs again")
def resume_all(
    request: Request,
    older_than_seconds: Annotated[float | None, Query(ge=0, le=10**9)] = None,
    reason: str | None = None,
) -> dict[str, Any]:
    """Announce again, with the same event_id, runs without outcome and without progress for `older_than_seconds`."""
    gateway = gateway_of(request)
    older = gateway.settings.resume_after_seconds if older_than_seconds is None else older_than_seconds
    why = parse_reason(reason)
    resumed = gateway.outbox.resume(older)
    for run_id in resumed:
        gateway.operations.done(
            "resume",
            gateway.queries.identifier_of(run_id),
            pipeline_run_id=run_id,
            reason=why,
            older_than_seconds=older,
        )
    return {"resumed": resumed}


@router.post("/runs/{run_id}/resume", dependencies=WRITE, summary="Announce one unfinished run again")
def resume_one(run_id: str, request: Request, reason: str | None = None) -> dict[str, Any]:
    """Announce a run again with the same event_id; finished work is not repeated."""
    gateway = gateway_of(request)
    identifier = gateway.queries.identifier_of(run_id)
    if gateway.queries.ended(run_id, identifier):
        msg = f"the run {run_id} has ended; `flts retrain {identifier}` starts a new one"
        raise ConflictError(msg, code="run_has_ended", field="pipeline_run_id")
    why = parse_reason(reason)
    resumed = gateway.outbox.resume(0, only=run_id)
    if resumed:
        gateway.operations.done("resume", identifier, pipeline_run_id=run_id, reason=why)
    return {"resumed": resumed}


@router.post("/runs/{run_id}/cancel", dependencies=WRITE, summary="End a run without a decision")
def cancel(run_id: str, request: Request, reason: str | None = None) -> dict[str, Any]:
    """End a run without a decision; running work continues to its end, but none of its models is promoted."""
    gateway = gateway_of(request)
    identifier = gateway.queries.identifier_of(run_id)
    why = parse_reason(reason)
    if not gateway.intake.cancel(identifier, run_id, why):
        msg = f"the run {run_id} has ended already"
        raise ConflictError(msg, code="run_has_ended", field="pipeline_run_id")
    gateway.operations.done("cancel", identifier, pipeline_run_id=run_id, reason=why)
    gateway.live.changed(run_id)
    return {"identifier": identifier, "pipeline_run_id": run_id, "outcome": "cancelled", "reason": why}


@router.post("/runs/{run_id}/evaluate", status_code=202, dependencies=WRITE, summary="Judge a run's candidates again")
async def evaluate_again(run_id: str, request: Request, reason: str | None = None) -> JSONResponse:
    """Start a run that evaluates the candidates of another run again; nothing is trained."""
    gateway = gateway_of(request)

    def work() -> EvaluateRequest:
        return gateway.intake.evaluate_again(gateway.queries.identifier_of(run_id), run_id, parse_reason(reason))

    event = await anyio.to_thread.run_sync(work)
    return JSONResponse(requested_view(event, announced=await announce(gateway, event)), status_code=202)


@router.get("/runs", summary="The newest runs")
def list_runs(
    request: Request, identifier: str | None = None, limit: Annotated[int, Query(ge=1, le=200)] = 20
) -> dict[str, Any]:
    """Return the newest runs, newest first.

    `score` is the error over the horizon on held-out rows, in units of the best baseline's error at each step: 1 is the
    best baseline, lower is better. Runs of release 0.1.0 have the scaled error itself.
    """
    if identifier is not None:
        check_identifier(identifier)
    return {"runs": gateway_of(request).queries.runs(identifier, limit)}


@router.get("/runs/{run_id}", summary="A run: stages, models, scoreboard, decision")
def get_run(run_id: str, request: Request) -> JSONResponse:
    """Return a run's records with its live progress."""
    return JSONResponse(gateway_of(request).queries.run(run_id))


@router.get(
    "/runs/{run_id}/events",
    summary="A run, live (server-sent events)",
    responses={200: {"content": {"text/event-stream": {}}, "description": "state, progress, stage ..., end"}},
    response_class=StreamingResponse,
)
async def events(run_id: str, request: Request) -> StreamingResponse:
    """Stream `state` (the complete run), then `progress` and `stage` as they happen, then `end` at the outcome.

    If the stream breaks, connect again: each stream begins with `state`, so no change is missed.
    """
    gateway = gateway_of(request)
    identifier = await anyio.to_thread.run_sync(gateway.queries.identifier_of, run_id)
    return StreamingResponse(
        _stream(gateway, run_id, identifier),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


async def _start_body(gateway: Gateway, request: Request) -> StartRun:
    # The body is received here and not by FastAPI, which would accept any length and would read the body before it
    # checks the API key.
    body = await receive_bytes(
        request.stream(),
        limit=LONGEST_FIELD_BYTES,
        idle_seconds=gateway.settings.upload_idle_seconds,
        field_name="body",
        setting="fixed",
    )
    try:
        return StartRun.model_validate_json(body or b"{}")
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error


async def _stream(gateway: Gateway, run_id: str, identifier: str) -> AsyncIterator[str]:
    try:
        async for text in _follow(gateway, run_id, identifier):
            yield text
    except RetryableError as error:
        # The store is unavailable, and the status of an answer that has begun cannot change. The stream therefore ends;
        # the client reconnects and gets an error status.
        yield f": {error.code}\n\n"


async def _follow(gateway: Gateway, run_id: str, identifier: str) -> AsyncIterator[str]:
    settings = gateway.settings
    with gateway.live.watching(run_id) as watcher:
        view = await anyio.to_thread.run_sync(gateway.queries.run, run_id, identifier)
        yield message("state", view)
        waited = 0.0
        while view["outcome"] is None:
            note = await watcher.next(settings.sse_poll_seconds)
            if watcher.ended:
                # The stream ends without the event "end", so the client reconnects, to this or another replica.
                yield f": {watcher.reason}\n\n"
                return
            if note is not None and note.kind == "progress":
                yield message("progress", note.data)
                waited = 0.0
                continue
            # A record of the run has changed, or the poll period is over. The run is read again, and its changed stages
            # are sent.
            seen = view
            view = await anyio.to_thread.run_sync(gateway.queries.run, run_id, identifier)
            for stage in changed_stages(seen["stages"], view["stages"]):
                yield message("stage", stage)
                waited = 0.0
            waited += settings.sse_poll_seconds
            if waited >= settings.sse_keep_alive_seconds:
                yield ": still here\n\n"
                waited = 0.0
        yield message("end", view)


def message(event: str, data: dict[str, Any]) -> str:
    """Return one server-sent event."""
    return f"event: {event}\ndata: {json.dumps(data, allow_nan=False, separators=(',', ':'))}\n\n"
