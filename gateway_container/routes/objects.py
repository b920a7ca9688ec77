"""The routes of the original interface: upload and download of files by bucket and key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio.to_thread
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, StreamingResponse

from flts.errors import RejectedError
from flts.processes.scratch import scratch_folder
from gateway_container.context import Gateway, gateway_of
from gateway_container.domain.keys import check_key, check_readable, incoming_target
from gateway_container.receive import (
    FORM_OVERHEAD_BYTES,
    ReceivedFile,
    check_declared_length,
    is_multipart,
    receive_file,
    receive_form,
)
from gateway_container.security import api_key_scheme, require_key

router = APIRouter(tags=["files"], dependencies=[Depends(api_key_scheme), Depends(require_key)])

UPLOAD_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@router.post("/upload/{bucket}/{key:path}", openapi_extra=UPLOAD_BODY, summary="Store a raw file, starting no run")
async def upload(bucket: str, key: str, request: Request) -> JSONResponse:
    """Store `<identifier>/train.csv` or `<identifier>/test.csv`; `POST /runs` starts a run on these files."""
    gateway = gateway_of(request)
    settings = gateway.settings
    target = incoming_target(bucket, key, raw_bucket=settings.bucket_raw_data)
    limit = settings.max_upload_bytes + (FORM_OVERHEAD_BYTES if is_multipart(request.headers) else 0)
    check_declared_length(request.headers, limit=limit, field_name="file", setting="MAX_UPLOAD_BYTES")
    with scratch_folder("upload") as folder:
        file = await _receive(gateway, request, folder)
        digest = await anyio.to_thread.run_sync(gateway.intake.land, target, file, folder, limiter=gateway.validations)
    answer: dict[str, Any] = {
        "status": "success",
        "bucket": bucket,
        "object_name": key,
        "size_bytes": file.size,
        "stored_as": target.object_key,
        "upload": f"{target.identifier}/{digest}" if digest else None,
        "hint": f"flts retrain {target.identifier} starts a run on it"
        if digest
        else f"there is no {target.identifier}/train.csv yet; upload it, too",
    }
    return JSONResponse(answer)


@router.get("/download/{bucket}/{key:path}", summary="Read a raw file, a processed data set or a forecast log")
def download(bucket: str, key: str, request: Request) -> StreamingResponse:
    """Stream an object in constant memory."""
    gateway = gateway_of(request)
    settings = gateway.settings
    readable = (settings.bucket_raw_data, settings.bucket_processed_data, settings.bucket_inference_logs)
    check_key(key)
    check_readable(bucket, readable=readable)
    info = gateway.intake.head(bucket, key)
    # The object is looked up and opened before the answer begins. A missing object therefore gives a 404 and not a
    # truncated answer.
    chunks: Iterator[bytes] = gateway.intake.stream(bucket, key)
    headers = {
        "content-length": str(info.size),
        "etag": f'"{info.etag.strip(chr(34))}"',
        "x-content-type-options": "nosniff",
        "content-disposition": f'attachment; filename="{key.rsplit("/", 1)[-1]}"',
    }
    return StreamingResponse(chunks, media_type="application/octet-stream", headers=headers)


async def _receive(gateway: Gateway, request: Request, folder: Path) -> ReceivedFile:
    limit, idle = gateway.settings.max_upload_bytes, gateway.settings.upload_idle_seconds
    if not is_multipart(request.headers):
        file = await receive_file(request.stream(), folder, name="file", limit=limit, idle_seconds=idle)
    else:
        form = await receive_form(
            request.stream(),
            request.headers["content-type"],
            folder,
            file_fields=frozenset({"file"}),
            text_fields=frozenset(),
            limit=limit,
            idle_seconds=idle,
        )
        if "file" not in form.files:
            msg = "the form has no field file: curl -F file=@train.csv ..."
            raise RejectedError(msg, code="missing_field", field="file")
        file = form.files["file"]
    if file.size == 0:
        msg = "the file is empty"
        raise RejectedError(msg, code="empty_file", field="file")
    return file
