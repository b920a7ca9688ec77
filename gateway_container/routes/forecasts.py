"""Forecasts: forwarded to the inference service."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from gateway_container.context import Gateway, gateway_of
from gateway_container.proxy import PASSED_ANSWER_HEADERS, PASSED_REQUEST_HEADERS
from gateway_container.receive import check_declared_length, receive_bytes
from gateway_container.security import API_KEY_HEADER, is_valid_key

router = APIRouter(tags=["forecasts"])

PREDICT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "identifier": {"type": "string"},
                        "config_hash": {"type": "string"},
                        "inference_length": {"type": "integer", "minimum": 1},
                        "index_col": {"type": "string"},
                        "data": {"type": "object", "additionalProperties": {"type": "array", "items": {}}},
                        "future": {"type": "object", "additionalProperties": {"type": "array", "items": {}}},
                    },
                }
            }
        },
    }
}


@router.post("/predict", openapi_extra=PREDICT_BODY, summary="A forecast by the champion, in raw units")
async def predict(request: Request) -> Response:
    """Forward a request to the inference service; `GET /datasets/{identifier}/tail` returns a body for it.

    Without `data` the champion forecasts from the stored rows, the last ones of its data set; the answer then has
    `history_until`. Fewer rows than the champion needs continue the stored rows. Where the inference service requires
    a key of its own (INFERENCE_API_KEY), the header x-api-key with that key is forwarded.

    `future` has the values of the champion's `future_columns` at the steps of the forecast, column by column from the
    first step on; with a column of times, the values are found by their times.

    The answer has `horizon_steps`, the steps that the champion was judged at, and `baseline`, a reason, if no model
    passed the gate and the best baseline is served.
    """
    gateway = gateway_of(request)
    limit, setting = gateway.settings.max_predict_bytes, "MAX_PREDICT_BYTES"
    check_declared_length(request.headers, limit=limit, field_name="data", setting=setting)
    body = await receive_bytes(
        request.stream(),
        limit=limit,
        idle_seconds=gateway.settings.upload_idle_seconds,
        field_name="data",
        setting=setting,
    )
    return await _pass_on(gateway, request, "POST", "/predict", body)


@router.get("/models", summary="The champions with their scores")
async def models(request: Request) -> Response:
    """Forward the request to the inference service.

    `score` is the error over the horizon on held-out rows, in units of the best baseline's error at each step: 1 is the
    best baseline, lower is better. `baseline` is given only if the best baseline is served, with the reason.
    `future_columns` are the columns whose values a forecast needs in `future`. `history_until` is given if a forecast
    needs no rows: the time of the last stored row.
    """
    return await _pass_on(gateway_of(request), request, "GET", "/models", None)


async def _pass_on(gateway: Gateway, request: Request, method: str, path: str, body: bytes | None) -> Response:
    headers = {name: request.headers[name] for name in PASSED_REQUEST_HEADERS if name in request.headers}
    key = request.headers.get(API_KEY_HEADER)
    if key is not None and not is_valid_key(key, gateway.settings.api_keys()):
        # This key is not the gateway's, so it is meant for inference, which has a key of its own, and is forwarded. The
        # gateway's own key is not forwarded.
        headers[API_KEY_HEADER] = key
    answer = await gateway.proxy.send(method, path, headers, body)
    passed = {name: answer.headers[name] for name in PASSED_ANSWER_HEADERS if name in answer.headers}
    return Response(answer.content, status_code=answer.status_code, headers=passed)
