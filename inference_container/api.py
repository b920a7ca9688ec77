"""HTTP: a plain ASGI function for ``POST /predict``, the hot path, in front of a small FastAPI application."""

from __future__ import annotations

import hmac
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

import flts
from flts.errors import ConflictError, FltsError, NotFoundError, RejectedError, RetryableError
from flts.observability.logs import get_logger
from flts.observability.metrics import Metrics
from inference_container.champions import Champions
from inference_container.predictor import Predictor

log = get_logger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON = (b"content-type", b"application/json")
CLOSE = (b"connection", b"close")
DISCARDED_BYTES = 16 * 2**20
"""Bytes of a too large body that are read and discarded: enough for any body that the gateway forwards."""
PREDICT = "/predict"
KEYED_PATHS = frozenset({PREDICT, "/models"})
EXAMPLE = {
    "identifier": "sample",
    "inference_length": 2,
    "data": {"time": ["2024-01-01T00:00:00Z", "2024-01-01T00:01:00Z"], "down": [1.5, None], "up": [0.25, 0.5]},
}
FUTURE_EXAMPLE = {"identifier": "shop", "inference_length": 3, "future": {"promotion": [0, 1, 1]}}
EXAMPLES = {
    "without rows": {"summary": "from the stored rows", "value": {"identifier": "sample", "inference_length": 2}},
    "with rows": {"summary": "from the rows sent", "value": EXAMPLE},
    "with values known ahead": {"summary": "with the values of columns known ahead", "value": FUTURE_EXAMPLE},
    "with quantiles": {
        "summary": "from the stored rows, with quantiles",
        "value": {"identifier": "sample", "quantiles": [0.1, 0.5, 0.9]},
    },
}
ANSWER_EXAMPLE = {
    "status": "SUCCESS",
    "identifier": "sample",
    "run_id": "0f8fad5bd9cb469fa16570867728950e",
    "model_type": "SEASONAL_NAIVE",
    "config_hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "horizon_steps": 24,
    "calibrated_steps": 24,
    "baseline": "no model passes the gate, so the best baseline is served: SEASONAL_NAIVE",
    "imputed_cells": 1,
    "history_until": "2024-01-01T00:00:00Z",
    "predictions": [
        {
            "ts": "2024-01-01T00:02:00Z",
            "down": 1.5,
            "down_lower": 1.25,
            "down_upper": 1.75,
            "up": 0.5,
            "up_lower": 0.25,
            "up_upper": 1.0,
        },
        {
            "ts": "2024-01-01T00:03:00Z",
            "down": 1.5,
            "down_lower": 1.0,
            "down_upper": 2.0,
            "up": 0.5,
            "up_lower": 0.0,
            "up_upper": 1.25,
        },
    ],
}


class Starts(Protocol):
    """A background part with a thread of its own."""

    def start(self) -> None:
        """Start, once."""
        ...


class InferenceApi:
    """The ASGI application.

    Parameters
    ----------
    predictor : Predictor
    champions : Champions
    metrics : Metrics
    max_body_bytes : int
    api_key : str, optional
        Required in ``x-api-key`` by /predict and /models.
    background : sequence of objects with ``start``
        Started with the HTTP server, before any backend has answered.
    """

    def __init__(
        self,
        predictor: Predictor,
        champions: Champions,
        metrics: Metrics,
        *,
        max_body_bytes: int,
        api_key: str | None = None,
        background: Sequence[Starts] = (),
    ) -> None:
        self._predictor = predictor
        self._max_body_bytes = max_body_bytes
        self._api_key = api_key.encode() if api_key else None
        names = ("success", "rejected", "unavailable", "failed")
        self._outcomes = {name: metrics.predictions.labels(name) for name in names}
        self._rest = _rest(champions, background)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request for ``/predict``; pass every other one to the FastAPI application."""
        if scope["type"] != "http":
            await self._rest(scope, receive, send)
            return
        path = scope["path"]
        if self._api_key is not None and path in KEYED_PATHS and not self._has_key(scope):
            await _answer_error(send, 401, _body("unauthorized", "the header x-api-key is missing or wrong"))
        elif path == PREDICT:
            await self._predict(scope, receive, send)
        else:
            await self._rest(scope, receive, send)

    async def _predict(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            wrong = _body("method_not_allowed", "POST a request for a forecast")
            await _answer_error(send, 405, wrong, (b"allow", b"POST"))
            return
        encoding = _header(scope, b"content-encoding")
        if encoding is not None and encoding.strip().lower() not in {b"", b"identity"}:
            self._outcomes["rejected"].inc()
            message = "send the body as it is: Content-Encoding is not unpacked here"
            await _answer_error(send, 415, _body("encoded_body", message, "Content-Encoding"), CLOSE)
            return
        try:
            body = await _read_body(scope, receive, self._max_body_bytes)
            if body is None:
                return  # the client disconnected before its body was complete, so it gets no answer
            answer = await self._predictor.predict(body)
        except _TooLargeError:
            self._outcomes["rejected"].inc()
            message = f"the body is larger than {self._max_body_bytes} bytes (MAX_REQUEST_BYTES)"
            await _answer_error(send, 413, _body("too_large", message, "data"), CLOSE)
        except RetryableError as error:
            self._outcomes["unavailable"].inc()
            wait = str(max(1, math.ceil(error.retry_after_seconds))).encode()
            await _answer_error(send, 503, error.as_body(), (b"retry-after", wait))
        except FltsError as error:
            self._outcomes["rejected"].inc()
            await _answer_error(send, status_of(error), error.as_body())
        except Exception:
            # No other handler caught this error: the client gets a 500.
            self._outcomes["failed"].inc()
            log.exception("predict_error")
            await _answer_error(send, 500, _body("internal", "this should not have happened; the log says more"))
        else:
            self._outcomes["success"].inc()
            length = str(len(answer)).encode()
            await send({"type": "http.response.start", "status": 200, "headers": [JSON, (b"content-length", length)]})
            await send({"type": "http.response.body", "body": answer})

    def _has_key(self, scope: Message) -> bool:
        given = _header(scope, b"x-api-key")
        return given is not None and self._api_key is not None and hmac.compare_digest(given, self._api_key)


def status_of(error: FltsError) -> int:
    """Return the HTTP status of an error."""
    if isinstance(error, RetryableError):
        return 503
    if isinstance(error, NotFoundError):
        return 404
    if isinstance(error, ConflictError):
        return 409
    if error.code == "bad_json":
        return 400
    return 422 if isinstance(error, RejectedError) else 500


class _TooLargeError(Exception):
    """The body exceeds the limit."""


async def _read_body(scope: Message, receive: Receive, limit: int) -> bytes | None:
    length = _header(scope, b"content-length")
    if length is not None and length.isdigit() and int(length) > limit:
        if int(length) <= limit + DISCARDED_BYTES:
            await _discard(receive)
        raise _TooLargeError
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body"):
        if len(body) > limit:
            await _discard(receive)
            raise _TooLargeError
        message = await receive()
        body += message.get("body", b"")
    if message["type"] == "http.disconnect":
        return None
    if len(body) > limit:
        raise _TooLargeError
    return body


async def _discard(receive: Receive) -> None:
    """Discard up to DISCARDED_BYTES: a client whose connection is closed while it sends never reads the answer."""
    discarded = 0
    while discarded <= DISCARDED_BYTES:
        message = await receive()
        discarded += len(message.get("body", b""))
        if not message.get("more_body"):
            return


def _header(scope: Message, name: bytes) -> bytes | None:
    for key, value in scope["headers"]:
        if key == name:
            found: bytes = value
            return found
    return None


def _body(code: str, message: str, field: str | None = None) -> dict[str, dict[str, str]]:
    return FltsError(message, code=code, field=field).as_body()


async def _answer_error(
    send: Send, status: int, body: dict[str, dict[str, str]], *headers: tuple[bytes, bytes]
) -> None:
    data = json.dumps(body).encode()
    length = (b"content-length", str(len(data)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [JSON, length, *headers]})
    await send({"type": "http.response.body", "body": data})


def _rest(champions: Champions, background: Sequence[Starts]) -> FastAPI:
    """Return the application for all routes except the hot path."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        for part in background:
            part.start()
        yield

    app = FastAPI(
        lifespan=lifespan,
        title="FLTS inference",
        version=flts.__version__,
        description="Forecasts of the promoted champions, in raw units.",
    )

    @app.post(
        PREDICT,
        summary="Forecast the steps after the stored rows, or after the rows sent",
        openapi_extra={"requestBody": {"content": {"application/json": {"examples": EXAMPLES}}, "required": True}},
        responses={200: {"content": {"application/json": {"example": ANSWER_EXAMPLE}}}},
    )
    async def predict() -> Response:
        """Send a list per column in `data`, in any order, with `null` for an unknown value. The time column is
        `index_col`, or the only one of time, timestamp, ts and date; its values are ISO 8601 or epoch seconds.

        Without `data` the champion forecasts from the stored rows: the last rows of the data set that it was trained
        on. Fewer rows than it needs continue the stored rows, and replace those at the same times. A gap between them
        that is too long to be filled is refused as `gap_to_history`. If stored rows were used, the answer has
        `history_until`, the time of the last one, and a `warning` if the whole forecast is in the past.

        `future` has the values of the champion's `future_columns` (`GET /models`) at the steps of the forecast: a list
        per column that begins with the first step, or with a time column the values at these times. A value that is
        missing is refused as `missing_future`, with its column and step.

        In the answer, `horizon_steps` are the steps that the champion was judged at, and `calibrated_steps` those that
        its bounds were calibrated for; later steps are extrapolated. `baseline` is given only if no model passed the
        gate: it is the reason why the best baseline is served. `point` is given only as `median`: the forecasts were
        moved by the median residual (`POINT`).

        `quantiles` adds a number per target and probability to every prediction, such as `down_q0.1`: the value that
        the actual one is below with this probability. At most 20 distinct probabilities between 0 and 1 are accepted.
        A champion has those between its lowest and its highest stored one, at most 0.01 to 0.99 and at least 0.05 to
        0.95; others are refused as `bad_quantiles`. Between stored probabilities quantiles are interpolated. They are
        null where the bounds are.
        """  # noqa: D205 - the page of the HTTP API shows this text as it is
        raise HTTPException(404)

    @app.get("/models", summary="The champions and their scores")
    def models() -> dict[str, Any]:
        """List the identifiers with a champion, whether it is loaded, and why the latest promotion is not served.

        `horizon_steps` are the steps that the champion was judged at. `score` is in units of the best baseline's error
        on the run's held-out rows: 1 is the best baseline, lower is better. `baseline` is given only if a baseline is
        served, with the reason. `future_columns` are those whose values a forecast needs. `history_until` is the time
        of the last stored row, if a forecast needs no rows.
        """
        return {"models": champions.describe(), "default": champions.default(), "known": champions.known}

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        message = f"{error.detail}: {request.method} {request.url.path}"
        return JSONResponse(_body(code, message), error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse(_body("bad_request", str(error.errors()[:1])), 422)

    return app
