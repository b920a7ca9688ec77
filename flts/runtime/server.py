"""Runs uvicorn in the main thread, and leaves the signals to the runner."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import uvicorn

from flts.observability.health import AsgiApp

GRACE_SECONDS = 5
"""Seconds for running requests at the end; a stream of server-sent events never ends by itself."""

KEEP_ALIVE_SECONDS = 75
"""Seconds; longer than clients and proxies keep idle connections, so that no request uses a closed connection."""


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to the port, so that a taken port is reported before the service starts.

    Raises
    ------
    OSError
        If the port is taken or the address cannot be used.
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
    """uvicorn without its signal handlers, which would end the process by the signal and not with FLTS's exit code."""

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
        """Install no signal handlers."""
        yield
