"""Describe the services of Compose, the chart and the embedded mode in one form, so that tests can compare them."""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from embedded.processes import Program
from tests.helm import EVERY_TRAINER, SECRETS, Document, container, documents, of_kind, pods, require_helm, template
from tests.trainers import EVERY_TYPE
from tools.chart import OTHERS
from tools.env_file import names
from tools.images import IMAGES

ROOT = Path(__file__).resolve().parents[1]
COMPOSE_FILES = ("docker-compose.yaml", ".helm/config/endpoints.env")
IMAGE_USERS = {"kafka": 1000, "minio": 0, "prometheus": 65534, "grafana": 472}
"""User ids of the third-party images for which Compose sets no user."""
UNNAMED_PORTS = {"postgres": {5432}}
"""Ports that services connect to although no address in the files contains them: serve.py's default."""


@dataclass(frozen=True)
class Running:
    """One service as a target runs it; a field is None if the target does not have it."""

    environment: Mapping[str, str]
    """Variables that the service reads; the value of a secret is `secret:<key>`."""
    image: str | None = None
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    ports: frozenset[int] | None = None
    ready: tuple[Any, ...] | None = None
    """The readiness check (kind, port and path, or command) and its timeout in seconds."""
    limits: tuple[float, float] | None = None
    """CPUs and bytes."""
    user: int | None = None
    writable: frozenset[str] | None = None
    """Folders that the service can write to."""
    drain_seconds: float | None = None


Installation = dict[str, Running]


def differences(
    one: Installation, other: Installation, *, only: set[str] | None = None
) -> Iterator[tuple[str, str, str]]:
    """Yield the service, the field (the variable, for the environment) and the two different values as text."""
    for service in sorted((one.keys() | other.keys()) & (only or one.keys() | other.keys())):
        if service not in one or service not in other:
            yield service, "service", "there" if service in one else "not there"
            continue
        first, second = one[service], other[service]
        for name in sorted(first.environment.keys() | second.environment.keys()):
            values = first.environment.get(name), second.environment.get(name)
            if values[0] != values[1]:
                yield service, name, f"{values[0]} against {values[1]}"
        for field in fields(Running):
            left, right = getattr(first, field.name), getattr(second, field.name)
            if field.name != "environment" and left is not None and right is not None and left != right:
                yield service, field.name, f"{left} against {right}"


def reading(service: str, declared: Mapping[str, set[str]]) -> set[str]:
    """Return the shared variables that a service reads."""
    return declared.get(service, set(OTHERS.get(service, ())))


# ---- FLTS's images: a value of an image applies where neither Compose nor the chart sets that setting


@dataclass(frozen=True)
class Built:
    """The settings that an image's Dockerfile gives to a container."""

    variables: Mapping[str, str]
    user: int
    command: tuple[str, ...]
    asked: tuple[Any, ...]


@functools.cache
def built(image: str) -> Built | None:
    """Return the settings of one of FLTS's images; None for any other image."""
    found = re.search(r"(?:^|/)flts/([a-z-]+):", image)
    if found is None:
        return None
    [entry] = [each for each in IMAGES if each.name == found[1]]
    text = _stages((ROOT / entry.dockerfile).read_text(), entry.target)
    joined = text.replace("\\\n", " ")
    variables = dict(re.findall(r"(\w+)=(\S+)", " ".join(re.findall(r"(?m)^ENV (.*)$", joined))))
    check = re.search(r"(?m)^HEALTHCHECK .*--timeout=(\S+) .*CMD (\[.*\])$", joined)
    asked: tuple[Any, ...] = ()
    if check is not None:
        last = ast.literal_eval(check[2])[-1]
        path = "/readyz" if last.endswith("probe.py") else last
        asked = ("http", int(variables["SERVICE_PORT"]), path, _seconds(check[1]))
    command = re.findall(r"(?m)^CMD (\[.*\])$", text)
    return Built(
        {name: value for name, value in variables.items() if name.startswith("OMP_")},
        int(re.findall(r"(?m)^USER (\d+)", text)[-1]),
        tuple(ast.literal_eval(command[-1])) if command else (),
        asked,
    )


def _stages(dockerfile: str, target: str) -> str:
    """Return the Dockerfile text of a stage and of the stages from which it is built."""
    stages = re.split(r"(?m)^(?=FROM )", dockerfile)[1:]
    heads = [re.match(r"FROM (\S+)(?: AS (\S+))?", stage) for stage in stages]
    at = next((index for index, head in enumerate(heads) if head and head[2] == target), -1) if target else -1
    head = heads[at]
    assert head is not None
    base = next((each[2] for each in heads if each and each[2] == head[1]), None)
    return (_stages(dockerfile, base) if base else "") + stages[at]


# ---- Compose


def from_compose(folder: Path, declared: Mapping[str, set[str]]) -> Installation:
    """Read a folder's Compose file with every trainer; the folder holds copies, without a config.env."""
    given = {"EXPECTED_MODEL_TYPES": EVERY_TYPE} | {name: f"secret:{name}" for name in SECRETS}
    folder.joinpath("env").write_text("".join(f"{name}={value}\n" for name, value in given.items()))
    command = ["docker", "compose", "--env-file", "env", "--profile", "*", "config", "--format", "json"]
    inherited = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "DOCKER_CONFIG"}}
    answer = subprocess.run(command, cwd=folder, env=inherited, capture_output=True, text=True, check=False, timeout=60)
    assert answer.returncode == 0, answer.stderr
    services = json.loads(answer.stdout)["services"]
    shared = names((folder / ".helm" / "config" / "endpoints.env").read_text())
    ports = _addressed(answer.stdout + (ROOT / "deploy" / "haproxy" / "haproxy.cfg").read_text(), set(services))
    return {
        name: _of_compose(name, service, shared - reading(name, declared), ports.get(name, set()))
        for name, service in services.items()
    }


def _of_compose(name: str, service: Document, unread: set[str], ports: set[int]) -> Running:
    image = built(service["image"])
    environment = {key: value for key, value in (service.get("environment") or {}).items() if key not in unread}
    published = {port["target"] for port in service.get("ports", [])}
    folders = {mount["target"] for mount in service.get("volumes", []) if not mount.get("read_only")}
    grace, user = service.get("stop_grace_period"), service.get("user")
    return Running(
        environment={**(image.variables if image else {}), **environment},
        image=service["image"],
        entrypoint=tuple(service.get("entrypoint") or ()),
        command=tuple(service.get("command") or (image.command if image else ())),
        ports=frozenset(published | ports | UNNAMED_PORTS.get(name, set())),
        ready=_asked_by_compose(service.get("healthcheck"), image),
        limits=(float(service["cpus"]), float(service["mem_limit"])),
        user=int(user.partition(":")[0]) if user else image.user if image else IMAGE_USERS.get(name),
        writable=frozenset(folders | {each.partition(":")[0] for each in service.get("tmpfs", [])}),
        drain_seconds=_seconds(grace) if grace else None,
    )


def _addressed(text: str, services: set[str]) -> dict[str, set[int]]:
    """Return the ports of each service that appear in an address in the text."""
    found: dict[str, set[int]] = {}
    for name, port in re.findall(r"(?<![\w/.-])([a-z][a-z-]+)(?:', |:)(\d{4,5})\b", text.replace("://", ":// ")):
        if name in services:
            found.setdefault(name, set()).add(int(port))
    return found


def _asked_by_compose(check: Document | None, image: Built | None) -> tuple[Any, ...]:
    if check is None:
        return image.asked if image else ()
    if check.get("disable"):
        return ()
    test, timeout = check["test"][1:], _seconds(check["timeout"])
    text = " ".join(test)
    if found := re.search(r"http://127\.0\.0\.1:(\d+)(/\S*)$", text):
        return ("http", int(found[1]), found[2], timeout)
    if found := re.search(r"/dev/tcp/127\.0\.0\.1/(\d+)$|\('127\.0\.0\.1', (\d+)\), 5\)$", text):
        return ("tcp", int(found[1] or found[2]), timeout)
    return ("exec", tuple(test), timeout)


def _seconds(text: str) -> float:
    parts = re.findall(r"(\d+)([ms])", text)
    assert parts, text
    return float(sum(int(number) * {"m": 60, "s": 1}[unit] for number, unit in parts))


# ---- The chart


def from_chart(*files: str, chart: Path, sets: Mapping[str, str] | None = None) -> Installation:
    """Render the chart with every trainer and return the services of its pods, without the pod of `helm test`."""
    every = {name.replace("__", "."): value for name, value in EVERY_TRAINER.items()}
    answer = template(require_helm(), files, {**every, **(sets or {})}, chart)
    assert answer.returncode == 0, answer.stderr
    rendered = list(documents(answer.stdout))
    services = of_kind(rendered, "Service")
    return {name: _of_pod(pod, services.get(name)) for name, pod in pods(rendered).items() if name != "trial"}


def _of_pod(pod: Document, service: Document | None) -> Running:
    one, spec = container(pod), pod["spec"]
    image = built(one["image"])
    named = {port["name"]: port["containerPort"] for port in one.get("ports", [])}
    environment = {
        each["name"]: each["value"] if "value" in each else f"secret:{each['valueFrom']['secretKeyRef']['key']}"
        for each in one.get("env", [])
    }
    linger = one.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])[1]
    limits = one["resources"]["limits"]
    # A Service port must lead to the container's port; any other target counts as missing.
    reached = {
        port["port"]
        for port in (service["spec"]["ports"] if service else ())
        if named[port["targetPort"]] == port["port"]
    }
    return Running(
        environment={**(image.variables if image else {}), **environment},
        image=one["image"],
        entrypoint=tuple(one.get("command", ())),
        command=tuple(one.get("args", ()) or (image.command if image else ())),
        ports=frozenset(reached),
        ready=_asked_by_kubelet(one.get("readinessProbe"), named),
        limits=(_cpus(limits["cpu"]), _bytes(limits["memory"])),
        user=spec["securityContext"]["runAsUser"],
        writable=frozenset(each["mountPath"] for each in one.get("volumeMounts", []) if not each.get("readOnly")),
        drain_seconds=float(spec["terminationGracePeriodSeconds"] - int(linger)),
    )


def _asked_by_kubelet(probe: Document | None, named: Mapping[str, int]) -> tuple[Any, ...]:
    if probe is None:
        return ()
    timeout = float(probe["timeoutSeconds"])
    if "httpGet" in probe:
        return ("http", named[probe["httpGet"]["port"]], probe["httpGet"]["path"], timeout)
    if "tcpSocket" in probe:
        return ("tcp", named[probe["tcpSocket"]["port"]], timeout)
    return ("exec", tuple(probe["exec"]["command"]), timeout)


def _cpus(quantity: str | float) -> float:
    text = str(quantity)
    return float(text.removesuffix("m")) / 1000 if text.endswith("m") else float(text)


def _bytes(text: str) -> float:
    return float(text[:-2]) * {"Mi": 2**20, "Gi": 2**30}[text[-2:]]


# ---- The embedded mode


def from_embedded(
    programs: list[Program], addresses: Mapping[str, str], declared: Mapping[str, set[str]], secrets: Mapping[str, str]
) -> Installation:
    """Return the services that the launcher would start; replace this machine's addresses by ``addresses``."""
    known = {value: f"secret:{name}" for name, value in secrets.items()}
    found = {}
    for program in programs:
        if program.name not in declared:
            continue
        environment = {}
        for name, value in program.environment.items():
            if name in declared[program.name] or name.startswith("OMP_"):
                text = str(value)
                for here, there in addresses.items():
                    text = text.replace(here, there)
                environment[name] = known.get(text, text)
        [_, _, *module] = program.command
        found[program.name] = Running(environment=environment, command=tuple(module))
    return found
