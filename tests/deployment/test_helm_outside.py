"""The chart's services with backends outside of the cluster: the backends of a running Compose installation."""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from embedded.ports import free_port
from tests.cluster import component, kubectl, release, require_cluster
from tests.compose_pipeline import UP_SECONDS
from tests.docker import PORTS, ROOT, Installation, installation, require_docker
from tests.eventually import eventually
from tests.helm_pipeline import HelmPipeline, light
from tests.reports import report
from tests.swinging import write_swinging
from tests.trainers import INSTALLED

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500)]

BACKENDS = ("kafka", "minio", "postgres", "mlflow", "fastapi-app")
IN_THE_CLUSTER = {
    *("preprocess", "preprocess-job", *INSTALLED, "eval", "inference", "inference-worker"),
}
CHECK_SECONDS = 30
"""Default of BACKEND_CHECK_SECONDS; TOLD_SECONDS adds the time in which the cluster starts a container."""
TOLD_SECONDS = CHECK_SECONDS + 90
WATCHED = "eval"


@pytest.fixture(scope="module")
def machine() -> str:
    """Return the address at which pods reach this machine: FLTS_TEST_MACHINE, or else the node's internal address."""
    require_cluster()
    named = os.environ.get("FLTS_TEST_MACHINE", "")
    [node, *_] = json.loads(kubectl("get", "nodes", "--output", "json"))["items"]
    addresses = {each["type"]: each["address"] for each in node["status"]["addresses"]}
    return named or str(addresses["InternalIP"])


@pytest.fixture(scope="module")
def compose(machine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Yield Compose's backends and gateway, published at an address that the cluster reaches."""
    require_docker()
    folder = tmp_path_factory.mktemp("outside")
    override = folder / "names.json"
    allowed = {"MLFLOW_SERVER_ALLOWED_HOSTS": f"mlflow,mlflow:*,localhost:*,127.0.0.1:*,{machine}:*"}
    override.write_text(json.dumps({"services": {"mlflow": {"environment": allowed}}}))
    variables = {
        "COMPOSE_FILE": os.pathsep.join([str(ROOT / "docker-compose.yaml"), str(override)]),
        "PUBLISHED_ADDRESS": machine,
        "KAFKA_ADVERTISED_HOST": machine,
        **{name: str(free_port()) for name in PORTS},
    }
    with installation(f"flts-outside-{uuid.uuid4().hex[:6]}", folder, variables) as made:
        made.compose("up", "--detach", "--wait", *BACKENDS, timeout=UP_SECONDS)
        yield made


def values(compose: Installation, machine: str, **instead: str) -> dict[str, Any]:
    """Return the chart's values for these backends; `instead` replaces some of their addresses."""
    at = {name: f"{machine}:{compose.variables[f'{name}_PORT']}" for name in ("KAFKA", "MLFLOW", "MINIO", "GATEWAY")}
    at |= instead
    secrets = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "GATEWAY_API_KEY")
    return {
        **light(),
        "secrets": {name: compose.secret(name) for name in secrets},
        "externalBackend": {
            "enabled": True,
            "kafka": {"bootstrapServers": at["KAFKA"]},
            "mlflow": {"trackingUri": f"http://{at['MLFLOW']}"},
            "minio": {"endpoint": f"http://{at['MINIO']}"},
            "fastapi": {"gatewayUrl": f"http://{at['GATEWAY']}"},
        },
    }


def test_pods_do_the_work_of_a_gateway_and_a_broker_outside(
    compose: Installation, machine: str, tmp_path: Path
) -> None:
    train, test = write_swinging(tmp_path, train_rows=2_000, test_rows=500)
    with release("flts-test", tmp_path / "helm", values(compose, machine)) as made:
        began = time.monotonic()
        made.install()
        ready = time.monotonic() - began
        assert {component(pod) for pod in made.pods()} == IN_THE_CLUSTER
        assert made.get("persistentvolumeclaims") == []

        stack = HelmPipeline(made)
        stack.state["gateway_url"] = made.values["externalBackend"]["fastapi"]["gatewayUrl"]
        run = stack.wait_decided(stack.upload("outside", train, test), timeout=300)
        assert run["outcome"] == "promoted"
        served = eventually(lambda: stack.champion("outside"), "its champion is served", timeout=30)
        question = stack.question("outside")

        def forecast() -> dict[str, Any] | None:
            # The request may reach a replica that has not fetched the champion yet. Then `eventually` repeats the
            # request.
            given = stack.predict(question)
            return dict(given.json()) if given.is_success else None

        answer = eventually(forecast, "a forecast", timeout=15)
        report("helm-outside", [{"ready s": ready, "run s": run["elapsed_seconds"]}])

    assert answer["run_id"] == served["run_id"]
    assert not {"train-gru", "eval", "preprocess"} & {each["Service"] for each in compose.containers().values()}


@pytest.mark.parametrize(("backend", "name"), [("KAFKA", "kafka"), ("MINIO", "store")])
def test_a_pod_names_the_backend_that_takes_its_connection_and_never_answers(
    compose: Installation, machine: str, tmp_path: Path, backend: str, name: str
) -> None:
    with closing(socket.create_server((machine, 0))) as silent:
        address = f"{machine}:{silent.getsockname()[1]}"
        with release("flts-test", tmp_path, values(compose, machine, **{backend: address})) as made:
            began = time.monotonic()
            made.start()

            def message() -> str:
                for pod in made.pods(WATCHED):
                    for status in pod["status"].get("containerStatuses", []):
                        ended = status["lastState"].get("terminated") or status["state"].get("terminated")
                        if ended:
                            return str(ended["message"])
                return ""

            told = eventually(message, f"a {WATCHED} that ended says why", timeout=TOLD_SECONDS, every=1)
            took = time.monotonic() - began

    last = json.loads(told.splitlines()[-1])
    report(f"helm-silent-{name}", [{"backend": name, "told after s": took}])
    assert last["event"] == "service_stopped"
    assert name in last["reason"]
    assert address in last["reason"]
    assert "did not succeed within" in last["reason"]
