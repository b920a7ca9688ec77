"""How the adapter translates the errors of S3; the contract suite tests the normal operation."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from flts.errors import BackendAwayError, FltsError, ObjectNotFoundError, PreconditionFailedError, RejectedError
from flts.settings import StoreSettings
from flts.storage import s3
from flts.storage.checks import check_store
from flts.storage.s3 import S3Store
from tests.faulty_proxy import FaultyProxy, slow
from tests.http_servers import serving


def settings_for(port: int, check_seconds: float = 1) -> StoreSettings:
    return StoreSettings(
        store="s3",
        mlflow_s3_endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id="key",
        aws_secret_access_key="a-secret-of-the-test",
        backend_check_seconds=check_seconds,
    )


@contextmanager
def server(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[tuple[S3Store, list[str]]]:
    """Serve every request with ``answer``; yield a store on it and the requests seen."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self) -> None:
            seen.append(f"{self.command} {self.path}")
            self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer(self)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do  # noqa: N815 - http.server calls these names

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as http:
        yield S3Store(settings_for(http.server_port)), seen


def refuse(status: int, code: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>told so</Message></Error>".encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)

    return answer


@pytest.mark.parametrize(
    ("status", "code", "error", "error_code"),
    [
        (500, "InternalError", BackendAwayError, "backend_away"),
        (503, "SlowDown", BackendAwayError, "backend_away"),
        (429, "TooManyRequests", BackendAwayError, "backend_away"),
        (403, "InvalidAccessKeyId", BackendAwayError, "access_denied"),
        (403, "RequestTimeTooSkewed", BackendAwayError, "access_denied"),
        (404, "NoSuchKey", ObjectNotFoundError, "object_not_found"),
        (400, "InvalidArgument", RejectedError, "store_refused"),
        (501, "NotImplemented", BackendAwayError, "backend_away"),
    ],
)
def test_an_answer_becomes_what_the_pipeline_does_next(
    status: int, code: str, error: type[FltsError], error_code: str
) -> None:
    with server(refuse(status, code)) as (store, _), pytest.raises(error) as raised:
        store.get("raw-data", "some/key")

    assert type(raised.value) is error
    assert raised.value.code == error_code
    assert "raw-data/some/key at http://127.0.0.1:" in str(raised.value) or error is ObjectNotFoundError
    assert "a-secret-of-the-test" not in str(raised.value)


@pytest.mark.parametrize(("status", "code"), [(412, "PreconditionFailed"), (409, "ConditionalRequestConflict")])
def test_a_refused_condition_is_told_apart(status: int, code: str) -> None:
    with server(refuse(status, code)) as (store, _):
        with pytest.raises(PreconditionFailedError):
            store.put("raw-data", "key", b"x", create_only=True)
        with pytest.raises(PreconditionFailedError):
            store.put("raw-data", "key", b"x", if_match='"etag"')


def test_a_condition_on_an_object_that_is_gone_is_a_refused_one() -> None:
    with server(refuse(404, "NoSuchKey")) as (store, _), pytest.raises(PreconditionFailedError):
        store.put("raw-data", "key", b"x", if_match='"etag"')


def test_a_fault_is_tried_twice_and_no_more() -> None:
    with server(refuse(500, "InternalError")) as (store, seen), pytest.raises(BackendAwayError):
        store.head("raw-data", "key")

    assert seen == ["HEAD /raw-data/key"] * 2


def test_nobody_listening_is_said_with_the_address() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        store = S3Store(settings_for(unused.getsockname()[1]))

        with pytest.raises(BackendAwayError, match=f"{store.address} does not answer"):
            store.put("raw-data", "key", b"x")


def test_a_server_that_accepts_and_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "READ_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        store = S3Store(settings_for(frozen.getsockname()[1]))
        started = time.monotonic()

        with pytest.raises(BackendAwayError, match="ReadTimeout"):
            store.get("raw-data", "key")

        # Seconds. The default READ_SECONDS is 10 s for each of two attempts, so less than 9 s shows the patched value.
        assert time.monotonic() - started < 9
        with pytest.raises(BackendAwayError, match=rf"store {store.address}: 'ensure buckets' did not succeed"):
            check_store(store, settings_for(frozen.getsockname()[1], 0.5))


def object_answer(handler: BaseHTTPRequestHandler, promised: int, sent: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(promised))
    handler.send_header("ETag", '"etag"')
    handler.send_header("Last-Modified", "Sat, 21 Nov 2026 10:00:00 GMT")
    handler.end_headers()
    handler.wfile.write(sent)
    handler.wfile.flush()


def test_a_server_that_stalls_after_64_kib_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "READ_SECONDS", 0.2)
    let_go = threading.Event()

    def stall(handler: BaseHTTPRequestHandler) -> None:
        object_answer(handler, 8 * 2**20, bytes(64 * 1024))
        let_go.wait(10)

    with server(stall) as (store, _):
        try:
            for read in (lambda: store.get("raw-data", "key"), lambda: b"".join(store.stream("raw-data", "key"))):
                with pytest.raises(BackendAwayError):
                    read()
        finally:
            let_go.set()


def test_a_server_that_answers_too_slowly_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        object_answer(handler, 2**20, bytes(2**20))

    with server(answer) as (direct, _), FaultyProxy(int(direct.address.rpartition(":")[2])) as proxy:
        store = S3Store(settings_for(proxy.port))
        assert len(store.get("raw-data", "key")[0]) == 2**20
        assert [len(chunk) for chunk in store.stream("raw-data", "key", chunk_bytes=700_000)] == [700_000, 348_576]
        # Limits the read of a body; the client that exists already keeps its timeout of 10 s.
        monkeypatch.setattr(s3, "READ_SECONDS", 0.2)
        monkeypatch.setattr(s3, "READ_BYTES", 256)
        proxy.switch(slow(4000))
        for read in (
            lambda: store.get("raw-data", "key"),
            lambda: store.get_file("raw-data", "key", tmp_path / "file"),
            lambda: list(store.stream("raw-data", "key")),
        ):
            with pytest.raises(BackendAwayError, match=r"raw-data/key: the store at .* sent [\d,]{3,5} bytes in"):
                read()
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_was_fast_before_it_became_slow_is_given_up_as_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "MIN_BYTES_PER_SECOND", 2**18)
    monkeypatch.setattr(s3, "READ_BYTES", 2**10)
    # The body is larger than the socket buffers. At MIN_BYTES_PER_SECOND the part that is sent fast would take 2**23 /
    # 2**18 = 32 s.
    size, fast = 2**25, 2**23

    def answer(handler: BaseHTTPRequestHandler) -> None:
        with suppress(ConnectionError):
            object_answer(handler, size, bytes(size))

    with server(answer) as (direct, _), FaultyProxy(int(direct.address.rpartition(":")[2])) as proxy:
        chunks = S3Store(settings_for(proxy.port)).stream("raw-data", "key", chunk_bytes=2**20)
        read = sum(len(next(chunks)) for _ in range(fast // 2**20))
        proxy.switch(slow(1000))
        monkeypatch.setattr(s3, "READ_SECONDS", 0.5)

        with pytest.raises(BackendAwayError, match="bytes in") as raised:
            read += sum(map(len, chunks))

    assert fast <= read < size
    waited = float(re.findall(r"in (\d+) s", raised.value.message)[0])
    # Seconds; the store must not wait longer because the first part came 32 s earlier than necessary.
    assert waited < 20


def test_a_body_cut_short_is_no_object() -> None:
    def cut(handler: BaseHTTPRequestHandler) -> None:
        object_answer(handler, 1000, bytes(500))
        handler.close_connection = True

    with server(cut) as (store, _):
        with pytest.raises(BackendAwayError):
            store.get("raw-data", "key")
        with pytest.raises(BackendAwayError):
            list(store.stream("raw-data", "key"))


def test_a_multipart_upload_that_fails_is_taken_back() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.command == "POST":
            body = b"<InitiateMultipartUploadResult><UploadId>the-upload</UploadId></InitiateMultipartUploadResult>"
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)
        elif handler.command == "DELETE":
            handler.send_response(204)
            handler.end_headers()
        else:
            refuse(503, "SlowDown")(handler)

    with server(answer) as (store, seen), pytest.raises(BackendAwayError):
        store.put_stream("raw-data", "key", [bytes(s3.PART_BYTES), b"more"])

    assert seen[-1] == "DELETE /raw-data/key?uploadId=the-upload"
