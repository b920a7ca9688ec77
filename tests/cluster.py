"""Kubernetes for tests: commands with a timeout, and an installation of the chart that only the tests use."""

from __future__ import annotations

import base64
import json
import os
import random
import shlex
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from embedded.ports import is_taken
from tests.docker import build_images, build_images_of
from tests.helm import CHART, ROOT, VALUES, container, pods, render

RELEASE = "flts"
HOST = os.environ.get("FLTS_TEST_CLUSTER_HOST", "127.0.0.1")
"""Host at which the tests reach the node's ports."""
NODE_PORTS = range(30_000, 32_768)
RESTRICTED = {
    "pod-security.kubernetes.io/enforce": "restricted",
    "pod-security.kubernetes.io/enforce-version": "latest",
}
INSTALL_SECONDS = 600
UNINSTALL_SECONDS = 60
"""Longest time of `helm uninstall` in seconds, and of the pods' end after it."""

Document = dict[str, Any]


def require_cluster() -> None:
    """Skip the test if KUBECONFIG names no cluster; kubectl's default cluster may be in use for other work."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG names no cluster: the chart is not installed")
    for name in ("kubectl", "helm"):
        if shutil.which(name) is None:
            pytest.skip(f"no `{name}` on the PATH: the chart is not installed")
    answer = subprocess.run(
        ["kubectl", "get", "--raw", "/readyz", "--request-timeout", "10s"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    if answer.returncode:
        pytest.skip(f"the cluster that KUBECONFIG names does not answer: {answer.stderr.strip()}")


def command(*words: str, timeout: float = 60, check: bool = True, given: str | None = None) -> str:
    """Run a command in the repository's root and return its output; the failure's message has its stderr."""
    answer = subprocess.run(words, cwd=ROOT, input=given, capture_output=True, text=True, check=False, timeout=timeout)
    assert not check or answer.returncode == 0, f"{shlex.join(words)}: {answer.stderr.strip()[-3000:]}"
    return answer.stdout


def kubectl(*arguments: str, timeout: float = 60, check: bool = True, given: str | None = None) -> str:
    """Run kubectl."""
    return command("kubectl", *arguments, timeout=timeout, check=check, given=given)


def load_images() -> None:
    """Build our images, and load the chart's images into the nodes with the command in FLTS_TEST_CLUSTER_LOAD.

    Without the variable the tests use the images that the nodes have.
    """
    loading = os.environ.get("FLTS_TEST_CLUSTER_LOAD", "")
    if not loading:
        return
    build_images()
    named = {str(container(pod)["image"]) for pod in pods(render("values-complete.yaml")).values()}
    # The test loads only the images that the local Docker engine has. The nodes of the cluster pull the other images
    # from a registry.
    there = [image for image in sorted(named) if command("docker", "image", "ls", "--quiet", image)]
    command(*shlex.split(loading), *there, timeout=1100)


def load_images_of(code: Path, tag: str) -> None:
    """Build the images of another tree with this tag, and load them into the nodes."""
    loading = os.environ.get("FLTS_TEST_CLUSTER_LOAD", "")
    if loading:
        command(*shlex.split(loading), *build_images_of(code, tag), timeout=1100)


def free_node_ports(count: int) -> list[int]:
    """Return random node ports that no Service uses and no process listens on."""
    services = json.loads(kubectl("get", "services", "--all-namespaces", "--output", "json"))["items"]
    taken = {port.get("nodePort") for service in services for port in service["spec"].get("ports", [])}
    taken |= set(VALUES["nodePorts"].values())  # the default ports stay free for an installation that uses them
    free = [port for port in NODE_PORTS if port not in taken and not is_taken(port)]
    return random.sample(free, count)


class Namespace:
    """A namespace of the tests, with kubectl and Helm commands for it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def kubectl(self, *arguments: str, timeout: float = 60, check: bool = True, given: str | None = None) -> str:
        """Run kubectl in this namespace."""
        return kubectl("--namespace", self.name, *arguments, timeout=timeout, check=check, given=given)

    def get(self, *what: str) -> list[Document]:
        """Return objects, such as ``get("pods")``."""
        return list(json.loads(self.kubectl("get", *what, "--output", "json"))["items"])

    def apply(self, *manifests: Document) -> None:
        """Create objects."""
        self.kubectl(
            "apply", "--filename", "-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
        )

    def helm(self, *arguments: str, timeout: float = 120) -> str:
        """Run a Helm command on this namespace."""
        return command("helm", *arguments, "--namespace", self.name, timeout=timeout)


class Release(Namespace):
    """A Helm release of the chart in its own namespace, with free node ports."""

    def __init__(self, name: str, folder: Path, values: Mapping[str, Any]) -> None:
        super().__init__(name)
        self.ports = dict(zip(VALUES["nodePorts"], free_node_ports(len(VALUES["nodePorts"])), strict=True))
        self.folder = folder
        self.values = {**values, "nodePorts": self.ports}
        self.chart = CHART

    def install(self, *files: str) -> None:
        """Install the chart and wait until every workload is ready."""
        self._helm("install", files, self.values)

    def start(self) -> None:
        """Install the chart without waiting."""
        self._helm("install", (), self.values, waiting=())

    def upgrade(self, *files: str, **changed: Any) -> None:
        """Upgrade the release, with the same values except for `changed`."""
        self._helm("upgrade", files, {**self.values, **changed})

    def rollback(self, revision: int) -> None:
        """Return to an earlier revision."""
        self.helm("rollback", RELEASE, str(revision), *_waiting(), timeout=INSTALL_SECONDS + 30)

    def uninstall(self) -> str:
        """Uninstall the release and return Helm's output."""
        waiting = ("--wait", "--timeout", f"{UNINSTALL_SECONDS}s")
        return self.helm("uninstall", RELEASE, *waiting, timeout=UNINSTALL_SECONDS + 30)

    def _helm(
        self, verb: str, files: tuple[str, ...], values: Mapping[str, Any], waiting: tuple[str, ...] | None = None
    ) -> None:
        own = self.folder / f"{uuid.uuid4().hex}.json"  # a values file may be JSON, because JSON is valid YAML
        own.write_text(json.dumps(values))
        named = [word for file in (*(self.chart / name for name in files), own) for word in ("--values", str(file))]
        try:
            waits = _waiting() if waiting is None else waiting
            self.helm(verb, RELEASE, str(self.chart), *named, *waits, timeout=INSTALL_SECONDS + 30)
        except AssertionError as error:
            msg = f"{error}\n{self.complaints()}"
            raise AssertionError(msg) from error

    def complaints(self) -> str:
        """Return the pods and the last 30 events, which show why an installation is not ready."""
        events = self.kubectl("get", "events", "--sort-by", ".lastTimestamp", check=False).splitlines()
        return "\n".join([self.kubectl("get", "pods", check=False), *events[-30:]])

    def url(self, port: str) -> str:
        """Return the address of a port of the node, by its key in the chart's values."""
        return f"http://{HOST}:{self.ports[port]}"

    def secret(self, name: str) -> str:
        """Return one of the chart's secrets."""
        data = json.loads(self.kubectl("get", "secret", "flts-secrets", "--output", "json"))["data"]
        return base64.b64decode(data[name]).decode()

    def pods(self, component: str = "") -> list[Document]:
        """Return the pods, of one component if it is given, that are not being deleted."""
        labels = f"app.kubernetes.io/instance={RELEASE}"
        if component:
            labels += f",app.kubernetes.io/component={component}"
        return [pod for pod in self.get("pods", "--selector", labels) if not pod["metadata"].get("deletionTimestamp")]

    def events(self, reason: str) -> list[Document]:
        """Return the cluster's events with this reason."""
        return self.get("events", "--field-selector", f"reason={reason}")


def _waiting() -> tuple[str, ...]:
    return ("--wait", "--timeout", f"{INSTALL_SECONDS}s")


def component(pod: Document) -> str:
    """Return the name of a pod's workload."""
    return str(pod["metadata"]["labels"]["app.kubernetes.io/component"])


def quantity(text: str) -> float:
    """Return a Kubernetes quantity, for example 512Mi or 50m, as a number."""
    units = {"m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "k": 1e3, "M": 1e6, "G": 1e9}
    number = text.rstrip("kKmMGi")
    return float(number) * units.get(text.removeprefix(number), 1)


def memory_of(release: Release) -> list[dict[str, Any]]:
    """Return the last measured working set of each container, its limit and its request, in bytes."""
    living = {pod["metadata"]["name"]: pod for pod in release.pods()}
    nodes = {pod["spec"].get("nodeName") for pod in living.values()} - {None}
    rows = []
    for node in sorted(nodes):
        summary = json.loads(kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/stats/summary"))
        for measured in summary["pods"]:
            pod = living.get(measured["podRef"]["name"])
            if pod is None or measured["podRef"]["namespace"] != release.name:
                continue
            resources = container(pod)["resources"]
            sizes = {name.removesuffix("s"): quantity(resources[name]["memory"]) for name in ("limits", "requests")}
            rows += [
                {"program": component(pod), "bytes": each["memory"]["workingSetBytes"], **sizes}
                for each in measured.get("containers", [])
                if "workingSetBytes" in each.get("memory", {})
            ]
    return rows


@contextmanager
def namespace(name: str, labels: Mapping[str, str]) -> Iterator[Namespace]:
    """Create a namespace, and delete it with its content afterwards."""
    made = Namespace(name)
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels)}}
    kubectl("create", "--filename", "-", given=json.dumps(manifest))
    try:
        yield made
    finally:
        kubectl("delete", "namespace", name, "--wait", "--timeout", "180s", timeout=200)


@contextmanager
def release(kind: str, folder: Path, values: Mapping[str, Any] | None = None) -> Iterator[Release]:
    """Yield a release in a new namespace that accepts only restricted pods, and remove both afterwards."""
    require_cluster()
    load_images()
    name = f"{kind}-{uuid.uuid4().hex[:6]}"
    folder.mkdir(parents=True, exist_ok=True)
    with namespace(name, RESTRICTED):
        try:
            yield Release(name, folder, values or {})
        finally:
            # The chart also has objects outside the namespace. The deletion of the namespace leaves them, so Helm
            # removes them.
            command("helm", "uninstall", RELEASE, "--namespace", name, "--ignore-not-found", check=False)
