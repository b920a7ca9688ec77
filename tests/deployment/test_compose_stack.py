"""The Compose installation from `up` to a served forecast, with more replicas, and after `down` and `up`."""

from __future__ import annotations

import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docker import ROOT, Installation, build_images, docker, inspect, installation, require_docker
from tests.eventually import eventually
from tests.reports import report
from tests.swinging import write_swinging

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
SWAP_SECONDS = 10


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    require_docker()
    build_images()
    with installation(f"flts-test-{uuid.uuid4().hex[:6]}", tmp_path_factory.mktemp("compose")) as made:
        yield made


def champion(stack: Installation, identifier: str = "sample") -> dict[str, Any] | None:
    with stack.client("inference-balancer", 8080) as client:
        models = client.get("/models").raise_for_status().json()["models"]
    return next((each for each in models if each["identifier"] == identifier), None)


def forecast(stack: Installation, identifier: str = "sample") -> dict[str, Any]:
    with stack.client("fastapi-app", 8000) as gateway, stack.client("inference-balancer", 8080) as inference:
        tail = gateway.get(f"/datasets/{identifier}/tail?rows=50").raise_for_status().json()
        answer: dict[str, Any] = inference.post("/predict", json=tail).raise_for_status().json()
    return answer


def test_up_alone_ends_in_a_served_forecast(stack: Installation) -> None:
    began = time.monotonic()
    stack.compose("up", "--detach", "--wait", "--no-build", timeout=600)
    healthy = time.monotonic() - began

    served = eventually(lambda: champion(stack), "the sample's champion is served", timeout=600, every=1)
    took = time.monotonic() - began
    answer = forecast(stack)
    report("compose-up", [{"healthy_seconds": healthy, "served_seconds": took}])

    assert answer["status"] == "SUCCESS"
    assert answer["run_id"] == served["run_id"]
    assert answer["predictions"][0]["load_lower"] < answer["predictions"][0]["load_upper"]
    jobs = [each for each in stack.containers().values() if each["Service"] == "preprocess-job"]
    assert [job["ExitCode"] for job in jobs] == [0]


def test_every_published_port_is_on_this_machine_only(stack: Installation) -> None:
    for name, container in stack.containers().items():
        for port in container["Publishers"] or ():
            if port["PublishedPort"]:
                assert port["URL"] == "127.0.0.1", (name, port)


def test_no_container_ran_out_of_memory(stack: Installation) -> None:
    for name in stack.containers():
        assert not inspect(name)["State"]["OOMKilled"], name


def test_all_of_three_replicas_have_a_new_champion_within_seconds(stack: Installation, tmp_path: Path) -> None:
    scale = ("up", "--detach", "--wait", "--no-build", "--no-deps", "--scale", "inference=3", "inference")
    stack.compose(*scale, timeout=300)
    replicas = [name for name, each in stack.containers().items() if each["Service"] == "inference"]
    assert len(replicas) == 3
    train, test = write_swinging(tmp_path, train_rows=2_000, test_rows=500)
    with stack.client("fastapi-app", 8000) as gateway:
        files = {"train": train.read_bytes(), "test": test.read_bytes()}
        upload = gateway.post("/datasets/second", files=files).raise_for_status().json()

        def decided() -> bool:
            return bool(gateway.get(f"/runs/{upload['pipeline_run_id']}").raise_for_status().json().get("outcome"))

        eventually(decided, "the second data set's run is decided", timeout=600, every=0.2)
    began = time.monotonic()
    script = (
        "import json, urllib.request as r; "
        "print([m['identifier'] for m in json.load(r.urlopen('http://127.0.0.1:8000/models', timeout=5))['models']])"
    )
    seconds: dict[str, float] = {}

    def all_have_it() -> bool:
        for name in set(replicas) - set(seconds):
            if "second" in docker("exec", name, "python", "-c", script):
                seconds[name] = round(time.monotonic() - began, 2)
        return len(seconds) == len(replicas)

    eventually(all_have_it, "every replica has the new champion", timeout=SWAP_SECONDS)
    report("compose-replicas", [{"replica": name, "seconds_after_decision": each} for name, each in seconds.items()])

    with stack.client("inference-balancer", 8080) as inference:
        answered = {inference.get("/models").headers["x-served-by"] for _ in range(12)}
    assert len(answered) == 3


def test_down_and_up_keeps_the_champion(stack: Installation) -> None:
    before = champion(stack)
    assert before is not None
    stack.compose("down", timeout=240)
    assert not stack.containers()
    stack.compose("up", "--detach", "--wait", "--no-build", timeout=600)

    assert champion(stack) == before
    assert forecast(stack)["run_id"] == before["run_id"]


def test_without_secrets_it_stops_with_the_command_that_makes_them(tmp_path: Path) -> None:
    require_docker()
    empty = tmp_path / "empty"
    empty.touch()
    answer = subprocess.run(
        ["docker", "compose", "--env-file", str(empty), "up"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(Path.home())},
    )
    assert answer.returncode != 0
    assert "make env" in answer.stderr


def test_the_file_is_valid(tmp_path: Path) -> None:
    require_docker()
    made = Installation("flts-test-config", tmp_path, {})
    assert made.compose("--profile", "*", "config", "--quiet") == ""
