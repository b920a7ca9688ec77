"""Write the trainers' blocks of Compose, chart, Prometheus and embedded mode: ``python -m tools.trainers [--check]``.

Two comments, ``trainers (NAME)`` and ``end of trainers``, enclose a block; the rest of each file is written by hand.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flts.trainers import TRAINERS, Trainer

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "# trainers ({}): written by `make generate`", "# end of trainers"


@dataclass(frozen=True)
class Package:
    """The properties that the deployments of one folder share."""

    image: str
    port: int
    """Port within the container."""
    memory: str
    """Memory limit in Compose and chart, MiB."""
    request_cpu: str
    request_memory: str
    shared_memory_setting: bool
    """Whether one Compose variable sets the memory limit of all of them."""


PACKAGES = {
    "train_container": Package("train", 8021, "768", "150m", "288Mi", shared_memory_setting=True),
    "nonML_container": Package("nonml", 8022, "608", "100m", "256Mi", shared_memory_setting=False),
}
BASELINES = Package("nonml", 8022, "304", "25m", "128Mi", shared_memory_setting=False)
"""The trainer of LINEAR and the baselines, whose child imports no model library and works for seconds."""


def main() -> int:
    """Write every block; with ``--check`` only return 1 if a file is stale."""
    stale = {path: text for path, text in files().items() if path.read_text(encoding="utf-8") != text}
    for path, text in stale.items():
        if "--check" in sys.argv[1:]:
            sys.stderr.write(f"{path.relative_to(ROOT)} is stale: make generate\n")
        else:
            path.write_text(text, encoding="utf-8")
    return 1 if stale and "--check" in sys.argv[1:] else 0


def files() -> dict[Path, str]:
    """Return every file with blocks, with its current text after the blocks are filled."""
    blocks = {
        "docker-compose.yaml": {"services": compose},
        ".helm/config/workloads.yaml": {"workloads": workload, "clients": client},
        ".helm/values.yaml": {"services": values},
        "deploy/prometheus/prometheus.yml": {"jobs": job},
        "deploy/prometheus/rules.yml": {"absent": absent},
        "embedded/settings.py": {"ports": embedded_port},
    }
    found = {}
    for name, writers in blocks.items():
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        for block, writer in writers.items():
            text = filled(text, block, [line for trainer in TRAINERS for line in writer(trainer)])
        found[path] = text
    return found


def filled(text: str, block: str, lines: list[str]) -> str:
    """Return a text with one of its blocks replaced; the new lines are indented like the comments around them.

    Raises
    ------
    LookupError
        If the text does not hold the block exactly once.
    """
    begin = re.escape(BEGIN.format(block))
    pattern = rf"(?ms)^(?P<indent> *){begin}\n.*?^ *{END}$"
    found = list(re.finditer(pattern, text))
    if len(found) != 1:
        msg = f"{len(found)} blocks of trainers are called {block}"
        raise LookupError(msg)
    indent = found[0]["indent"]
    whole = [BEGIN.format(block), *"\n".join(lines).strip("\n").split("\n"), END]
    written = "\n".join(f"{indent}{line}" if line else "" for line in whole)
    return text[: found[0].start()] + written + text[found[0].end() :]


def compose(trainer: Trainer) -> Iterator[str]:
    """Yield the lines of a Compose service."""
    package = _package(trainer)
    anchor = f"build-{package.image}"
    first = trainer == next(each for each in TRAINERS if each.package == trainer.package)
    build = f"{{context: ., dockerfile: {trainer.package}/Dockerfile, args: *build-args}}"
    memory = package.image.upper() if package.shared_memory_setting else _variable(trainer)
    yield f"{trainer.deployment}:"
    yield "  <<: *service"
    if not trainer.enabled:
        yield f"  profiles: [{trainer.model_type.lower()}]"
    yield f"  image: flts/{package.image}:${{FLTS_VERSION:-0.1.0}}"
    yield f"  build: &{anchor} {build}" if first else f"  build: *{anchor}"
    yield "  environment:"
    yield "    <<: *store-keys"
    yield f"    MODEL_TYPE: {trainer.model_type}"
    yield f'  ports: ["127.0.0.1:${{{_variable(trainer)}_PORT:-{trainer.port}}}:{package.port}"]'
    yield f"  mem_limit: ${{{memory}_MEMORY:-{package.memory}m}}"
    if trainer == TRAINERS[0]:
        yield "  # Threads of a training follow it."
    yield "  cpus: ${TRAIN_CPUS:-1.0}"
    yield ""


def workload(trainer: Trainer) -> Iterator[str]:
    """Yield the lines of a workload of the chart."""
    package = _package(trainer)
    yield f"{trainer.deployment}:"
    yield "  part: services"
    yield f"  values: {values_key(trainer)}"
    yield f"  image: {package.image}"
    yield f"  ports: {{http: {package.port}}}"
    yield "  metrics: true"
    # `trains` are the model types that a run waits for. A run does not wait for baselines.
    yield f"  trains: {','.join(trainer.awaited)}"
    yield "  secrets: [AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY]"
    yield f"  env: {{MODEL_TYPE: {trainer.model_type}}}"
    yield ""


def client(trainer: Trainer) -> Iterator[str]:
    """Yield the trainer's entry in the list of clients that may connect to Kafka."""
    yield f"- {trainer.deployment}"


def values(trainer: Trainer) -> Iterator[str]:
    """Yield the lines of the chart's values."""
    package = _package(trainer)
    if trainer == TRAINERS[0]:
        yield "# Threads of a training follow its CPU limit."
    yield f"{values_key(trainer)}:"
    yield f"  enabled: {str(trainer.enabled).lower()}"
    yield '  image: ""'
    yield "  replicas: 1"
    yield "  env: {}"
    yield "  resources:"
    yield f"    requests: {{cpu: {package.request_cpu}, memory: {package.request_memory}}}"
    yield f'    limits: {{cpu: "1", memory: {package.memory}Mi}}'
    yield ""


def job(trainer: Trainer) -> Iterator[str]:
    """Yield the lines of a Prometheus scrape job."""
    name, port = trainer.deployment, _package(trainer).port
    yield f"- job_name: {name}"
    yield "  dns_sd_configs:"
    yield f"    - {{names: [{name}], type: A, port: {port}, refresh_interval: 10s}}"


def absent(trainer: Trainer) -> Iterator[str]:
    """Yield the alert's condition that a trainer is absent; none for a trainer that is off by default."""
    if trainer.enabled:
        yield f'or absent(up{{job="{trainer.deployment}"}})'


def embedded_port(trainer: Trainer) -> Iterator[str]:
    """Yield the setting of a trainer's port in the embedded mode."""
    yield f"{_variable(trainer).lower()}_port: int = Field(default={trainer.port}, ge=0, le=65535)"
    yield f'"""Port of the {trainer.model_type} trainer\'s health and metrics."""'


def values_key(trainer: Trainer) -> str:
    """Return a deployment's key in the chart's values: ``trainGru``."""
    first, *others = trainer.deployment.split("-")
    return first + "".join(part.capitalize() for part in others)


def _package(trainer: Trainer) -> Package:
    return BASELINES if trainer.baselines else PACKAGES[trainer.package]


def _variable(trainer: Trainer) -> str:
    return trainer.deployment.upper().replace("-", "_")


if __name__ == "__main__":
    raise SystemExit(main())
