"""A TCP proxy on 127.0.0.1 with faults that tests switch on: unavailable, slow or silent backends."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Self

CHUNK_BYTES = 1 << 16
SLICES = 10
"""Parts of a second: a slow connection passes bytes this many times a second."""


@dataclass(frozen=True, slots=True)
class Mode:
    """How the proxy treats connections, including open ones."""

    kind: Literal["pass", "refuse", "blackhole", "slow", "stall"]
    amount: int = 0
    """Bytes per second (slow) or bytes until the stall (stall), in each direction of each connection."""

    @property
    def name(self) -> str:
        return f"{self.kind} {self.amount}" if self.amount else self.kind


PASS = Mode("pass")
REFUSE = Mode("refuse")
"""The port has no listener, and open connections are reset."""
BLACKHOLE = Mode("blackhole")
"""The proxy accepts connections and passes no bytes."""


def slow(bytes_per_second: int) -> Mode:
    return Mode("slow", bytes_per_second)


def stall_after(count: int) -> Mode:
    """Return the mode that passes ``count`` more bytes and then none, while connections stay open."""
    return Mode("stall", count)


class FaultyProxy:
    """Relays one port of 127.0.0.1 to another; `switch` changes the mode at once, for every connection.

    Bytes that a client sent before it gave up are delivered after the fault, as a frozen server would read them.
    """

    def __init__(self, target_port: int, *, mode: Mode = PASS) -> None:
        self._target = ("127.0.0.1", target_port)
        # This bound socket keeps the port reserved while the proxy does not listen.
        self._reserved = _socket(0)
        self.port = int(self._reserved.getsockname()[1])
        self._changed = threading.Condition()
        self._mode = PASS
        self._turn = 0
        self._closed = False
        self._listener: socket.socket | None = None
        self._open: set[_Connection] = set()
        self.accepted = 0
        self.switch(mode)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def switch(self, mode: Mode) -> None:
        """Treat all connections in this mode from now on."""
        with self._changed:
            self._mode = mode
            self._turn += 1
            self._changed.notify_all()
            if mode.kind == "refuse":
                self._stop_listening()
                for connection in self._open:
                    connection.reset()
                self._open.clear()
            elif self._listener is None:
                self._listener = _socket(self.port)
                self._listener.listen(128)
                threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    @contextmanager
    def fault(self, mode: Mode) -> Iterator[None]:
        """Use a mode until the end of the block, then pass all bytes."""
        self.switch(mode)
        try:
            yield
        finally:
            self.switch(PASS)

    def close(self) -> None:
        self.switch(REFUSE)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._reserved.close()

    def _stop_listening(self) -> None:
        if self._listener is not None:
            # shutdown() ends a call of accept() in the accepting thread. Until that call ends, the port stays open.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client = listener.accept()[0]
            except OSError:
                return
            connection = _Connection(client)
            with self._changed:
                self.accepted += 1
                if self._mode.kind == "refuse":
                    connection.reset()
                    continue
                self._open.add(connection)
            threading.Thread(target=self._relay, args=(connection,), daemon=True).start()

    def _relay(self, connection: _Connection) -> None:
        try:
            server = socket.create_connection(self._target, timeout=5)
        except OSError:
            connection.reset()
        else:
            server.settimeout(None)
            connection.join(server)
            back = threading.Thread(target=self._pump, args=(server, connection.client), daemon=True)
            back.start()
            self._pump(connection.client, server)
            back.join()
            connection.close()
        with self._changed:
            self._open.discard(connection)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        gate = _Gate(self)
        try:
            while data := source.recv(gate.most()):
                rest = memoryview(data)
                while rest:
                    count = gate.wait(len(rest))
                    sink.sendall(rest[:count])
                    rest = rest[count:]
            gate.wait(0)  # waits while a fault is active: a fault also delays the end of the stream
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            # One peer has closed the connection, so both directions end.
            for end in (source, sink):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)


class _Gate:
    """Computes how many bytes of one direction may pass in the proxy's current mode."""

    def __init__(self, proxy: FaultyProxy) -> None:
        self._proxy = proxy
        self._turn = -1
        self._left = 0
        self._next = 0.0

    def most(self) -> int:
        mode = self._proxy._mode
        return max(1, mode.amount // SLICES) if mode.kind == "slow" else CHUNK_BYTES

    def wait(self, wanted: int) -> int:
        """Return how many bytes may pass now: at least 1, or 0 if ``wanted`` is 0.

        Raises
        ------
        ConnectionResetError
            If the proxy is closed.
        """
        proxy = self._proxy
        with proxy._changed:
            while True:
                if proxy._closed:
                    raise ConnectionResetError
                mode = proxy._mode
                if self._turn != proxy._turn:
                    self._turn, self._left, self._next = proxy._turn, mode.amount, 0.0
                if mode.kind == "pass":
                    return wanted
                if mode.kind == "stall" and self._left > 0:
                    count = min(wanted, self._left)
                    self._left -= count
                    return count
                if mode.kind == "slow":
                    now = time.monotonic()
                    if now >= self._next:
                        self._next = now + 1 / SLICES
                        return min(wanted, max(1, mode.amount // SLICES))
                    proxy._changed.wait(self._next - now)
                else:
                    proxy._changed.wait()


class _Connection:
    """A client's connection and, once it is open, the connection to the server."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self._server: socket.socket | None = None
        self._gone = False
        self._lock = threading.Lock()

    def join(self, server: socket.socket) -> None:
        with self._lock:
            self._server = server
            if self._gone:
                _reset(server)

    def reset(self) -> None:
        with self._lock:
            self._gone = True
            _reset(self.client)
            if self._server is not None:
                _reset(self._server)

    def close(self) -> None:
        with self._lock:
            self.client.close()
            if self._server is not None:
                self._server.close()


def _socket(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    return made


def _reset(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads from this socket
        end.close()
