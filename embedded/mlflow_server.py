"""Run MLflow's server on SQLite and a folder, and end it with its parent process."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType

import psutil

STOP_SECONDS = 5


def main() -> int:
    """Start the server, and end it and its worker with this process or its parent."""
    parser = argparse.ArgumentParser(prog="python -m embedded.mlflow_server")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--home", type=Path, required=True)
    arguments = parser.parse_args()
    home: Path = arguments.home
    home.mkdir(parents=True, exist_ok=True)
    stopping = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    hosts = "127.0.0.1:*,localhost:*,127.0.0.1,localhost"
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(arguments.port)),
            *("--backend-store-uri", f"sqlite:///{home / 'mlflow.db'}"),
            *("--artifacts-destination", str(home / "artifacts"), "--workers", "1"),
        ],
        env={
            **os.environ,  # noqa: TID251 - passed on to MLflow, which reads variables of its own
            # The job runner, which MLflow starts by default, is switched off. With it MLflow has 15 processes and over
            # 2 GB; without it 2 processes and 0.5 GB.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_SERVER_ALLOWED_HOSTS": hosts,
            "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "http://127.0.0.1:*,http://localhost:*",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
        },
    )
    parent = os.getppid()
    while server.poll() is None and os.getppid() == parent:
        if stopping.wait(0.2):
            break
    asked = server.poll() is None
    family = psutil.Process().children(recursive=True)  # the server and its worker process
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(family, timeout=STOP_SECONDS)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    code = server.wait()
    return 0 if asked else code or 1


if __name__ == "__main__":
    raise SystemExit(main())
