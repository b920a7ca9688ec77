"""The faults of the proxy, on which the long suites rely, behave as named."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.eventually import eventually
from tests.faulty_proxy import BLACKHOLE, PASS, REFUSE, FaultyProxy, slow, stall_after


@pytest.fixture
def proxy() -> Iterator[FaultyProxy]:
    """A proxy in front of a server that returns every byte."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    client = listener.accept()[0]
                except OSError:
                    return
                threading.Thread(target=echo, args=(client,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        with FaultyProxy(listener.getsockname()[1]) as proxy:
            yield proxy
        listener.shutdown(socket.SHUT_RDWR)


def echo(client: socket.socket) -> None:
    with client:
        try:
            while data := client.recv(1 << 16):
                client.sendall(data)
        except OSError:
            return


@contextmanager
def connected(proxy: FaultyProxy) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=30) as client:
        yield client


def answer(client: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count and (data := client.recv(1 << 16)):
        got += data
    return got


def silent(client: socket.socket, seconds: float = 0.2) -> bool:
    client.settimeout(seconds)
    try:
        return client.recv(1) is None
    except TimeoutError:
        return True
    finally:
        client.settimeout(30)


def test_everything_passes_and_an_end_passes_too(proxy: FaultyProxy) -> None:
    with connected(proxy) as client:
        sent = bytes(range(256)) * 4096
        threading.Thread(target=client.sendall, args=(sent,)).start()

        assert answer(client, len(sent)) == sent

        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    assert proxy.accepted == 1


def test_refusing_ends_what_is_connected_and_lets_nobody_in_until_it_is_over(proxy: FaultyProxy) -> None:
    with connected(proxy) as client:
        client.sendall(b"before")
        assert answer(client, 6) == b"before"

        with proxy.fault(REFUSE):
            with suppress(ConnectionResetError):
                assert client.recv(1) == b""
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", proxy.port), timeout=5)

    with connected(proxy) as client:
        client.sendall(b"after")
        assert answer(client, 5) == b"after"


def test_a_black_hole_accepts_and_answers_when_it_is_over(proxy: FaultyProxy) -> None:
    with connected(proxy) as old:
        proxy.switch(BLACKHOLE)
        with connected(proxy) as new:
            for client in (old, new):
                client.sendall(b"hello")
                assert silent(client)

            proxy.switch(PASS)

            for client in (old, new):
                assert answer(client, 5) == b"hello"


def test_slow_is_as_slow_as_it_says_for_what_is_connected_too(proxy: FaultyProxy) -> None:
    with connected(proxy) as client:
        proxy.switch(slow(1000))
        started = time.monotonic()
        client.sendall(bytes(600))

        assert len(answer(client, 600)) == 600
        took = time.monotonic() - started
        assert took > 0.4

        client.sendall(bytes(100_000))
        proxy.switch(PASS)
        assert len(answer(client, 100_000)) == 100_000


def test_stalling_lets_exactly_so_much_through(proxy: FaultyProxy) -> None:
    with connected(proxy) as client:
        client.sendall(b"before")
        assert answer(client, 6) == b"before"

        proxy.switch(stall_after(1000))
        client.sendall(bytes(5000))
        assert len(answer(client, 1000)) == 1000
        assert silent(client)

        proxy.switch(PASS)
        assert len(answer(client, 4000)) == 4000


def test_a_target_that_is_not_there_ends_the_connection() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with FaultyProxy(unused.getsockname()[1]) as proxy:
            # The target's port has no listener. The proxy may close the client's connection before connect() returns.
            with suppress(BrokenPipeError, ConnectionResetError), connected(proxy) as client:
                assert client.recv(1) == b""
            eventually(lambda: proxy.accepted == 1, "it was made")
