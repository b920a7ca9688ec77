"""Each image builds, starts with a read-only root and no capabilities, imports its packages, is healthy, and stops."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.docker import ROOT, docker, inspect, installation, require_docker
from tests.eventually import eventually
from tests.reports import report
from tools.images import IMAGES, Image, build_command, environment, size_bytes

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]
SERVING_BYTES = 200e6
"""Beyond Python's own image, which is another one on machines without a registry: at most 360 MB on one of 160 MB."""
GRACE_SECONDS = 35  # seconds; the stop_grace_period of the Compose file
IDENTITY = {"train": {"MODEL_TYPE": "GRU"}, "gateway": {"GATEWAY_API_KEY": "a-key-of-this-test-only"}}
NEEDS = {
    "gateway": ("fastapi", "pyarrow", "boto3", "confluent_kafka"),
    "preprocess": ("pandas", "pyarrow", "boto3"),
    "train": ("torch", "onnx", "onnxruntime", "mlflow", "matplotlib"),
    "nonml": ("prophet", "onnx", "onnxruntime", "mlflow", "pandas"),
    "eval": ("onnx", "onnxruntime", "mlflow", "pyarrow"),
    "inference": ("onnxruntime", "boto3", "fastapi", "msgspec", "inference_container.fetch"),
    "inference-worker": ("onnxruntime", "boto3", "pyarrow", "inference_container.worker"),
    "mlflow": ("mlflow", "psycopg2", "boto3"),
}
# Packages that an image must not contain: only trainers need torch and Prophet, and serving images must stay small.
ABSENT = {
    "gateway": ("torch", "prophet", "onnxruntime", "mlflow"),
    "preprocess": ("torch", "prophet", "onnxruntime", "mlflow"),
    "train": ("prophet", "pandas"),
    "nonml": ("torch",),
    "eval": ("torch", "prophet", "pandas"),
    "inference": ("torch", "prophet", "mlflow", "pandas", "pyarrow"),
    "inference-worker": ("torch", "prophet", "mlflow", "pandas"),
    "mlflow": ("torch", "prophet", "flts"),
}
SERVICES = [image for image in IMAGES if image.name not in {"mlflow", "locust"}]


@dataclass
class Container:
    name: str

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", "exec", self.name, *command], capture_output=True, text=True, check=False, timeout=60
        )


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    """Build all images; Docker reuses cached layers of unchanged files."""
    require_docker()
    for image in IMAGES:
        answer = subprocess.run(
            build_command(image), cwd=ROOT, env=environment(), capture_output=True, text=True, check=False, timeout=1100
        )
        assert answer.returncode == 0, f"{image.reference}: {answer.stderr[-3000:]}"


@pytest.fixture(scope="module", params=SERVICES, ids=lambda image: image.name)
def running(request: pytest.FixtureRequest) -> Iterator[tuple[Image, Container]]:
    """Yield a container of a service without its broker; the service stays in its checks at start."""
    image: Image = request.param
    name = f"flts-test-{uuid.uuid4().hex[:8]}"
    variables = {
        **IDENTITY.get(image.name, {}),
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:1",
        "STORE": "filesystem",
        "STORE_PATH": "/tmp/store",
        "BACKEND_CHECK_SECONDS": "600",
    }
    docker(
        *("run", "--detach", "--name", name, "--read-only", "--tmpfs", "/tmp:mode=1777", "--cap-drop", "ALL"),
        *("--security-opt", "no-new-privileges", "--volume", "/var/cache/flts", "--network", "none"),
        *(part for key, value in variables.items() for part in ("--env", f"{key}={value}")),
        image.reference,
    )
    try:
        yield image, Container(name)
    finally:
        docker("rm", "--force", "--volumes", name, check=False)


def test_it_reports_its_health(running: tuple[Image, Container]) -> None:
    _, container = running

    def healthy() -> bool:
        probed = container.run("python", "-I", "-S", "/app/flts/observability/probe.py", "/healthz")
        assert inspect(container.name)["State"]["Running"], docker("logs", container.name)
        return probed.returncode == 0

    eventually(healthy, "an answer of /healthz", timeout=60)
    ready = container.run("python", "-I", "-S", "/app/flts/observability/probe.py")
    assert "waiting_for" in ready.stdout
    assert ready.returncode == 1


def test_it_is_nobody_in_particular_and_cannot_write(running: tuple[Image, Container]) -> None:
    _, container = running
    assert container.run("id", "-u").stdout.strip() == "10001"
    assert container.run("touch", "/app/file").returncode != 0
    assert container.run("touch", "/tmp/file", "/var/cache/flts/file").returncode == 0


def test_it_holds_what_it_uses_and_nothing_heavier(running: tuple[Image, Container]) -> None:
    image, container = running
    script = (
        "import importlib, importlib.util, sys\n"
        "for name in sys.argv[1].split(','): importlib.import_module(name)\n"
        "print([name for name in sys.argv[2].split(',') if importlib.util.find_spec(name)])"
    )
    answer = container.run("python", "-c", script, ",".join(NEEDS[image.name]), ",".join(ABSENT[image.name]))
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == "[]"
    tools = container.run("sh", "-c", "command -v pip pip3 gcc cc make; python -m pip --version 2>/dev/null; true")
    assert not tools.stdout


def test_it_says_its_version_and_stops_within_its_grace_time(running: tuple[Image, Container]) -> None:
    _, container = running
    began = time.monotonic()
    docker("stop", "--time", str(GRACE_SECONDS), container.name, timeout=60)
    took = time.monotonic() - began

    assert took < GRACE_SECONDS - 3
    assert inspect(container.name)["State"]["ExitCode"] == 0
    events = [json.loads(line) for line in docker("logs", container.name).splitlines() if line.startswith("{")]
    assert events[0]["event"] == "version_start"
    assert events[-1]["event"] == "service_stopped"


def test_the_serving_image_adds_little_to_its_base() -> None:
    [serving] = [image for image in IMAGES if image.name == "inference"]
    first = re.search(r"(?m)^FROM (\S+)", (ROOT / serving.dockerfile).read_text())
    assert first is not None

    added = size_bytes(serving.reference) - size_bytes(first[1])

    report("serving-image", [{"base": first[1], "base MB": size_bytes(first[1]) / 1e6, "added MB": added / 1e6}])
    assert 0 < added <= SERVING_BYTES


@pytest.mark.parametrize("image", SERVICES, ids=lambda image: image.name)
def test_without_settings_it_names_them_and_ends_with_2(image: Image) -> None:
    answer = subprocess.run(
        ["docker", "run", "--rm", "--read-only", image.reference],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert answer.returncode == 2
    assert "KAFKA_BOOTSTRAP_SERVERS: is required" in answer.stderr


def test_mlflow_answers_by_every_name_it_has(tmp_path: Path) -> None:
    with installation(f"flts-mlflow-{uuid.uuid4().hex[:6]}", tmp_path) as stack:
        stack.compose("up", "--detach", "--wait", "mlflow", timeout=240)
        host, port = stack.address("mlflow", 5000)
        assert host == "127.0.0.1"

        def status(name: str, origin: str | None = None) -> int:
            connection = http.client.HTTPConnection(host, port, timeout=15)
            headers = {"Host": name, "content-type": "application/json"} | ({"Origin": origin} if origin else {})
            path = "/ajax-api/2.0/mlflow/experiments/search"
            connection.request("POST", path, body='{"max_results": 5}', headers=headers)
            answer = connection.getresponse()
            answer.read()
            connection.close()
            return answer.status

        names = ["mlflow", "mlflow:5000", f"localhost:{port}", f"127.0.0.1:{port}", "localhost", "127.0.0.1"]
        names += ["host.docker.internal", f"host.docker.internal:{port}"]
        assert {name: status(name, f"http://{name}") for name in names} == dict.fromkeys(names, 200)
        assert status("somebody-elses.example") == 403
        assert status("localhost", "http://somebody-elses.example") == 403

        # MLflow refuses requests for unknown hosts. Inside the Compose network the host is the service's name, which
        # MLflow must accept.
        script = "import urllib.request as r; print(r.urlopen('http://mlflow:5000/ajax-api/2.0/mlflow/experiments/get?experiment_id=0').status)"
        assert stack.compose("exec", "-T", "mlflow", "python", "-c", script).strip() == "200"

        began = time.monotonic()
        stack.compose("stop", "mlflow")
        assert time.monotonic() - began < 25
        [container] = [each for each in stack.containers().values() if each["Service"] == "mlflow"]
        assert container["ExitCode"] == 0


def test_mlflow_says_which_backend_is_away_instead_of_waiting_for_ever() -> None:
    variables = {
        "POSTGRES_HOST": "127.0.0.1",
        "POSTGRES_PASSWORD": "a-password-of-this-test",
        "MLFLOW_S3_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "a-key-of-this-test",
        "MLFLOW_CHECK_SECONDS": "2",
    }
    [image] = [each for each in IMAGES if each.name == "mlflow"]

    def start(**others: str) -> tuple[int, str]:
        given = (part for key, value in {**variables, **others}.items() for part in ("--env", f"{key}={value}"))
        answer = subprocess.run(
            ["docker", "run", "--rm", "--read-only", "--tmpfs", "/tmp", "--network", "none", *given, image.reference],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return answer.returncode, answer.stderr

    code, said = start()
    assert code == 1
    assert "mlflow: postgres did not answer within 2 s" in said
    code, said = start(POSTGRES_PASSWORD="postgres", AWS_SECRET_ACCESS_KEY="")
    assert code == 2
    assert "POSTGRES_PASSWORD: is a well-known default password" in said
    assert "AWS_SECRET_ACCESS_KEY: is required" in said


def test_mlflow_names_the_remedy_for_a_database_that_was_made_with_another_password(tmp_path: Path) -> None:
    with installation(f"flts-mlflow-{uuid.uuid4().hex[:6]}", tmp_path) as stack:
        stack.compose("up", "--detach", "--wait", "postgres", "minio", timeout=240)
        old = stack.secret("POSTGRES_PASSWORD")
        stack.env_file.write_text(stack.env_file.read_text().replace(old, "x" + old))
        stack.compose("up", "--detach", "--no-deps", "mlflow", timeout=120)

        def said() -> bool:
            return "put that one into .env as POSTGRES_PASSWORD" in stack.compose("logs", "mlflow")

        eventually(said, "the remedy in MLflow's log", timeout=120, every=1)
        assert old not in stack.compose("logs", "mlflow")
