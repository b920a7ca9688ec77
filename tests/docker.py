"""Docker for tests: commands with a timeout, and a Compose installation that only the tests use."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.trainers import PORTS as TRAINER_PORTS
from tools.env_file import EXAMPLE, names
from tools.images import IMAGES, Image, build_command, environment

ROOT = Path(__file__).resolve().parents[1]
PORTS = (
    *("GATEWAY_PORT", "INFERENCE_PORT", "MLFLOW_PORT", "KAFKA_PORT", "MINIO_PORT", "MINIO_CONSOLE_PORT"),
    *("PREPROCESS_PORT", *TRAINER_PORTS, "EVAL_PORT", "INFERENCE_WORKER_PORT"),
    *("PROMETHEUS_PORT", "GRAFANA_PORT", "LOCUST_PORT"),
)


def require_docker() -> None:
    """Skip the test if the Docker engine does not answer or Compose v2 is missing."""
    if shutil.which("docker") is None:
        pytest.skip("no `docker` on the PATH: images and Compose are not tested")
    for command in (["docker", "version"], ["docker", "compose", "version"]):
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        if answer.returncode:
            pytest.skip(f"`{' '.join(command)}` fails, so images and Compose are not tested: {answer.stderr.strip()}")


def require_compose() -> None:
    """Skip the test without Compose v2, which reads the Compose file without an engine."""
    if shutil.which("docker") is None:
        pytest.skip("no `docker` on the PATH: the Compose file is not read as Compose does")
    answer = subprocess.run(["docker", "compose", "version"], capture_output=True, text=True, check=False, timeout=30)
    if answer.returncode:
        pytest.skip(f"`docker compose version` fails, so the Compose file is not read: {answer.stderr.strip()}")


def docker(*arguments: str, timeout: float = 60, check: bool = True) -> str:
    """Run a docker command and return its output; the failure's message has its stderr."""
    answer = subprocess.run(
        ["docker", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=timeout
    )
    assert not check or answer.returncode == 0, f"docker {' '.join(arguments)}: {answer.stderr.strip()[-2000:]}"
    return answer.stdout


def build_images() -> None:
    """Build our images; Docker reuses cached layers of unchanged files."""
    for image in IMAGES:
        _build(image, ROOT)


def build_images_of(code: Path, tag: str) -> list[str]:
    """Build the images of another tree with this tag; return their names."""
    references = []
    for image in IMAGES:
        if (code / image.dockerfile).exists():
            references.append(f"flts/{image.name}:{tag}")
            _build(image, code, references[-1])
    return references


def _build(image: Image, code: Path, reference: str = "") -> None:
    subprocess.run(
        build_command(image, reference), cwd=code, env=environment(), capture_output=True, check=True, timeout=1100
    )


def inspect(name: str) -> Any:
    """Return the output of `docker inspect` for a container."""
    return json.loads(docker("inspect", name))[0]


class Installation:
    """A Compose project with its own secrets, on free ports by default."""

    def __init__(self, name: str, folder: Path, variables: Mapping[str, str]) -> None:
        self.name = name
        self.env_file = folder / "env"
        subprocess.run(
            ["python3", "-m", "tools.env_file", str(self.env_file)], cwd=ROOT, check=True, capture_output=True
        )
        self.variables = {**dict.fromkeys(PORTS, "0"), **variables}

    def compose(self, *arguments: str, timeout: float = 120, check: bool = True) -> str:
        """Run a Compose command for this installation and return its output."""
        command = ["docker", "compose", "--project-name", self.name, "--env-file", str(self.env_file), *arguments]
        answer = subprocess.run(
            command,
            cwd=ROOT,
            env={**self._inherited(), **self.variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        assert not check or answer.returncode == 0, f"docker compose {' '.join(arguments)}: {answer.stderr[-3000:]}"
        return answer.stdout

    def _inherited(self) -> dict[str, str]:
        # Compose prefers environment variables to the env file. So this method leaves out each variable of the caller's
        # shell that the env file sets.
        return {name: value for name, value in os.environ.items() if name not in names(EXAMPLE.read_text())}

    def address(self, service: str, port: int) -> tuple[str, int]:
        """Return the host and port at which Docker publishes a service's port."""
        host, _, published = self.compose("port", service, str(port)).strip().rpartition(":")
        return host, int(published)

    def secret(self, name: str) -> str:
        """Return a value of the installation's `.env`."""
        lines = dict(line.split("=", 1) for line in self.env_file.read_text().splitlines())
        return lines[name]

    def containers(self) -> dict[str, Any]:
        """Return the entry of `docker compose ps` for each container, by the container's name."""
        lines = self.compose("ps", "--all", "--format", "json").splitlines()
        return {each["Name"]: each for each in map(json.loads, lines)}

    def client(self, service: str, port: int) -> httpx.Client:
        """Return a client of a published port, with the gateway's key."""
        host, published = self.address(service, port)
        key = {"x-api-key": self.secret("GATEWAY_API_KEY")}
        return httpx.Client(base_url=f"http://{host}:{published}", headers=key, timeout=30)


@contextmanager
def installation(name: str, folder: Path, variables: Mapping[str, str] | None = None) -> Iterator[Installation]:
    """Yield a Compose installation, and remove its containers and data afterwards."""
    made = Installation(name, folder, variables or {})
    try:
        yield made
    finally:
        made.compose("--profile", "*", "down", "--volumes", "--timeout", "10", timeout=180, check=False)
