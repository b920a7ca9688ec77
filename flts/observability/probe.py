"""Requests a health path of the service in this container, and prints the answer. The exit code is 0 for status 200.

Every container runs this file every few seconds: ``python -I -S flts/observability/probe.py [/healthz]``. It imports no
other module of FLTS, because loading the settings alone takes ten times as long as the request.
"""

from __future__ import annotations

import os
import socket
import sys

TIMEOUT_SECONDS = 3.0
DEFAULT_PATH = "/readyz"


def main() -> int:
    """Send one request, print the answer and return the exit code."""
    path = sys.argv[1] if len(sys.argv) > 1 else DEFAULT_PATH
    port = int(os.environ.get("SERVICE_PORT") or 8000)  # noqa: TID251 - loading the settings takes too long here
    try:
        status, body = ask("127.0.0.1", port, path)
    except OSError as error:
        sys.stdout.write(f"port {port}: {error}\n")
        return 1
    sys.stdout.write(f"{status} {body}\n")
    return 0 if status == "200" else 1


def ask(host: str, port: int, path: str) -> tuple[str, str]:
    """Send a GET request and return the status and body of the answer; raise an OSError if there is no answer."""
    with socket.create_connection((host, port), timeout=TIMEOUT_SECONDS) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        with connection.makefile("rb") as file:
            answer = file.read()
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if len(words) < 2:  # noqa: PLR2004 - the status is the second word of "HTTP/1.1 200 OK"
        msg = "no HTTP answer"
        raise ConnectionError(msg)
    return words[1].decode("latin-1"), body.decode(errors="replace").strip()


if __name__ == "__main__":
    raise SystemExit(main())
