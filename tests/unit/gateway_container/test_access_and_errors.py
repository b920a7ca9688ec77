"""The permissions of clients, and the common form of every error."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from flts.errors import BackendAwayError
from flts.observability.logs import JsonFormatter
from gateway_container.security import is_valid_key
from gateway_container.settings import GatewaySettings
from tests.gateway import KEY, GatewayUnderTest, csv_text, make_gateway

WRITES = [
    ("POST", "/datasets/x"),
    ("POST", "/datasets"),
    ("POST", "/upload/raw-data/x/train.csv"),
    ("GET", "/download/raw-data/x/train.csv"),
    ("POST", "/runs"),
    ("POST", "/runs/resume"),
    ("POST", "/runs/0199d3f4-0000-7000-8000-000000000000/resume"),
    ("POST", "/runs/0199d3f4-0000-7000-8000-000000000000/evaluate"),
    ("POST", "/runs/0199d3f4-0000-7000-8000-000000000000/cancel"),
    ("POST", "/datasets/x/rollback"),
]
READS = ["/datasets", "/runs", "/", "/docs", "/openapi.json"]


@pytest.fixture
def gateway(tmp_path: Path) -> GatewayUnderTest:
    return make_gateway(tmp_path)


@pytest.mark.parametrize(("method", "path"), WRITES)
@pytest.mark.parametrize("key", [None, "", "wrong", KEY[:-1], KEY + "x", "ä" * 20])
def test_writing_and_downloading_need_the_key(
    gateway: GatewayUnderTest, method: str, path: str, key: str | None
) -> None:
    headers = {} if key is None else {"x-api-key": key.encode()}

    answer = gateway.client(key=None).request(method, path, headers=headers, content=b"x")

    assert answer.status_code == 401
    assert answer.json()["error"]["field"] == "x-api-key"


@pytest.mark.parametrize("path", READS)
def test_reading_runs_and_data_sets_is_open(gateway: GatewayUnderTest, path: str) -> None:
    assert gateway.client(key=None).get(path).status_code == 200


@pytest.mark.parametrize("path", ["/datasets", "/datasets/x", "/upload/raw-data/x/train.csv", "/runs", "/predict"])
@pytest.mark.parametrize("encoding", ["gzip", "br", "GZIP", "deflate, gzip"])
def test_nothing_unpacks_what_strangers_packed(gateway: GatewayUnderTest, path: str, encoding: str) -> None:
    answer = gateway.client().post(path, content=b"x", headers={"content-encoding": encoding})

    assert answer.status_code == 415
    error = answer.json()["error"]
    assert (error["code"], error["field"]) == ("encoded_body", "Content-Encoding")
    assert encoding.lower() in error["message"]


def test_the_old_and_the_new_key_are_valid_while_one_replaces_the_other(tmp_path: Path) -> None:
    gateway = make_gateway(tmp_path, gateway_api_key="the-new-key-of-today, the-old-key-of-last-year")

    assert gateway.client(key="the-new-key-of-today").post("/runs/resume").status_code == 200
    assert gateway.client(key="the-old-key-of-last-year").post("/runs/resume").status_code == 200
    assert gateway.client(key="the-new-key-of-today, the-old-key-of-last-year").post("/runs/resume").status_code == 401


def test_no_key_is_valid_where_there_is_none() -> None:
    assert not is_valid_key("", ())


@pytest.mark.parametrize("key", ["", "short", "a,b,c", "minioadmin", ","])
def test_weak_keys_are_refused_at_start(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValidationError):
        GatewaySettings(
            store="filesystem",
            store_path=tmp_path,
            kafka_bootstrap_servers="x:1",
            gateway_api_key=key,
        )


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing/here", 404, "not_found"),
        ("DELETE", "/runs", 405, "method_not_allowed"),
        ("GET", "/runs?limit=0", 422, "invalid_request"),
        ("GET", "/runs?limit=many", 422, "invalid_request"),
        ("GET", "/runs?identifier=..", 422, "bad_identifier"),
        ("GET", "/runs/no-run", 404, "unknown_run"),
        ("GET", "/runs/0199d3f4-0000-7000-8000-000000000000/events", 404, "unknown_run"),
        ("GET", "/datasets/unknown/tail", 404, "no_upload"),
        ("GET", "/datasets/unknown/tail?rows=10001", 422, "invalid_request"),
        ("POST", "/runs/resume?older_than_seconds=-1", 422, "invalid_request"),
    ],
)
def test_every_error_has_the_one_form(
    gateway: GatewayUnderTest, method: str, path: str, status: int, code: str
) -> None:
    answer = gateway.client().request(method, path)

    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    assert answer.json()["error"]["code"] == code
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"identifier": 1}', "identifier"),
        (b'{"identifier": "x", "forse": true}', "forse"),
        (b"{", None),
        (b"[]", None),
        (b'{"identifier": "../x"}', "identifier"),
    ],
)
def test_a_bad_body_names_its_field(gateway: GatewayUnderTest, body: bytes, field: str | None) -> None:
    answer = gateway.client().post("/runs", content=body)

    assert answer.status_code == 422
    assert answer.json()["error"].get("field") == field


def test_a_body_that_is_too_long_is_not_taken(gateway: GatewayUnderTest) -> None:
    assert gateway.client().post("/runs", content=b" " * 100_000).status_code == 413


def test_a_run_on_nothing_says_how_to_upload(gateway: GatewayUnderTest) -> None:
    answer = gateway.client().post("/runs", json={"identifier": "unknown"})

    assert answer.status_code == 404
    assert "flts upload unknown" in answer.json()["error"]["message"]


def test_a_bug_is_logged_once_and_answered_without_its_cause(
    gateway: GatewayUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        msg = "secret internals"
        raise ZeroDivisionError(msg)

    monkeypatch.setattr(type(gateway.gateway.queries), "datasets", broken)
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(JsonFormatter("fastapi-app"))
    logging.getLogger().addHandler(handler)
    try:
        answer = gateway.client().get("/datasets")
    finally:
        logging.getLogger().removeHandler(handler)

    assert answer.status_code == 500
    assert answer.json() == {
        "error": {"code": "internal", "message": "an unexpected error; the gateway's log has its cause"}
    }
    logged = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [line["event"] for line in logged if "secret internals" in json.dumps(line)] == ["request_failed"]
    assert "ZeroDivisionError" in logged[-1]["traceback"]


def test_a_store_that_is_away_is_503_with_retry_after(
    gateway: GatewayUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        msg = "the store does not answer"
        raise BackendAwayError(msg, retry_after_seconds=2.5)

    monkeypatch.setattr(type(gateway.store), "put_file", away)
    answer = gateway.client().post("/datasets/x", files={"train": ("a", csv_text(300))})

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "3"
    assert answer.json()["error"]["code"] == "backend_away"
    assert gateway.broker.events == []


def test_requests_are_counted_by_route_and_never_by_a_callers_text(gateway: GatewayUnderTest) -> None:
    client = gateway.client()
    client.get("/runs/some-text-of-a-caller")
    client.get("/another-text-of-a-caller")

    text = gateway.gateway.metrics.text().decode()

    assert 'flts_http_requests_total{outcome="4xx",route="/runs/{run_id}"} 1.0' in text
    assert 'flts_http_requests_total{outcome="5xx",route="/predict"} 0.0' in text
    assert "of-a-caller" not in text


class TestProxy:
    def serving(self, tmp_path: Path, answer: httpx.Response) -> tuple[GatewayUnderTest, list[httpx.Request]]:
        seen: list[httpx.Request] = []

        async def handle(request: httpx.Request) -> httpx.Response:
            await request.aread()
            seen.append(request)
            return answer

        return make_gateway(tmp_path, inference=httpx.MockTransport(handle)), seen

    def test_predict_passes_through_with_status_and_body(self, tmp_path: Path) -> None:
        error = {"error": {"code": "no_champion", "message": "none yet"}}
        gateway, seen = self.serving(tmp_path, httpx.Response(503, json=error, headers={"retry-after": "5"}))

        answer = gateway.client(key=None).post("/predict", content=b'{"data": {}}')

        assert (answer.status_code, answer.json(), answer.headers["retry-after"]) == (503, error, "5")
        assert (seen[0].url.path, seen[0].content) == ("/predict", b'{"data": {}}')

    def test_models_pass_through(self, tmp_path: Path) -> None:
        gateway, _ = self.serving(tmp_path, httpx.Response(200, json={"models": []}))

        assert gateway.client(key=None).get("/models").json() == {"models": []}

    def test_the_gateways_key_stays_here_and_anothers_goes_on(self, tmp_path: Path) -> None:
        gateway, seen = self.serving(tmp_path, httpx.Response(200, json={}))

        gateway.client(key=KEY).get("/models")
        gateway.client(key="the-inference-services-key").get("/models")

        assert [request.headers.get("x-api-key") for request in seen] == [None, "the-inference-services-key"]

    def test_inference_away_is_503(self, gateway: GatewayUnderTest) -> None:
        answer = gateway.client().get("/models")

        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "inference_away"
        assert int(answer.headers["retry-after"]) >= 1

    @pytest.mark.parametrize("error", [httpx.ReadError("x"), httpx.RemoteProtocolError("x")])
    def test_an_answer_that_breaks_off_is_502(self, tmp_path: Path, error: Exception) -> None:
        def broken(_: httpx.Request) -> httpx.Response:
            raise error

        answer = make_gateway(tmp_path, inference=httpx.MockTransport(broken)).client().get("/models")

        assert answer.status_code == 502
        assert answer.json()["error"]["code"] == "inference_broken"

    def test_an_answer_that_is_no_json_is_502(self, tmp_path: Path) -> None:
        gateway, _ = self.serving(tmp_path, httpx.Response(200, html="<h1>It works!</h1>"))

        assert gateway.client().get("/models").json()["error"]["code"] == "inference_broken"

    def test_a_body_that_is_too_large_is_not_passed_on(self, tmp_path: Path) -> None:
        async def handle(_: httpx.Request) -> httpx.Response:
            pytest.fail("it was passed on")

        gateway = make_gateway(tmp_path, inference=httpx.MockTransport(handle), max_predict_bytes=100)

        answer = gateway.client().post("/predict", content=b"x" * 101)

        assert answer.status_code == 413
        assert "MAX_PREDICT_BYTES" in answer.json()["error"]["message"]
