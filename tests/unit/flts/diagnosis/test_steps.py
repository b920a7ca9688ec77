"""The diagnosis checks a backend step by step: a failed step is reported with one remedy, and no step hangs."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from embedded.ports import free_port
from flts.diagnosis import network, steps, web
from flts.diagnosis.steps import Backend, Finding, Step, examine, look_at
from flts.diagnosis.store import object_store
from flts.errors import BackendAwayError, RejectedError
from flts.settings import StoreSettings
from flts.storage.filesystem import FilesystemStore
from tests.gateway import BUCKETS
from tests.http_servers import serving


def first_failure(backend: Backend) -> Finding:
    findings = look_at(backend)
    failed = [finding for finding in findings if finding.status == "failed"]
    assert len(failed) == 1, findings
    after = findings[findings.index(failed[0]) + 1 :]
    assert all(finding.status == "skipped" for finding in after), "nothing is tried after a failure"
    assert failed[0].remedy
    return failed[0]


@contextmanager
def answering(answer: Callable[[str, str], tuple[int, str]]) -> Iterator[str]:
    """Serve what ``answer(path, host)`` returns."""

    class Handler(BaseHTTPRequestHandler):
        def _respond(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            status, text = answer(self.path, self.headers.get("host", ""))
            self.send_response(status)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = _respond  # noqa: N815 - http.server calls these names

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with serving(HTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}"


@contextmanager
def silence() -> Iterator[str]:
    """Accept connections and never answer."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_name_that_nobody_knows_fails_at_the_name() -> None:
    finding = first_failure(web.mlflow("http://no-such-host.invalid:5000", start="start it"))

    assert finding.step == "name"
    assert "MLFLOW_TRACKING_URI" in str(finding.remedy)


def test_a_port_that_nobody_listens_on_fails_at_tcp_and_says_how_to_start() -> None:
    finding = first_failure(web.gateway(f"http://127.0.0.1:{free_port()}", "k", start="run make demo"))

    assert (finding.step, finding.remedy) == ("tcp", "nothing listens there: run make demo")


def test_a_server_that_never_answers_is_named_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "ANSWER_SECONDS", 0.3)
    with silence() as url:
        finding = first_failure(web.inference(url, None, start=""))

    assert finding.step == "request"
    assert "timed out" in finding.detail


def test_a_step_that_cannot_be_stopped_is_left_behind() -> None:
    held = threading.Event()
    stuck = Step("stuck", lambda: str(held.wait(30)), lambda _: "let it go", seconds=0.1)

    began = time.monotonic()
    finding = first_failure(Backend("x", "y", [stuck]))

    assert time.monotonic() - began < 25
    assert finding.detail == "no answer within 0.1 s"
    held.set()


def test_mlflow_that_does_not_know_the_host_fails_at_the_host_check() -> None:
    def answer(path: str, host: str) -> tuple[int, str]:
        return (200, "OK") if path == "/health" else (403, f"Invalid Host header - {host}")

    with answering(answer) as url:
        finding = first_failure(web.mlflow(url, start=""))

    assert finding.step == "host check"
    assert "Invalid Host header" in finding.detail
    assert f"--allowed-hosts {url.removeprefix('http://')}" in str(finding.remedy)


def test_mlflow_without_a_database_fails_at_the_search() -> None:
    with answering(lambda path, _: (200, "OK") if path == "/health" else (500, "no database")) as url:
        finding = first_failure(web.mlflow(url, start=""))

    assert (finding.step, finding.detail) == ("search", "500: no database")


def test_a_gateway_that_waits_and_one_whose_key_is_another() -> None:
    with answering(lambda path, _: (503, '{"waiting_for": ["kafka"]}') if path == "/readyz" else (200, "{}")) as url:
        waiting = first_failure(web.gateway(url, "k", start=""))
    with answering(lambda path, _: (401, "wrong") if path.startswith("/runs") else (200, "{}")) as url:
        wrong = first_failure(web.gateway(url, "k", start=""))
        unknown = first_failure(web.gateway(url, None, start=""))

    assert waiting.step == "ready"
    assert "kafka" in waiting.detail
    assert wrong.step == unknown.step == "key"
    assert "FLTS_API_KEY" in str(wrong.remedy)


def test_a_champion_that_cannot_serve_is_named() -> None:
    models = json.dumps({"models": [{"identifier": "bad", "problem": "damaged"}, {"identifier": "good"}]})
    with answering(lambda path, _: (200, models if path == "/models" else "{}")) as url:
        finding = first_failure(web.inference(url, None, start=""))

    assert (finding.step, finding.detail) == ("champions", "cannot serve: bad")


def test_a_healthy_backend_passes_every_step_in_order() -> None:
    with answering(lambda *_: (200, '{"experiments": []}')) as url:
        findings = look_at(web.mlflow(url, start=""))

    assert [finding.step for finding in findings] == ["name", "tcp", "request", "host check", "search"]
    assert all(finding.status == "ok" and finding.milliseconds is not None for finding in findings)


def test_a_password_in_an_address_is_not_shown() -> None:
    with answering(lambda *_: (200, '{"experiments": []}')) as url:
        shown = str(look_at(web.mlflow(url.replace("//", "//user:hidden@"), start="")))

    assert "hidden" not in shown


class Ignoring(FilesystemStore):
    """A store that ignores conditions and overwrites every object."""

    def put(self, bucket: str, key: str, data: bytes, **_: object):  # type: ignore[no-untyped-def,override]
        return super().put(bucket, key, data)


def _store(home: Path) -> StoreSettings:
    return StoreSettings(store="filesystem", store_path=home)


def test_a_store_is_written_to_read_back_and_left_clean(tmp_path: Path) -> None:
    store = FilesystemStore(tmp_path)
    for bucket in BUCKETS:
        store.ensure_bucket(bucket)

    findings = look_at(object_store(_store(tmp_path), "", start=""))

    assert [finding.status for finding in findings] == ["ok"] * 5
    assert {"create-only put", "put, read and delete 8 MiB"} <= {finding.step for finding in findings}
    assert [info.key for info in store.list("pipeline-runs")] == []


def test_a_store_without_folder_or_bucket_or_conditional_puts_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = first_failure(object_store(_store(tmp_path / "gone"), "", start="start it"))
    empty = first_failure(object_store(_store(tmp_path), "", start="start it"))
    store = FilesystemStore(tmp_path)
    for bucket in BUCKETS:
        store.ensure_bucket(bucket)
    monkeypatch.setattr("flts.storage.filesystem.FilesystemStore", Ignoring)
    ignoring = first_failure(object_store(_store(tmp_path), "", start="start it"))

    assert (gone.step, empty.step, ignoring.step) == ("folder", "host check", "create-only put")
    assert "STORE_PATH" in str(gone.remedy)
    assert "start any FLTS service" in str(empty.remedy)
    assert "conditional puts" in str(ignoring.remedy)


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (BackendAwayError("x: SignatureDoesNotMatch (403)", code="access_denied"), "AWS_SECRET_ACCESS_KEY"),
        (RejectedError("x: AuthorizationHeaderMalformed (400)", code="store_refused"), "AWS_DEFAULT_REGION"),
        (BackendAwayError("x: RequestTimeTooSkewed (403)", code="access_denied"), "clock"),
        (BackendAwayError("x", code="bucket_missing"), "buckets"),
    ],
)
def test_what_s3_refuses_has_its_own_remedy(error: Exception, word: str) -> None:
    from flts.diagnosis.store import _refused  # noqa: PLC0415 - private; no test server gives these answers

    assert word in _refused(error)


def test_backends_are_looked_at_side_by_side() -> None:
    met = threading.Barrier(4)

    def meet() -> str:
        met.wait(30)  # the barrier breaks unless all four run at the same time
        return "done"

    slow = [Backend(name, "", [Step("slow", meet, lambda _: "", seconds=60)]) for name in "abcd"]

    findings = examine([*slow, Backend("unknown", "", why_not="nobody said where it is")])

    assert [finding.status for finding in findings[:4]] == ["ok"] * 4
    assert [finding.backend for finding in findings] == ["a", "b", "c", "d", "unknown"]
    assert (findings[-1].status, findings[-1].detail) == ("skipped", "nobody said where it is")


def test_addresses_and_their_usual_ports() -> None:
    assert network.address_of("http://minio:9000/") == ("minio", 9000)
    assert network.address_of("https://s3.example") == ("s3.example", 443)
    with pytest.raises(ValueError, match="no address"):
        network.address_of("minio:9000")
    assert steps.STEP_SECONDS < 5
