from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel, SecretStr

from flts.errors import RejectedError
from flts.observability.logs import bind, bound_fields, configure_logs, get_logger, secret_values, without_userinfo
from flts.observability.tracing import Trace, use_trace

log = get_logger("flts.test")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    stream = io.StringIO()
    configure_logs("train-gru", "INFO", secrets=["s3cr3t-value"], stream=stream)
    yield stream
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line, parse_constant=pytest.fail) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_the_event_its_fields_and_what_is_bound(stream: io.StringIO) -> None:
    with bind(identifier="PobleSec", config_hash=None), use_trace(Trace("a" * 32, "b" * 16)):
        log.info("train_success", rmse=np.float64(0.035), rows=np.int64(7), text='"quoted"\nand broken')
    log.info("after")

    first, second = lines(stream)
    assert first["event"] == "train_success"
    assert first["service"] == "train-gru"
    assert first["level"] == "info"
    assert (first["identifier"], first["trace_id"]) == ("PobleSec", "a" * 32)
    assert (first["rmse"], first["rows"], first["text"]) == (0.035, 7, '"quoted"\nand broken')
    assert "config_hash" not in first
    assert "identifier" not in second


def test_numbers_that_json_has_not_got_are_written_as_text(stream: io.StringIO) -> None:
    log.info("scores", rmse=float("nan"), nested={"worst": [np.float32("inf")]})

    assert lines(stream)[0]["rmse"] == "nan"
    assert lines(stream)[0]["nested"] == {"worst": ["inf"]}


def test_no_secret_is_shown_wherever_it_comes_from(stream: io.StringIO) -> None:
    log.info("settings", aws_secret_access_key="abc", key=SecretStr("abc"), url="http://u:s3cr3t-value@host")
    logging.getLogger("botocore").error("bad signature for %s", "s3cr3t-value")

    assert "abc" not in stream.getvalue()
    assert "s3cr3t-value" not in stream.getvalue()
    assert len(lines(stream)) == 2


def test_each_key_of_a_list_and_the_password_of_an_address_are_secret(stream: io.StringIO) -> None:
    class Settings(BaseModel):
        gateway_api_key: SecretStr = SecretStr("first-key, second-key,abc")
        mlflow_tracking_uri: str = "http://tracker:pa55word@mlflow:5000"
        store_endpoint: str = "http://store:9000"

    secrets = secret_values(Settings())
    configure_logs("gateway", secrets=secrets, stream=stream)

    log.info("refused", header="second-key", other="first-key", both="first-key, second-key,abc", plain="abcd")
    log.info("called", path="http://tracker:pa55word@mlflow:5000/api", store="http://store:9000")

    refused, called = lines(stream)
    assert [refused[name] for name in ("header", "other", "both", "plain")] == ["***", "***", "***", "abcd"]
    assert called["path"] == "http://***@mlflow:5000/api"
    assert called["store"] == "http://store:9000"
    assert "" not in secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://u:p@ss@host:5000/api failed", "http://host:5000/api failed"),
        ("http://host:5000", "http://host:5000"),
        ("see http://host/x and write to me@example.org", "see http://host/x and write to me@example.org"),
    ],
)
def test_addresses_are_shown_without_their_user(text: str, shown: str) -> None:
    assert without_userinfo(text) == shown


def test_an_error_is_logged_with_its_code_and_traceback(stream: io.StringIO) -> None:
    def fail() -> None:
        msg = "no column"
        raise RejectedError(msg, code="no_column")

    try:
        fail()
    except RejectedError:
        log.exception("train_error", attempt=2)

    (line,) = lines(stream)
    assert (line["error"], line["error_code"], line["attempt"]) == ("RejectedError: no column", "no_column", 2)
    assert "in fail" in line["traceback"]


def test_libraries_speak_json_too_from_warning_on_and_requests_are_not_logged(stream: io.StringIO) -> None:
    logging.getLogger("urllib3").info("chatter")
    logging.getLogger("urllib3").warning("retrying %s", "host")
    logging.getLogger("uvicorn.access").error('127.0.0.1 "GET /metrics"')

    assert [line["event"] for line in lines(stream)] == ["retrying host"]


def test_what_is_bound_belongs_to_its_thread(stream: io.StringIO) -> None:
    seen: list[dict[str, Any]] = []
    with bind(offset=1):
        thread = threading.Thread(target=lambda: seen.append(bound_fields()))
        thread.start()
        thread.join()
        assert bound_fields() == {"offset": 1}
    assert seen == [{}]
    assert stream.getvalue() == ""
