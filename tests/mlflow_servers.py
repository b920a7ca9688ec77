"""MLflow servers for tests: a real server on SQLite, the server that the environment names, and a silent server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from embedded.ports import free_port
from tests.eventually import eventually
from tests.faulty_proxy import BLACKHOLE, PASS, FaultyProxy

MLFLOW_ON_POSTGRES = "FLTS_TEST_MLFLOW"
"""Variable that names an MLflow server on 127.0.0.1 with records in Postgres; tests may fill and freeze the server."""


@dataclass
class MlflowServer:
    """A running server in a process group of its own."""

    uri: str
    process: subprocess.Popen[bytes]

    def freeze(self) -> None:
        """Suspend all its processes: the kernel accepts connections, and the server does not answer."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.killpg(self.process.pid, signal.SIGCONT)


@dataclass
class NamedMlflow:
    """A server that the tests did not start, behind a proxy that can freeze the server for the tests' clients."""

    proxy: FaultyProxy

    @property
    def uri(self) -> str:
        return self.proxy.url

    def freeze(self) -> None:
        self.proxy.switch(BLACKHOLE)

    def thaw(self) -> None:
        self.proxy.switch(PASS)


Mlflow = MlflowServer | NamedMlflow


@contextmanager
def named_mlflow() -> Iterator[NamedMlflow]:
    """Give the server that the environment names, behind a proxy, until the end of the block."""
    address = urlsplit(os.environ[MLFLOW_ON_POSTGRES])
    assert address.hostname in {"127.0.0.1", "localhost"}, "faults are for this machine's own servers"
    assert address.port is not None
    with FaultyProxy(address.port) as proxy:
        yield NamedMlflow(proxy)


def why_no_postgres() -> str | None:
    """Return why the suite cannot run on Postgres, or None if it can."""
    if os.environ.get(MLFLOW_ON_POSTGRES):
        return None
    return f"no MLflow on Postgres: {MLFLOW_ON_POSTGRES} not set; the suite ran on SQLite only"


@contextmanager
def running_mlflow(folder: Path) -> Iterator[MlflowServer]:
    """Run `mlflow server` in a folder until the end of the block."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    environment = {
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "OMP_NUM_THREADS": "1",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1"),
                *("--port", str(port), "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
                *("--artifacts-destination", str(folder / "artifacts"), "--serve-artifacts"),
            ],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        eventually(lambda: _answers(f"{uri}/health", process), f"mlflow answers, see {folder / 'log'}", timeout=180)
        yield MlflowServer(uri, process)
    finally:
        os.killpg(process.pid, signal.SIGCONT)
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


@dataclass
class FrozenServer:
    """Accepts every connection and answers none."""

    uri: str
    connections: list[socket.socket] = field(default_factory=list)


@contextmanager
def frozen_server() -> Iterator[FrozenServer]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = FrozenServer(f"http://127.0.0.1:{listener.getsockname()[1]}")

        def accept() -> None:
            while True:
                try:
                    server.connections.append(listener.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield server
        listener.shutdown(socket.SHUT_RDWR)
    for connection in server.connections:
        connection.close()


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, f"mlflow ended with {process.returncode}"
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False
