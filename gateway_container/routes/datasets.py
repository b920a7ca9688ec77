"""Data sets: upload a CSV and start a run on it, list data sets, read the last rows."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse

from flts.contracts.events import EvaluateRequest, RollbackRequest
from flts.contracts.ids import GLOBAL_IDENTIFIER, check_identifier
from flts.errors import FltsError, RejectedError
from flts.killpoints import reached
from flts.observability.logs import bind
from flts.processes.scratch import scratch_folder
from gateway_container.context import Gateway, gateway_of
from gateway_container.domain.uploads import (
    StartingEvent,
    StartRequest,
    parse_flag,
    parse_overrides,
    parse_reason,
)
from gateway_container.domain.views import plain_record
from gateway_container.intake import Checked, StartedRun
from gateway_container.receive import (
    FORM_OVERHEAD_BYTES,
    ReceivedForm,
    check_declared_length,
    is_multipart,
    receive_form,
)
from gateway_container.security import api_key_scheme, require_key

router = APIRouter(tags=["data sets"])

FILES = frozenset({"train", "test"})
TEXTS = frozenset({"settings", "force", "reason", "replace"})
UPLOAD_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["train"],
                    "properties": {
                        "train": {"type": "string", "format": "binary", "description": "CSV of the training rows"},
                        "test": {
                            "type": "string",
                            "format": "binary",
                            "description": "CSV of the test rows; without it the last rows in time are the test",
                        },
                        "settings": {
                            "type": "string",
                            "description": 'JSON object of settings for this run: {"EPOCHS": 5, "TARGETS": "down"}',
                        },
                        "force": {
                            "type": "boolean",
                            "description": "Compute again what an earlier run has computed",
                        },
                        "reason": {"type": "string", "description": "Reason, kept with the record"},
                        "replace": {
                            "type": "boolean",
                            "description": "Accept other columns, another step or far fewer rows than before",
                        },
                    },
                }
            }
        },
    },
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "schema": {"type": "string"},
            "description": "The same key answers the same run, however often it is sent",
        },
        {
            "name": "replace",
            "in": "query",
            "required": False,
            "schema": {"type": "boolean"},
            "description": "As the field replace of the form",
        },
    ],
}


@router.post(
    "/datasets",
    status_code=202,
    dependencies=[Depends(api_key_scheme), Depends(require_key)],
    openapi_extra=UPLOAD_BODY,
    summary=f"Upload a data set as `{GLOBAL_IDENTIFIER}` and start a run on it",
)
async def upload_global(request: Request) -> JSONResponse:
    """As `POST /datasets/{identifier}`, for installations with one series."""
    return await upload(GLOBAL_IDENTIFIER, request)


@router.post(
    "/datasets/{identifier}",
    status_code=202,
    dependencies=[Depends(api_key_scheme), Depends(require_key)],
    openapi_extra=UPLOAD_BODY,
    summary="Upload a data set and start a run on it",
)
async def upload(identifier: str, request: Request) -> JSONResponse:
    """Check the files, store them and start a run; answer with the run and a report of the files."""
    began = datetime.now(UTC)
    gateway = gateway_of(request)
    check_identifier(identifier)
    reached("upload-read.before", identifier)
    limit = gateway.settings.max_upload_bytes
    # An upload has at most two files, so the whole body may be twice as long as one file. The limit of each file is
    # enforced while the gateway receives the file.
    check_declared_length(
        request.headers, limit=2 * limit + FORM_OVERHEAD_BYTES, field_name="train", setting="MAX_UPLOAD_BYTES"
    )
    if not is_multipart(request.headers):
        msg = "send a multipart form with the field train: curl -F train=@train.csv ..."
        raise RejectedError(msg, code="bad_form", field="train")
    try:
        with scratch_folder("upload") as folder:
            form = await receive_form(
                request.stream(),
                request.headers["content-type"],
                folder,
                file_fields=FILES,
                text_fields=TEXTS,
                limit=limit,
                idle_seconds=gateway.settings.upload_idle_seconds,
            )
            reached("upload-read.after", identifier)
            started = await _check_and_start(gateway, identifier, form, request, began)
    except FltsError:
        gateway.metrics.uploads.labels("refused").inc()
        raise
    gateway.metrics.uploads.labels("accepted").inc()
    announced = await announce(gateway, started.event)
    return JSONResponse(started_view(started, announced=announced), status_code=202)


@router.post(
    "/datasets/{identifier}/rollback",
    status_code=202,
    dependencies=[Depends(api_key_scheme), Depends(require_key)],
    summary="Make an earlier champion the current one again",
)
async def roll_back(
    identifier: str, request: Request, of_run: str | None = None, reason: str | None = None
) -> JSONResponse:
    """Start a run that makes the champion of `of_run`, or else the previous champion, the current one again."""
    gateway = gateway_of(request)
    check_identifier(identifier)
    event = await anyio.to_thread.run_sync(gateway.intake.roll_back, identifier, of_run, parse_reason(reason))
    return JSONResponse(requested_view(event, announced=await announce(gateway, event)), status_code=202)


@router.get("/datasets", summary="All data sets with their newest upload, last run and champion")
def list_datasets(request: Request) -> dict[str, Any]:
    """Return every identifier that has an upload or a run."""
    return {"datasets": gateway_of(request).queries.datasets()}


@router.get("/datasets/{identifier}/tail", summary="The last raw rows, as a body for /predict")
def tail(
    identifier: str, request: Request, rows: Annotated[int | None, Query(ge=1, le=10_000)] = None
) -> dict[str, Any]:
    """Return `{"identifier", "index_col", "data"}` of the newest upload, without gaps.

    Without `rows`, 200 rows are returned, or as many as the champion needs.
    """
    check_identifier(identifier)
    return gateway_of(request).tails.tail(identifier, rows)


async def announce(gateway: Gateway, event: StartingEvent) -> bool:
    """Announce a run; wait for the broker at most ``announce_wait_seconds``, after which the outbox continues."""
    work = asyncio.ensure_future(anyio.to_thread.run_sync(gateway.outbox.announce, event))
    done, _ = await asyncio.wait({work}, timeout=gateway.settings.announce_wait_seconds)
    return work.result() if done else False


def started_view(started: StartedRun, *, announced: bool) -> dict[str, Any]:
    """Return the answer to a started run."""
    event = started.event
    run = f"/runs/{event.pipeline_run_id}"
    view = {
        "identifier": event.identifier,
        "pipeline_run_id": event.pipeline_run_id,
        "cause": event.cause,
        "reason": event.reason,
        "repeated": started.repeated,
        "announced": announced,
        "settings": dict(event.settings),
        "force": event.force,
        "claims": {
            "train": event.train.model_dump(mode="json"),
            "test": event.test.model_dump(mode="json") if event.test else None,
        },
        "report": started.report,
        "links": {"run": run, "events": f"{run}/events"},
    }
    return plain_record(view)


def requested_view(event: EvaluateRequest | RollbackRequest, *, announced: bool) -> dict[str, Any]:
    """Return the answer to a request to evaluate again or to roll back."""
    run = f"/runs/{event.pipeline_run_id}"
    return {
        "identifier": event.identifier,
        "pipeline_run_id": event.pipeline_run_id,
        "cause": event.cause,
        "of_run": event.of_run,
        "reason": event.reason,
        "announced": announced,
        "links": {"run": run, "events": f"{run}/events"},
    }


async def _check_and_start(
    gateway: Gateway, identifier: str, form: ReceivedForm, request: Request, began: datetime
) -> StartedRun:
    train = form.files.get("train")
    if train is None:
        msg = "the form has no file train: curl -F train=@train.csv ..."
        raise RejectedError(msg, code="missing_field", field="train")
    asked = StartRequest(
        identifier,
        parse_overrides(form.fields.get("settings")),
        parse_flag(form.fields.get("force"), field="force"),
        "upload",
        request.headers.get("idempotency-key"),
        parse_reason(form.fields.get("reason")),
        parse_flag(form.fields.get("replace") or request.query_params.get("replace"), field="replace"),
    )

    def work() -> StartedRun:
        with bind(identifier=identifier):
            checked: Checked = gateway.intake.check(train, form.files.get("test"), asked)
            return gateway.intake.start(checked, asked, began=began)

    return await anyio.to_thread.run_sync(work, limiter=gateway.validations)
