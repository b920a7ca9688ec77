"""The pipeline on Docker Compose, for the tests of `tests/e2e`."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from embedded.ports import free_port
from flts.settings import StoreSettings
from flts.trainers import TRAINERS
from tests.docker import PORTS as PUBLISHED
from tests.docker import ROOT, Installation, build_images, build_images_of, docker, installation, require_docker
from tests.pipeline import WORK, FreezablePipeline
from tools.trainers import PACKAGES

PORTS = {
    "preprocess": 8020,
    **{trainer.deployment: PACKAGES[trainer.package].port for trainer in TRAINERS if trainer.enabled},
    "eval": 8050,
    "inference-worker": 8024,
    "fastapi-app": 8000,
}
"""Ports inside the containers."""
REPLICAS = 2
"""Replicas of inference; with two, a test may kill one replica while forecasts continue."""
UP_SECONDS = 600
FREEZE_WORK = """
import contextlib, os, pathlib, signal
for line in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
    with contextlib.suppress(OSError):  # it has ended
        if b"%s" in line.read_bytes().split(b"\\0"):
            os.kill(int(line.parent.name), signal.SIGSTOP)
"""
UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


class ComposePipeline(FreezablePipeline):
    """A running Compose installation that only the tests use."""

    backends = ("kafka", "minio", "postgres", "mlflow")
    replicas = REPLICAS

    def __init__(self, made: Installation, override: Path) -> None:
        self.made = made
        self._override = override
        self.state = {}

    def up(
        self,
        code: Path,
        settings: Mapping[str, str],
        *,
        tag: str = "",
        profiles: Sequence[str] = (),
        services: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Start the installation from a source tree, or replace the running containers.

        Parameters
        ----------
        code : Path
            Tree with the Compose file.
        settings : dict
            Settings of every service.
        tag : str
            Tag of the images; by default the tag of the Compose file.
        """
        file = code / "docker-compose.yaml"
        known = yaml.safe_load(file.read_text())["services"]
        ports = {name: port for name, port in PORTS.items() if name in known}
        # Seconds. This limit is long, because services start slowly when all of them start at once.
        patient = {"BACKEND_CHECK_SECONDS": "120"}
        changed = {name: {"environment": patient | dict(settings)} for name in (*ports, "inference", "preprocess-job")}
        # Compose reads this file as a second Compose file, because JSON is valid YAML.
        self._override.write_text(json.dumps({"services": {**changed, **(services or {})}}))
        self.made.variables |= {"COMPOSE_FILE": os.pathsep.join([str(file), str(self._override)]), "FLTS_VERSION": tag}
        self.made.compose(
            *(f"--profile={profile}" for profile in profiles),
            *("up", "--detach", "--wait", "--no-build", "--remove-orphans", "--scale", f"inference={REPLICAS}"),
            timeout=UP_SECONDS,
        )
        gateway, inference = self._url("fastapi-app", 8000), self._url("inference-balancer", 8080)
        self.state = {
            "gateway_url": gateway,
            "inference_url": inference,
            "mlflow_url": self._url("mlflow", 5000),
            "kafka": f"127.0.0.1:{self.made.variables['KAFKA_PORT']}",
            "health": {name: self._url(name, port) for name, port in ports.items()} | {"inference": inference},
        }

    @property
    def api_key(self) -> str:
        return self.made.secret("GATEWAY_API_KEY")

    @property
    def store_settings(self) -> StoreSettings:
        return StoreSettings(
            store="s3",
            mlflow_s3_endpoint_url=self._url("minio", 9000),
            aws_access_key_id=self.made.secret("AWS_ACCESS_KEY_ID"),
            aws_secret_access_key=self.made.secret("AWS_SECRET_ACCESS_KEY"),
        )

    def log(self, program: str) -> str:
        return self.made.compose("logs", "--no-color", "--no-log-prefix", program)

    def memory(self) -> list[dict[str, Any]]:
        running = {name: each["Service"] for name, each in self.made.containers().items() if each["State"] == "running"}
        lines = docker(
            "stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}", *running, timeout=120
        ).splitlines()
        rows = []
        for line in lines:
            name, used, _, limit = line.split()
            rows.append({"program": running[name], "bytes": in_bytes(used), "limit": in_bytes(limit)})
        return rows

    def kill(self, program: str) -> None:
        """Kill one container and start it; Docker's restart policy ignores containers that `docker kill` ended."""
        names = [name for name, each in self.made.containers().items() if each["Service"] == program]
        assert names, f"{program} does not run"
        docker("kill", names[0])
        docker("start", names[0])

    def freeze(self, program: str) -> None:
        self.made.compose("pause", program)

    def thaw(self, program: str) -> None:
        self.made.compose("unpause", program)

    def freeze_work(self, program: str) -> None:
        self.made.compose("exec", "--no-TTY", program, "python", "-c", FREEZE_WORK % WORK)

    def _url(self, service: str, port: int) -> str:
        host, published = self.made.address(service, port)
        return f"http://{host}:{published}"


def in_bytes(text: str) -> int:
    """Return the bytes of a size from ``docker stats``, for example 1.5GiB."""
    number = text.rstrip("BKMGTi")
    return int(float(number) * UNITS[text.removeprefix(number)])


@contextmanager
def running_compose(
    folder: Path,
    *,
    profiles: Sequence[str] = (),
    services: Mapping[str, Mapping[str, Any]] | None = None,
    **settings: str,
) -> Iterator[ComposePipeline]:
    """Build the images, start the pipeline on Compose with free ports, and remove all of it afterwards.

    Parameters
    ----------
    profiles : sequence of str
        Compose profiles to start in addition.
    services : dict
        Changes of this test to services of the Compose file.
    settings : str
        Settings of every service, as in a ``config.env``.
    """
    require_docker()
    build_images()
    with _compose(folder) as composed:
        composed.up(ROOT, settings, profiles=profiles, services=services)
        yield composed


@contextmanager
def released_compose(folder: Path, code: Path, tag: str, **settings: str) -> Iterator[ComposePipeline]:
    """Start the pipeline of a released tree from that tree's images; ``up(ROOT, settings)`` upgrades it to this tree.

    Parameters
    ----------
    code : Path
        The released tree.
    tag : str
        Tag of its images.
    """
    require_docker()
    build_images()
    build_images_of(code, tag)
    with _compose(folder) as composed:
        composed.up(code, settings, tag=tag)
        yield composed


@contextmanager
def _compose(folder: Path) -> Iterator[ComposePipeline]:
    folder.mkdir(parents=True, exist_ok=True)
    # The test chooses fixed ports. Otherwise Docker would choose new ports at each restart of a container, and the
    # addresses that the test has would be wrong.
    ports = {name: str(free_port()) for name in PUBLISHED}
    with installation(f"flts-e2e-{uuid.uuid4().hex[:6]}", folder, ports) as made:
        yield ComposePipeline(made, folder / "settings.json")
