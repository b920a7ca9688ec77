"""Choose ports of 127.0.0.1 for processes that start to listen later."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

LOWEST = 20_000
EPHEMERAL_LOW = 32_768
"""Linux's default for the lowest port of outgoing connections, used if the kernel's own value cannot be read."""
TRIES = 200
_given: set[int] = set()


def free_port() -> int:
    """Return a free port that the kernel will not assign to an outgoing connection in the meantime.

    The kernel's own choice (port 0) is such a port: MLflow listens only after 10 s, and the port may be in use then.

    Raises
    ------
    OSError
        If no free port is found.
    """
    for _ in range(TRIES):
        port = LOWEST + secrets.randbelow(_ephemeral_low() - LOWEST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in _given:
            _given.add(port)
            return port
    msg = f"no free port between {LOWEST} and {_ephemeral_low()}"
    raise OSError(msg)


def is_taken(port: int) -> bool:
    """Return whether a process listens on this port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
        return False


def _ephemeral_low() -> int:
    try:
        low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:  # only Linux has this file; other systems use the constant
        return EPHEMERAL_LOW
    return low if low > LOWEST + TRIES else EPHEMERAL_LOW
