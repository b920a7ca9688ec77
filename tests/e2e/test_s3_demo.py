"""The embedded mode on a real S3 server that the environment names, and on a server that FLTS must refuse."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from embedded.ports import free_port
from flts.storage.connect import open_store
from tests.brokers import embedded_bus
from tests.http_servers import serving
from tests.stack import PORTS, ROOT, SMALL
from tests.stores import s3_settings, why_no_s3

pytestmark = pytest.mark.timeout(300)


def demo(home: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, **dict.fromkeys(PORTS, "0"), "FLTS_HOME": str(home), "STORE": "s3", "ONCE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "embedded", "demo"],
        cwd=ROOT,
        env={**variables, **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.skipif(why_no_s3() is not None, reason=str(why_no_s3()))
def test_the_demo_runs_on_a_real_s3_server_with_everything_in_its_buckets(tmp_path: Path) -> None:
    home, prefix = tmp_path / "home", f"demo-{uuid.uuid4().hex[:8]}-"
    settings = s3_settings()
    assert settings.mlflow_s3_endpoint_url is not None
    assert settings.aws_access_key_id is not None
    assert settings.aws_secret_access_key is not None
    given = {
        "MLFLOW_S3_ENDPOINT_URL": settings.mlflow_s3_endpoint_url,
        "AWS_ACCESS_KEY_ID": settings.aws_access_key_id,
        "AWS_SECRET_ACCESS_KEY": settings.aws_secret_access_key.get_secret_value(),
        "ALLOW_DEFAULT_CREDENTIALS": "1",
        "NAMESPACE_PREFIX": prefix,
    }

    first = demo(home, {**SMALL, **given})

    assert first.returncode == 0, first.stdout + first.stderr
    assert re.search(r"promoted: \w+", first.stdout), first.stdout
    store = open_store(settings, prefix)
    assert store.get("model-promotion", "sample/current.json")
    assert {info.key.rpartition("/")[2] for info in store.list("pipeline-runs", "sample/")} >= {
        "run.json",
        "decision.json",
        "outcome.json",
    }
    assert not (home / "store").exists(), "nothing lies in a folder beside the server"
    assert list((home / "mlflow" / "artifacts").rglob("bundle.json")), "MLflow keeps its artifacts on this machine"
    assert given["AWS_SECRET_ACCESS_KEY"] not in first.stdout + first.stderr

    again = demo(home, {**SMALL, **given})

    assert again.returncode == 0, again.stdout + again.stderr
    assert "was uploaded before" in again.stdout, "the server's records were found"


def test_a_service_refuses_a_server_that_ignores_conditional_puts(tmp_path: Path) -> None:
    with forgetful_server() as environment, embedded_bus(tmp_path) as (bus, _):
        service = subprocess.run(
            [sys.executable, "-m", "preprocess_container"],
            cwd=ROOT,
            env={
                **os.environ,
                **environment,
                "KAFKA_BOOTSTRAP_SERVERS": bus.address,
                "SERVICE_HOST": "127.0.0.1",
                "SERVICE_PORT": str(free_port()),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert service.returncode == 2, service.stdout + service.stderr
    last = service.stdout.splitlines()[-1]
    assert '"service_stopped"' in last
    assert f"store {environment['MLFLOW_S3_ENDPOINT_URL']}: 'create-only put' failed" in last
    assert "use a server with conditional puts" in last


def test_the_demo_says_at_once_that_it_cannot_use_such_a_server(tmp_path: Path) -> None:
    with forgetful_server() as environment:
        process = demo(tmp_path / "home", {**environment, "EXPECTED_MODEL_TYPES": "PROPHET"})

    assert process.returncode == 1
    assert len(process.stderr.strip().splitlines()) == 1, process.stderr
    assert f"store {environment['MLFLOW_S3_ENDPOINT_URL']}: 'create-only put' failed" in process.stderr


class _Forgetful(BaseHTTPRequestHandler):
    """The part of S3 that the checks at start use; it ignores conditional headers, as some servers do."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(200, etag=True)

    def do_HEAD(self) -> None:
        self._answer(200)

    def do_DELETE(self) -> None:
        self._answer(204)

    def _answer(self, status: int, *, etag: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        if etag:
            self.send_header("ETag", f'"{uuid.uuid4().hex}"')
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Write no access log."""


@contextmanager
def forgetful_server() -> Iterator[dict[str, str]]:
    """Yield the variables of a store whose server overwrites objects in spite of conditional headers."""
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), _Forgetful)) as server:
        yield {
            "STORE": "s3",
            "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-test",
        }
