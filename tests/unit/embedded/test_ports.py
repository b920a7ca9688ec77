"""A chosen port is free until a process listens on it, which MLflow does 10 s later."""

from __future__ import annotations

import itertools
import socket
from pathlib import Path

import pytest

from embedded import ports


def test_a_port_is_free_and_none_is_given_twice() -> None:
    given = [ports.free_port() for _ in range(100)]

    assert len(set(given)) == 100
    assert not any(ports.is_taken(port) for port in given)


@pytest.mark.skipif(not Path("/proc/sys/net/ipv4").exists(), reason="not Linux: the kernel's range is not known")
def test_no_outgoing_connection_is_given_such_a_port() -> None:
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])

    assert max(ports.free_port() for _ in range(100)) < low


def test_a_port_that_somebody_uses_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ports.free_port()
    drawn = itertools.count(wanted - ports.LOWEST)
    monkeypatch.setattr(ports.secrets, "randbelow", lambda _: next(drawn))
    monkeypatch.setattr(ports, "_given", set())
    with socket.socket() as user:
        user.bind(("127.0.0.1", wanted))

        assert ports.free_port() > wanted


def test_a_range_that_is_full_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports.secrets, "randbelow", lambda _: 0)
    monkeypatch.setattr(ports, "_given", {ports.LOWEST})

    with pytest.raises(OSError, match="no free port"):
        ports.free_port()
