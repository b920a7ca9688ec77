"""The first two steps for every backend with a network address: resolve its name, connect to its port."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from flts.diagnosis.steps import Step

CONNECT_SECONDS = 3.0
PORTS = {"http": 80, "https": 443}

Address = tuple[str, int]


def address_of(url: str) -> Address:
    """Return the host and port of a URL.

    Raises
    ------
    ValueError
        If the text is no http or https URL with a host.
    """
    parts = urlsplit(url)
    if parts.scheme not in PORTS or not parts.hostname:
        msg = f"{url!r} is no address like http://host:port"
        raise ValueError(msg)
    return parts.hostname, parts.port or PORTS[parts.scheme]


def network_steps(addresses: Sequence[Address], *, setting: str, start: str) -> list[Step]:
    """Return the steps that resolve addresses and connect to them.

    Parameters
    ----------
    setting : str
        The environment variable that contains the addresses.
    start : str
        Remedy if the port is closed: how to start the server.
    """

    def resolve() -> str:
        return ", ".join(f"{host} is {_resolved(host, port)}" for host, port in addresses)

    def reach() -> str:
        for host, port in addresses:
            socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
        return f"{len(addresses)} address(es) accept connections"

    return [
        Step("name", resolve, lambda _: f"set {setting} to a name that this machine knows, or add it to its DNS"),
        Step("tcp", reach, lambda error: _unreachable(error, setting, start)),
    ]


def _resolved(host: str, port: int) -> str:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return ", ".join(dict.fromkeys(str(entry[4][0]) for entry in found))


def _unreachable(error: Exception, setting: str, start: str) -> str:
    if isinstance(error, ConnectionRefusedError):
        return f"nothing listens there: {start}"
    return f"let this machine through to it (firewall, proxy, VPN), or set {setting} to where it is"
