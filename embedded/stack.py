"""The whole pipeline on one machine: broker, store, MLflow and every service as processes of their own."""

from __future__ import annotations

import fcntl
import functools
import http.client
import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.parse import urlsplit

import httpx

from embedded.ports import free_port, is_taken
from embedded.processes import Program, Supervisor, why_stopped
from embedded.settings import EmbeddedSettings
from flts.errors import FltsError
from flts.trainers import DEPLOYMENTS

HOST = "127.0.0.1"
READY_TIMEOUT_SECONDS = 2.0
DRAIN_MARGIN_SECONDS = 6.0
"""Seconds beyond its drain that a service needs to close its clients."""


class StartError(FltsError):
    """The embedded mode cannot start; the message names the remedy or the log."""

    code = "cannot_start"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The ports of the programs."""

    gateway: int
    inference: int
    mlflow: int
    kafka: int
    health: Mapping[str, int]

    @property
    def gateway_url(self) -> str:
        """Return the gateway's address."""
        return f"http://{HOST}:{self.gateway}"

    @property
    def inference_url(self) -> str:
        """Return the inference service's address."""
        return f"http://{HOST}:{self.inference}"

    @property
    def mlflow_url(self) -> str:
        """Return MLflow's address."""
        return f"http://{HOST}:{self.mlflow}"


def choose_ports(settings: EmbeddedSettings) -> Endpoints:
    """Return the ports of the settings, with a free port in place of 0.

    Raises
    ------
    StartError
        Naming the first port that another process uses, and the setting that changes it.
    """
    ports: dict[str, int] = {}
    started = [trainer.deployment for trainer in settings.trainers()]
    off = {f"{name.replace('-', '_')}_port" for name in DEPLOYMENTS if name not in started}
    for name in sorted(name for name in type(settings).model_fields if name.endswith("_port") and name not in off):
        port = int(getattr(settings, name)) or free_port()
        if is_taken(port):
            msg = (
                f"port {port} ({name.upper()}) is taken by another program; end it, "
                f"or choose another port: make demo {name.upper()}={port + 1000}"
            )
            raise StartError(msg, code="port_taken", field=name.upper())
        ports[name.removesuffix("_port")] = port
    health = {name: ports[name.replace("-", "_")] for name in ("preprocess", *started, "eval", "inference-worker")}
    health |= {"fastapi-app": ports["gateway"], "inference": ports["inference"]}
    return Endpoints(ports["gateway"], ports["inference"], ports["mlflow"], ports["kafka"], health)


class Stack:
    """A running pipeline; use it as a context manager.

    Parameters
    ----------
    settings : EmbeddedSettings
        Ports and folders.
    say : callable
        Called with each line for the user.
    """

    def __init__(self, settings: EmbeddedSettings, say: Callable[[str], None]) -> None:
        self.settings = settings
        self.home = settings.flts_home.resolve()
        self._say = say
        self._lock: IO[str] | None = None
        self._stopping = threading.Event()

    def __enter__(self) -> Self:
        self.home.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.home)
        try:
            self.endpoints = choose_ports(self.settings)
            self.api_key = _api_key(self.settings, self.home)
            self.supervisor = Supervisor(self._say, stop_seconds=self.settings.stop_seconds)
        except BaseException:
            self._lock.close()
            raise
        for program in self._programs():
            self.supervisor.start(program)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self.supervisor.stop()
        self.home.joinpath("embedded.json").unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()

    def wait_ready(self, *, report: Callable[[list[str]], None] | None = None) -> None:
        """Return when every program is ready.

        Raises
        ------
        StartError
            After ``start_seconds``, naming the programs that are not ready and their logs; at once for wrong settings.
        """
        deadline = time.monotonic() + self.settings.start_seconds
        while waiting := self.supervisor.waiting_for():
            for name, log in self.supervisor.refused().items():
                msg = f"{name} cannot run with these settings: {_last_words(log)}"
                raise StartError(msg, code="wrong_settings")
            if report is not None:
                report(waiting)
            if time.monotonic() > deadline:
                logs = ", ".join(str(self.home / "logs" / f"{name}.log") for name in waiting)
                msg = f"not ready after {self.settings.start_seconds:g} s: {', '.join(waiting)}; see {logs}"
                raise StartError(msg, code="not_ready")
            time.sleep(0.1)
        self._write_state()
        self.announce_again()

    def announce_again(self) -> None:
        """Have the gateway publish unfinished runs again: the embedded broker loses its messages when it ends.

        Repeated until the gateway answers: after a crash of both, the broker may be ready first.
        """
        wait = 0.5
        while not self._stopping.is_set():
            try:
                answer = httpx.post(
                    f"{self.endpoints.gateway_url}/runs/resume",
                    params={"older_than_seconds": 0},
                    headers={"x-api-key": self.api_key},
                    timeout=30,
                )
                resumed = answer.raise_for_status().json().get("resumed", [])
            except (httpx.HTTPError, ValueError) as error:
                self._say(f"unfinished runs could not be announced again yet: {error}")
                self._stopping.wait(wait)
                wait = min(wait * 2, 10.0)
                continue
            if resumed:
                self._say(f"going on with what was unfinished: {', '.join(resumed)}")
            return

    def _write_state(self) -> None:
        state = {
            "pid": os.getpid(),
            "gateway_url": self.endpoints.gateway_url,
            "inference_url": self.endpoints.inference_url,
            "mlflow_url": self.endpoints.mlflow_url,
            "kafka": f"{HOST}:{self.endpoints.kafka}",
            "store": self.settings.store,
            "store_path": str(self.home / "store"),
            "health": {name: f"http://{HOST}:{port}" for name, port in self.endpoints.health.items()},
            "pids": self.supervisor.pids(),
        }
        partial = self.home / "embedded.json.partial"
        partial.write_text(json.dumps(state, indent=2))
        partial.replace(self.home / "embedded.json")

    def _programs(self) -> list[Program]:
        settings, endpoints = self.settings, self.endpoints
        trainers = settings.trainers()
        kafka = settings.kafka_advertised or f"{HOST}:{endpoints.kafka}"
        given = dict(os.environ)  # noqa: TID251 - passed on to the services, whose settings classes read it
        shared = {
            # All trainers may work at the same time, so each gets an equal share of the cores.
            "TRAIN_THREADS": str(max(1, (os.cpu_count() or 1) // max(1, len(trainers)))),
            # The time to finish work at a stop. It ends before the launcher kills the service, so the service has time
            # to release unfinished work without counting an attempt.
            "DRAIN_SECONDS": f"{max(1.0, settings.stop_seconds - DRAIN_MARGIN_SECONDS):g}",
            **{name: value for name, value in given.items() if value},
            "KAFKA_BOOTSTRAP_SERVERS": kafka,
            "STORE": settings.store,
            "STORE_PATH": str(self.home / "store"),
            "MLFLOW_TRACKING_URI": f"http://{settings.mlflow_advertised}"
            if settings.mlflow_advertised
            else endpoints.mlflow_url,
            "GATEWAY_URL": endpoints.gateway_url,
            "INFERENCE_URL": endpoints.inference_url,
            "EXPECTED_MODEL_TYPES": ",".join(settings.expected_model_types),
            "SERVICE_HOST": HOST,
            "PYTHONUNBUFFERED": "1",
            "MLFLOW_UI_URL": endpoints.mlflow_url,
            # OpenMP threads that wait for work sleep. By default they would spin and use a core.
            "OMP_WAIT_POLICY": "PASSIVE",
            "OMP_NUM_THREADS": "1",
        }
        programs = [
            self._program(
                "kafka",
                ["embedded.broker", "--host", HOST, "--port", str(endpoints.kafka), "--advertised", kafka],
                shared,
                ready=lambda: is_taken(endpoints.kafka),
                on_ready=self.announce_again,
                backend=True,
            ),
            self._program(
                "mlflow",
                ["embedded.mlflow_server", "--port", str(endpoints.mlflow), "--home", str(self.home / "mlflow")],
                shared,
                ready=lambda: _answers(f"{endpoints.mlflow_url}/health"),
                backend=True,
            ),
        ]
        services: list[tuple[str, str, dict[str, str]]] = [
            ("fastapi-app", "gateway_container", {"GATEWAY_API_KEY": self.api_key}),
            ("inference", "inference_container", {"CACHE_DIR": str(self.home / "inference")}),
            ("inference-worker", "inference_container.worker", {}),
            ("preprocess", "preprocess_container", {}),
            ("eval", "eval_container", {}),
            *((each.deployment, each.package, {"MODEL_TYPE": each.model_type}) for each in trainers),
        ]
        for name, module, own in services:
            port = endpoints.health.get(name) or free_port()
            environment = {**shared, **own, "SERVICE_PORT": str(port)}
            ready = functools.partial(_answers, f"http://{HOST}:{port}/readyz")
            programs.append(self._program(name, [module], environment, ready=ready))
        return programs

    def _program(
        self,
        name: str,
        module: list[str],
        environment: Mapping[str, str],
        *,
        ready: Callable[[], bool],
        on_ready: Callable[[], None] | None = None,
        backend: bool = False,
    ) -> Program:
        command = [sys.executable, "-m", *module]
        return Program(name, command, environment, self.home / "logs" / f"{name}.log", ready, on_ready, backend)


def _answers(url: str) -> bool:
    # This check runs often while programs start. It uses http.client, because httpx reads all certificates at each
    # call.
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.netloc, timeout=READY_TIMEOUT_SECONDS)
    try:
        connection.request("GET", address.path)
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _lock(home: Path) -> IO[str]:
    lock = (home / "lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        msg = f"another embedded FLTS runs on {home}; end it, or name another folder: make demo FLTS_HOME=.flts-2"
        raise StartError(msg, code="home_taken", field="FLTS_HOME") from error
    return lock


def _api_key(settings: EmbeddedSettings, home: Path) -> str:
    path = home / "api-key"
    kept = path.read_text().strip() if path.exists() else ""
    given = settings.gateway_api_key.get_secret_value() if settings.gateway_api_key is not None else ""
    key = given or kept or secrets.token_urlsafe(32)
    if key != kept:
        partial = home / "api-key.partial"
        partial.touch(0o600)
        partial.write_text(key + "\n")
        partial.replace(path)
    path.chmod(0o600)
    return key


def _last_words(log: Path) -> str:
    """Return why a service ended: the reason of its ``service_stopped``, else its last lines that are no JSON."""
    lines = log.read_text(errors="replace").splitlines()[-20:]
    plain = [line.strip() for line in lines if line.strip() and not line.startswith("{")]
    return why_stopped(log) or "; ".join(plain[-5:]) or f"see {log}"
