"""Run uvicorn in the main thread, and leave the signals to the runner."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import uvicorn

from flts.observability.health import AsgiApp

GRACE_SECONDS = 5
"""Time for requests in flight; a stream of server-sent events never ends by itself."""

KEEP_ALIVE_SECONDS = 75
"""Seconds; longer than clients and proxies keep idle connections, so that a request never meets a closed one."""


def bind(host: str, port: int) -> socket.socket:
    """Take a port before anything else starts.

    Raises
    ------
    OSError
        If it is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    listener.set_inheritable(False)
    return listener


class HttpServer(uvicorn.Server):
    """uvicorn, whose own handlers would end the process by the signal instead of with our exit code."""

    def __init__(self, app: AsgiApp) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            server_header=False,
        )
        super().__init__(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield
