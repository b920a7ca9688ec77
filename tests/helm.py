"""Render the chart with the installed Helm, and read the result."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.trainers import OFF
from tools.trainers import values_key

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / ".helm"
LAYERINGS = {
    "values": (),
    "complete": ("values-complete.yaml",),
    "dev": ("values-dev.yaml",),
    "complete-dev": ("values-complete.yaml", "values-dev.yaml"),
}
KUBERNETES = "1.34.0"
"""Version of Kubernetes to render for; a Helm that was built without a default version assumes the oldest one."""
SECRETS = {
    "AWS_ACCESS_KEY_ID": "user-of-the-test",
    "AWS_SECRET_ACCESS_KEY": "store-key-of-the-test",
    "POSTGRES_PASSWORD": "database-key-of-the-test",
    "GATEWAY_API_KEY": "gateway-key-of-the-test",
    "GRAFANA_ADMIN_PASSWORD": "grafana-key-of-the-test",
}
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SPECS = {
    name: spec
    for name, spec in yaml.safe_load((CHART / "config" / "workloads.yaml").read_text()).items()
    if spec.get("trains") not in {trainer.model_type for trainer in OFF}
}
"""Workloads without the trainers that are off by default."""
EVERY_TRAINER = {f"services__{values_key(trainer)}__enabled": "true" for trainer in OFF}
COMPLETE = LAYERINGS["complete"]
WORKLOADS = ("Deployment", "StatefulSet", "Job")

Document = dict[str, Any]


def helms() -> list[str]:
    """Return every Helm binary: those that FLTS_TEST_HELM names, else `helm` and `helm3` of the PATH."""
    named = os.environ.get("FLTS_TEST_HELM", "")
    if named:
        return named.split(os.pathsep)
    return [name for name in ("helm", "helm3") if shutil.which(name)]


def require_helm() -> str:
    """Return the first Helm binary; skip the test with the reason if there is none."""
    found = helms()
    if not found:
        pytest.skip("no `helm` on the PATH, and FLTS_TEST_HELM names none: the chart is not rendered")
    return found[0]


def helm(binary: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Helm without a cluster."""
    environment = {**os.environ, "KUBECONFIG": os.devnull}
    return subprocess.run(
        [binary, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def template(
    binary: str, files: tuple[str, ...] = (), sets: Mapping[str, str] | None = None, chart: Path = CHART
) -> subprocess.CompletedProcess[str]:
    """Render the chart as release `flts`, with secrets that are always the same."""
    # If `name` is an absolute path, CHART / name is `name`.
    values = [part for name in files for part in ("--values", str(CHART / name))]
    given = {**{f"secrets.{name}": value for name, value in SECRETS.items()}, **(sets or {})}
    options = [part for name, value in given.items() for part in ("--set", f"{name}={value}")]
    return helm(binary, "template", "flts", str(chart), "--kube-version", KUBERNETES, *values, *options)


def render(*files: str, **sets: str) -> list[Document]:
    """Return the documents of the chart; in ``sets`` two underscores replace the dot in a values key."""
    return list(_rendered(require_helm(), files, tuple(sorted(sets.items()))))


@functools.cache
def _rendered(binary: str, files: tuple[str, ...], sets: tuple[tuple[str, str], ...]) -> tuple[Document, ...]:
    answer = template(binary, files, {name.replace("__", "."): value for name, value in sets})
    assert answer.returncode == 0, answer.stderr
    return tuple(documents(answer.stdout))


def documents(text: str) -> Iterator[Document]:
    """Parse what `helm template` printed."""
    yield from (document for document in yaml.load_all(text, Loader=yaml.CSafeLoader) if document)


def of_kind(rendered: list[Document], *kinds: str) -> dict[str, Document]:
    """Return the documents of some kinds, by name."""
    return {document["metadata"]["name"]: document for document in rendered if document["kind"] in kinds}


def pods(rendered: list[Document]) -> dict[str, Document]:
    """Return every pod template by its component, including Jobs and the pod of `helm test`."""
    found = {}
    for document in of_kind(rendered, *WORKLOADS).values():
        template = document["spec"]["template"]
        found[template["metadata"]["labels"]["app.kubernetes.io/component"]] = template
    for document in of_kind(rendered, "Pod").values():
        found[document["metadata"]["labels"]["app.kubernetes.io/component"]] = document
    return found


def container(pod: Document) -> Document:
    """Return a pod's only container."""
    [found] = pod["spec"]["containers"]
    return dict(found)


def environment(pod: Document) -> dict[str, str | None]:
    """Return a container's variables; those that come from a Secret are None."""
    return {each["name"]: each.get("value") for each in container(pod).get("env", [])}


def job_name(*files: str, **sets: str) -> str:
    """Return the name of the Job that starts the first run."""
    [name] = of_kind(render(*files, **sets), "Job")
    return name
