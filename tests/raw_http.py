"""A client that sends a path unchanged, adds only the headers that HTTP needs, and does not hold a body in memory."""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 60
BOUNDARY = b"cut-here"


@dataclass(frozen=True)
class RawAnswer:
    """The answer, and how many bytes of the body had been sent before it arrived."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    sent: int

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error object, asserted to have the form of every FLTS error."""
        document = self.json()
        assert set(document) == {"error"}, document
        error: dict[str, Any] = document["error"]
        assert {"code", "message"} <= set(error) <= {"code", "message", "field"}, document
        return error


def send(
    url: str,
    method: str,
    target: str | bytes,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | Iterable[bytes] = b"",
    declared: int | None = None,
) -> RawAnswer:
    """Send one request and return the answer as soon as it arrives, even if a part of the body is not sent.

    Parameters
    ----------
    target : str or bytes
        Sent unchanged.
    body : bytes or iterable of bytes
        An iterable is sent with chunked encoding, or with the length ``declared`` if that is given.
    """
    parts = urlsplit(url)
    line = target if isinstance(target, bytes) else target.encode()
    given = {"Host": parts.netloc, "Connection": "close", **(headers or {})}
    pieces: Iterator[bytes]
    if isinstance(body, bytes):
        given["Content-Length"] = str(len(body) if declared is None else declared)
        pieces = iter([body] if body else [])
    else:
        pieces = iter(body)
        if declared is None:
            given["Transfer-Encoding"] = "chunked"
        else:
            given["Content-Length"] = str(declared)
    chunked = "Transfer-Encoding" in given
    head = b"".join(f"{name}: {value}\r\n".encode() for name, value in given.items())
    with socket.create_connection((parts.hostname, parts.port), timeout=TIMEOUT_SECONDS) as connection:
        connection.sendall(method.encode() + b" " + line + b" HTTP/1.1\r\n" + head + b"\r\n")
        sent = _send_body(connection, pieces, chunked=chunked)
        response = http.client.HTTPResponse(connection, method=method)
        response.begin()
        return RawAnswer(response.status, dict(response.getheaders()), response.read(), sent)


def form(field: str, pieces: Iterable[bytes], **texts: str) -> Iterator[bytes]:
    """Yield a multipart form of small fields and one file, piece by piece."""
    for name, value in texts.items():
        yield b"--%s\r\nContent-Disposition: form-data; name=%s\r\n\r\n" % (BOUNDARY, _quoted(name))
        yield value.encode() + b"\r\n"
    yield b"--%s\r\nContent-Disposition: form-data; name=%s; filename=x.csv\r\n\r\n" % (BOUNDARY, _quoted(field))
    yield from pieces
    yield b"\r\n--%s--\r\n" % BOUNDARY


FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY.decode()}"


def _quoted(name: str) -> bytes:
    return b'"%s"' % name.encode()


def _send_body(connection: socket.socket, pieces: Iterator[bytes], *, chunked: bool) -> int:
    sent = 0
    # A server that refuses a request early may close the connection before the whole body is sent, which is no failure.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for piece in pieces:
            if not piece:
                continue  # an empty chunk would end the body
            if _has_answered(connection):
                return sent
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            sent += len(piece)
        if chunked:
            connection.sendall(b"0\r\n\r\n")
    return sent


def _has_answered(connection: socket.socket) -> bool:
    return bool(select.select([connection], [], [], 0)[0])
