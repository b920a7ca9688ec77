"""The format of every error, ``{"error": {"code", "message", "field"?}}``. Internal details are never shown."""

from __future__ import annotations

import math
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flts.errors import (
    ConflictError,
    FltsError,
    HashMismatchError,
    NotFoundError,
    PreconditionFailedError,
    RejectedError,
    RetryableError,
)
from flts.observability.logs import get_logger
from gateway_container.domain.keys import ForbiddenError
from gateway_container.proxy import InferenceAwayError, InferenceBrokenError
from gateway_container.receive import EncodedBodyError, IdleUploadError, TooLargeError
from gateway_container.security import UnauthorizedError

log = get_logger(__name__)

# An error gets the status of the first class below that it is an instance of, so a subclass precedes its base class.
STATUSES: tuple[tuple[type[FltsError], int], ...] = (
    (UnauthorizedError, 401),
    (ForbiddenError, 403),
    (NotFoundError, 404),
    (IdleUploadError, 408),
    (ConflictError, 409),
    (PreconditionFailedError, 409),
    (TooLargeError, 413),
    (EncodedBodyError, 415),
    (HashMismatchError, 500),
    (RejectedError, 422),
    (InferenceBrokenError, 502),
    (InferenceAwayError, 503),
    (RetryableError, 503),
)
AWAY_RETRY_SECONDS = 2.0


def status_of(error: FltsError) -> int:
    """Return the HTTP status of an error raised on purpose."""
    return next((status for kind, status in STATUSES if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)


def answer_to(error: FltsError) -> JSONResponse:
    """Return the answer to an error raised on purpose."""
    status = 413 if error.code == "too_large" else status_of(error)
    headers = {}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        wait = getattr(error, "retry_after_seconds", AWAY_RETRY_SECONDS)
        headers["Retry-After"] = str(max(1, math.ceil(wait)))
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "ApiKey"
    return JSONResponse(error.as_body(), status_code=status, headers=headers)


def install_problems(app: FastAPI) -> None:
    """Make the application answer every error in the format of this module."""
    app.add_exception_handler(FltsError, _on_flts_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_middleware(UnexpectedErrors)


class UnexpectedErrors:
    """The outermost middleware: logs an unexpected error with its traceback, and answers 500 without the traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception:
            # No other handler caught this error: the client gets a 500.
            log.exception("request_failed", method=scope["method"], path=scope["path"])
            if started:
                # A part of the answer is sent. The server closes the connection, so that the client notices the
                # truncation.
                return
            body = {"error": {"code": "internal", "message": "an unexpected error; the gateway's log has its cause"}}
            await JSONResponse(body, status_code=500)(scope, receive, send)


async def _on_flts_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, FltsError)
    answer = answer_to(error)
    if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.warning(
            "request_refused", path=request.url.path, status=answer.status_code, code=error.code, reason=error.message
        )
    return answer


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    codes = {404: "not_found", 405: "method_not_allowed"}
    messages = {
        404: f"there is no {request.url.path[:200]} here; /docs lists what is",
        405: f"{request.method} is not possible here; /docs lists what is",
    }
    status = error.status_code
    body = {"code": codes.get(status, "http_error"), "message": messages.get(status, str(error.detail)[:500])}
    return JSONResponse({"error": body}, status_code=status, headers=error.headers)


async def _on_validation_error(request: Request, error: Exception) -> Response:  # noqa: ARG001 - the signature of every exception handler
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    names = [str(part) for part in first["loc"] if part not in {"query", "path", "header", "body"}]
    body = {"code": "invalid_request", "message": str(first["msg"])}
    if names:
        body["field"] = ".".join(names)
        body["message"] = f"{body['field']}: {first['msg']}"
    return JSONResponse({"error": body}, status_code=422)


async def _on_disconnect(request: Request, error: Exception) -> Response:  # noqa: ARG001 - the signature of every exception handler
    # The client has disconnected and reads no answer. The route has already removed the partly received files.
    return JSONResponse({"error": {"code": "gone", "message": "the sender went away"}}, status_code=400)
