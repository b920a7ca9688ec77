"""At start, an MLflow that cannot be used is reported with address and step, within the timeout."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from flts.errors import BackendAwayError
from flts.settings import TrackingSettings
from flts.tracking.checks import PADDED_BYTES, STEP, check_mlflow
from tests.faulty_proxy import BLACKHOLE, PASS, REFUSE, FaultyProxy, Mode, slow, stall_after
from tests.http_servers import serving


class Answering(ThreadingHTTPServer):
    """Answers every search with ``status`` and keeps the requests."""

    status = 200
    asked: list[tuple[str, str | None, bytes]]


class _Handler(BaseHTTPRequestHandler):
    server: Answering

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, self.headers["Authorization"], body))
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(b"what it says")

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def server() -> Iterator[Answering]:
    with serving(Answering(("127.0.0.1", 0), _Handler)) as server:
        server.asked = []
        yield server


def check(uri: str, seconds: float = 1.0, stop: threading.Event | None = None) -> None:
    settings = TrackingSettings(mlflow_tracking_uri=uri)
    check_mlflow(settings, seconds=seconds, stop=stop or threading.Event())


@contextmanager
def named(address: str, *reasons: str, seconds: float = 1.0) -> Iterator[None]:
    began = time.monotonic()
    with pytest.raises(BackendAwayError) as raised:
        yield
    assert time.monotonic() - began < seconds + 20
    assert str(raised.value).startswith(f"mlflow {address}: '{STEP}' did not succeed within {seconds:g} s")
    for reason in reasons:
        assert reason in str(raised.value)


def test_a_server_that_answers_is_asked_once_with_more_than_a_stalling_proxy_lets_pass(server: Answering) -> None:
    check(f"http://127.0.0.1:{server.server_port}/", seconds=60)

    ((path, authorization, body),) = server.asked
    assert path == "/api/2.0/mlflow/experiments/search"
    assert authorization is None
    assert body.strip() == b'{"max_results": 1}'
    assert len(body) == PADDED_BYTES > 64 * 1024


@pytest.mark.parametrize(
    ("mode", "reason"),
    [(REFUSE, "refused"), (BLACKHOLE, ""), (slow(1000), ""), (stall_after(64 * 1024), "")],
    ids=["refused", "black hole", "1 KB/s", "stalls after 64 KiB"],
)
def test_a_server_that_cannot_be_worked_with_is_named_in_time(server: Answering, mode: Mode, reason: str) -> None:
    with FaultyProxy(server.server_port, mode=mode) as proxy, named(proxy.url, reason):
        check(proxy.url)


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_an_answer_that_a_healthy_server_would_not_give_is_told(server: Answering, status: int) -> None:
    server.status = status
    address = f"http://127.0.0.1:{server.server_port}"

    with named(address, f"it answered {status}: what it says"):
        check(address)


def test_a_server_that_comes_back_in_time_is_fine(server: Answering) -> None:
    with FaultyProxy(server.server_port, mode=REFUSE) as proxy:
        timer = threading.Timer(0.7, proxy.switch, [PASS])
        timer.start()

        check(proxy.url, seconds=60)

        timer.join()


def test_a_server_that_asks_for_a_password_answers_and_the_password_is_told_to_nobody_else(server: Answering) -> None:
    server.status = 401
    check(f"http://somebody:p%40ss@127.0.0.1:{server.server_port}", seconds=60)
    assert server.asked[0][1] == f"Basic {base64.b64encode(b'somebody:p@ss').decode()}"

    server.status = 500
    with pytest.raises(BackendAwayError) as raised:
        check(f"http://somebody:p%40ss@127.0.0.1:{server.server_port}")
    assert "p%40ss" not in str(raised.value)
    assert "p@ss" not in str(raised.value)


def test_a_service_that_stops_waits_for_no_answer(server: Answering) -> None:
    stop = threading.Event()
    stop.set()
    with FaultyProxy(server.server_port, mode=BLACKHOLE) as proxy:
        began = time.monotonic()
        with pytest.raises(BackendAwayError):
            check(proxy.url, seconds=30, stop=stop)
    assert time.monotonic() - began < 25


def test_records_in_a_folder_need_no_server(tmp_path: Path) -> None:
    check(tmp_path.as_uri())
