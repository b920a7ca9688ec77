from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

import flts.observability.probe
from tests.http_servers import serving

PROBE = Path(flts.observability.probe.__file__)


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 503)
        self.end_headers()
        self.wfile.write(f"asked for {self.path}".encode())

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def port() -> Iterator[int]:
    with serving(HTTPServer(("127.0.0.1", 0), Answers)) as server:
        yield server.server_port


def probe(port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-S", str(PROBE), *arguments],
        env={"SERVICE_PORT": str(port)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_ready_service_is_healthy(port: int) -> None:
    answer = probe(port)
    assert (answer.returncode, answer.stdout) == (0, "200 asked for /readyz\n")


def test_the_answer_says_what_an_unready_service_waits_for(port: int) -> None:
    answer = probe(port, "/healthz")
    assert (answer.returncode, answer.stdout) == (1, "503 asked for /healthz\n")


def test_a_port_that_nobody_listens_on_is_not_healthy() -> None:
    answer = probe(1)
    assert answer.returncode == 1
    assert answer.stdout.startswith("port 1: ")
    assert not answer.stderr
