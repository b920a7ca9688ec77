"""The chart from installation to a served forecast, upgraded and rolled back during a run, and installed again."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.backends_away import Asker
from tests.cluster import (
    RELEASE,
    UNINSTALL_SECONDS,
    Release,
    component,
    memory_of,
    quantity,
    release,
)
from tests.eventually import eventually
from tests.helm import CHART, COMPLETE, SPECS, container
from tests.helm_pipeline import HelmPipeline
from tests.reports import report
from tests.swinging import write_swinging

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

SERVED_SECONDS = 600
DECIDED_SECONDS = 600
REQUESTED_BYTES, REQUESTED_CPUS = 4e9, 1.5
"""Largest sum of all requests in bytes and CPUs, with Locust and `REPLICAS` replicas of inference."""
REPLICAS = 4
MEMORY_SECONDS = 2.0
SERVED_DATA = "sample"
TRIAL = "trial"
CHANGED = {"MLFLOW_TIMEOUT_SECONDS": 4, "MAX_REQUEST_ROWS": 19_999}
"""Settings that only some workloads read; inference reads MAX_REQUEST_ROWS."""
READERS: dict[str, list[str]] = json.loads((CHART / "config" / "readers.json").read_text())


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    with release("flts-test", tmp_path_factory.mktemp("helm")) as made:
        yield made


class Peaks:
    """Samples the memory of all pods, and keeps the highest value of each workload and the highest sum."""

    def __init__(self, made: Release) -> None:
        self._made = made
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.rows: dict[str, dict[str, Any]] = {}
        self.total = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(MEMORY_SECONDS):
            now = memory_of(self._made)
            self.total = max(self.total, sum(row["bytes"] for row in now))
            for row in now:
                before = self.rows.get(row["program"])
                if before is None or before["bytes"] < row["bytes"]:
                    self.rows[row["program"]] = row


def test_an_installation_alone_ends_in_a_served_forecast(installed: Release) -> None:
    began = time.monotonic()
    with Peaks(installed) as peaks:
        installed.install(*COMPLETE)
        ready = time.monotonic() - began
        stack = HelmPipeline(installed)
        served = eventually(
            lambda: stack.champion(SERVED_DATA), "its champion is served", timeout=SERVED_SECONDS, every=1
        )
        answer = stack.predict(stack.question(SERVED_DATA)).raise_for_status().json()
        took = time.monotonic() - began

    megabyte = 2**20
    report("helm-install", [{"ready s": ready, "served s": took, "all pods at once, most MiB": peaks.total / megabyte}])
    report(
        "helm-memory",
        [
            {"program": name, "request MiB": row["request"] / megabyte, "most MiB": row["bytes"] / megabyte}
            | {"limit MiB": row["limit"] / megabyte}
            for name, row in sorted(peaks.rows.items())
        ],
    )
    assert answer["status"] == "SUCCESS"
    assert answer["run_id"] == served["run_id"]
    assert answer["predictions"][0]["load_lower"] < answer["predictions"][0]["load_upper"]
    assert set(SPECS) <= set(peaks.rows)
    assert all(row["bytes"] < row["limit"] for row in peaks.rows.values())


def test_the_namespace_takes_restricted_pods_only_and_has_all_of_ours(installed: Release) -> None:
    kept_out = {"metadata": {"name": "kept-out"}, "apiVersion": "v1", "kind": "Pod"}
    kept_out["spec"] = {"containers": [{"name": "root", "image": "flts/gateway:0.1.0"}]}

    with pytest.raises(AssertionError, match="violates PodSecurity"):
        installed.kubectl("create", "--dry-run=server", "--filename", "-", given=json.dumps(kept_out))

    assert set(SPECS) <= {component(pod) for pod in installed.pods()}
    violations = [event["message"] for event in installed.events("FailedCreate") if "PodSecurity" in event["message"]]
    assert violations == []


def test_all_pods_together_ask_for_what_a_laptop_has(installed: Release) -> None:
    asked: dict[str, list[tuple[float, float]]] = {}
    for pod in installed.pods():
        wanted = container(pod)["resources"]["requests"]
        asked.setdefault(component(pod), []).append((quantity(wanted["cpu"]), quantity(wanted["memory"])))
    asked.pop("preprocess-job", None)  # the Job has ended and requests nothing
    asked["inference"] = asked["inference"][:1] * REPLICAS

    cpus = sum(cpu for each in asked.values() for cpu, _ in each)
    memory = sum(size for each in asked.values() for _, size in each)

    report("helm-requests", [{"pods": sum(map(len, asked.values())), "CPUs": cpus, "MiB": memory / 2**20}])
    assert "locust-worker" in asked
    assert cpus <= REQUESTED_CPUS
    assert memory <= REQUESTED_BYTES


def test_its_own_trial_passes(installed: Release) -> None:
    said = installed.helm("test", RELEASE, "--timeout", "10m", "--logs", timeout=630)

    assert "Succeeded" in said
    assert "promoted" in said or "kept" in said, said


def test_no_container_ran_out_of_memory(installed: Release) -> None:
    for pod in installed.pods():
        for status in pod["status"]["containerStatuses"]:
            for when in ("state", "lastState"):
                ended = status.get(when, {}).get("terminated", {})
                assert ended.get("reason") != "OOMKilled", component(pod)


def test_an_upgrade_and_a_rollback_in_mid_run_lose_nothing_and_roll_the_readers_only(
    installed: Release, tmp_path: Path
) -> None:
    stack = HelmPipeline(installed)
    body = stack.question(SERVED_DATA)
    rows = []
    for step, identifier in (("upgrade", "upgraded"), ("rollback", "rolled-back")):
        before = uids(installed)
        with Asker(stack.state["inference_url"], body) as asked:
            run_id = stack.start_training(identifier, *write_swinging(tmp_path))
            if step == "upgrade":
                installed.upgrade(*COMPLETE, config=CHANGED)
            else:
                installed.rollback(1)
            eventually(lambda was=before: settled(installed, was), "replaced pods are gone", timeout=120, every=1)
            run = stack.wait_decided(run_id, timeout=DECIDED_SECONDS)
        rolled = {name for name, each in uids(installed).items() if each != before[name]}
        told = {"step": step, "rolled": len(rolled), "outcome": run["outcome"], "asked": asked.asked}
        rows.append({**told, "failed": len(asked.failures), "slowest s": asked.slowest_seconds})

        assert rolled == {name for name in SPECS if set(READERS.get(name, ())) & set(CHANGED)}
        assert asked.failures == []
        stack.assert_undisturbed(identifier, run_id)
    report("helm-upgrade", rows)


def test_what_is_gone_in_a_minute_tells_its_volumes_and_comes_back_with_its_champions(installed: Release) -> None:
    stack = HelmPipeline(installed)
    before = stack.champion(SERVED_DATA)
    assert before is not None
    claims = {each["metadata"]["name"] for each in installed.get("pvc")}

    began = time.monotonic()
    said = installed.uninstall()
    took = time.monotonic() - began

    eventually(lambda: not left(installed), "the pods are gone", timeout=UNINSTALL_SECONDS)
    assert {each["metadata"]["name"] for each in installed.get("pvc")} == claims
    assert all(name in said for name in claims), said
    assert took <= UNINSTALL_SECONDS
    installed.install(*COMPLETE)
    back = eventually(lambda: stack.champion(SERVED_DATA), "its champion is back", timeout=60, every=0.5)
    report("helm-uninstall", [{"uninstalled s": took, "volumes that stay": len(claims)}])
    assert back["run_id"] == before["run_id"]
    assert stack.predict(stack.question(SERVED_DATA)).raise_for_status().json()["run_id"] == before["run_id"]
    assert installed.secret("GATEWAY_API_KEY") == stack.api_key


def left(made: Release) -> list[str]:
    """Return the components that have pods, without the pod of `helm test`, which Helm keeps for its log."""
    return [name for pod in made.get("pods") if (name := component(pod)) != TRIAL]


def uids(made: Release) -> dict[str, set[str]]:
    """Return the uids of the running pods of each workload, without the Job and the pod of `helm test`."""
    found: dict[str, set[str]] = {name: set() for name in SPECS}
    for pod in made.pods():
        if component(pod) in found and pod["status"]["phase"] == "Running":
            found[component(pod)].add(pod["metadata"]["uid"])
    return found


def settled(made: Release, before: dict[str, set[str]]) -> bool:
    """Return whether each workload has only old pods or only new pods."""
    return all(each and (each == before[name] or not each & before[name]) for name, each in uids(made).items())
