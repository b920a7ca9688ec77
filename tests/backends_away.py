"""A pipeline whose backends can be made unavailable, a client that requests forecasts, and counts of the results."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
from confluent_kafka import Consumer, TopicPartition

from embedded.ports import free_port
from flts.contracts.topics import dead_letter_topic
from flts.settings import StoreSettings
from flts.storage.connect import open_store
from flts.storage.ports import ObjectStore
from flts.storage.run_store import RunStore
from tests.eventually import eventually
from tests.faulty_proxy import FaultyProxy
from tests.pipeline import Pipeline
from tests.stack import RunningStack, running_stack
from tests.stores import s3_settings, why_no_s3
from tests.tiny_s3 import running_s3
from tests.trainers import INSTALLED, of_models

GROUPS = ("preprocess", *INSTALLED, "eval", "inference-worker")
ASK_SECONDS = 0.2
ANSWER_SECONDS = 10.0


@dataclass
class FragileStack:
    """A pipeline that reaches each backend through a proxy of the test."""

    stack: RunningStack
    proxies: Mapping[str, FaultyProxy]
    store: ObjectStore
    run_store: RunStore
    prefix: str = ""

    @contextmanager
    def frozen(self, program: str) -> Iterator[None]:
        """Suspend a backend's processes: the kernel accepts connections, and the backend does not answer."""
        with frozen(self.stack, program):
            yield

    def decisions(self, identifier: str, run_id: str) -> int:
        keys = [info.key for info in self.store.list("pipeline-runs", f"{identifier}/{run_id}/")]
        return sum(key.rpartition("/")[2] == "decision.json" for key in keys)

    def spooled(self) -> list[str]:
        return [info.key for info in self.store.list("pipeline-runs", "_spool/")]

    def dead_letters(self) -> dict[str, int]:
        return dead_letters(self.stack, self.prefix)


@contextmanager
def fragile_stack(home: Path, **environment: str) -> Iterator[FragileStack]:
    """Start a pipeline behind proxies, on the S3 server that the environment names, else on the tests' own."""
    with ExitStack() as closing:
        ports = {"kafka": free_port(), "mlflow": free_port()}
        proxies = {name: closing.enter_context(FaultyProxy(port)) for name, port in ports.items()}
        variables = {
            "KAFKA_PORT": str(ports["kafka"]),
            "KAFKA_ADVERTISED": proxies["kafka"].address,
            "MLFLOW_PORT": str(ports["mlflow"]),
            "MLFLOW_ADVERTISED": proxies["mlflow"].address,
        }
        home.mkdir(parents=True)
        settings = s3_settings() if why_no_s3() is None else closing.enter_context(running_s3(home))
        prefix = f"away-{uuid.uuid4().hex[:8]}-"
        proxies["store"] = closing.enter_context(FaultyProxy(port_of(settings)))
        variables |= store_variables(settings, proxies["store"], prefix)
        stack = closing.enter_context(running_stack(home, **variables, **environment))
        store = open_store(settings, prefix)
        yield FragileStack(stack, proxies, store, RunStore(store, settings), prefix)


@contextmanager
def frozen(stack: RunningStack, program: str) -> Iterator[None]:
    """Suspend a program and its child processes until the end of the block."""
    stack.freeze(program)
    try:
        yield
    finally:
        stack.thaw(program)


def dead_letters(stack: RunningStack, prefix: str = "") -> dict[str, int]:
    """Return the number of dead letters of each group."""
    consumer = Consumer({"bootstrap.servers": stack.state["kafka"], "group.id": "counting"})
    try:
        counts = {}
        for group in GROUPS:
            topic = f"{prefix}{dead_letter_topic(group)}"
            parts = consumer.list_topics(topic, timeout=10).topics[topic].partitions
            ends = [consumer.get_watermark_offsets(TopicPartition(topic, part), timeout=10) for part in parts]
            counts[group] = sum(high - low for low, high in ends)
        return counts
    finally:
        consumer.close()


def mlflow_runs(stack: Pipeline, identifier: str) -> list[dict[str, Any]]:
    """Return MLflow's runs of an identifier, each with its tags as a dictionary."""
    with httpx.Client(base_url=f"{stack.state['mlflow_url']}/api/2.0/mlflow", timeout=20) as client:
        found = client.get("/experiments/get-by-name", params={"experiment_name": identifier})
        if found.status_code == httpx.codes.NOT_FOUND:
            return []
        experiment = found.raise_for_status().json()["experiment"]["experiment_id"]
        answer = client.post("/runs/search", json={"experiment_ids": [experiment], "max_results": 100})
        runs = answer.raise_for_status().json().get("runs", [])
    return [{**run, "tags": {tag["key"]: tag["value"] for tag in run["data"]["tags"]}} for run in runs]


def mlflow_versions(stack: Pipeline, identifier: str) -> list[dict[str, Any]]:
    with httpx.Client(base_url=f"{stack.state['mlflow_url']}/api/2.0/mlflow", timeout=20) as client:
        answer = client.get("/model-versions/search", params={"filter": f"name='{identifier}'"})
        return list(answer.raise_for_status().json().get("model_versions", []))


def assert_recorded_once(stack: Pipeline, identifier: str, run: Mapping[str, Any]) -> None:
    """Assert that each trained model has one finished MLflow run and one version; the champion's has the alias."""
    wanted = sorted(trained["run_id"] for trained in of_models(run["trained"]).values())
    runs = mlflow_runs(stack, identifier)
    assert sorted(one["tags"].get("run_id") for one in runs) == wanted
    assert {one["info"]["status"] for one in runs} == {"FINISHED"}
    versions = [{tag["key"]: tag["value"] for tag in one["tags"]} for one in mlflow_versions(stack, identifier)]
    assert sorted(tags["run_id"] for tags in versions) == wanted
    with httpx.Client(base_url=f"{stack.state['mlflow_url']}/api/2.0/mlflow", timeout=20) as client:
        alias = client.get("/registered-models/alias", params={"name": identifier, "alias": "champion"})
    assert alias.status_code == httpx.codes.OK, alias.text
    champion = {tag["key"]: tag["value"] for tag in alias.json()["model_version"]["tags"]}
    assert champion["run_id"] == run["decision"]["run_id"]


def training_seconds(run: Mapping[str, Any]) -> dict[str, float]:
    """Return the seconds of each trainer's stage."""
    stages = {stage["stage"]: stage for stage in run["stages"] if stage["stage"] in INSTALLED}
    return {
        name: (datetime.fromisoformat(stage["end"]) - datetime.fromisoformat(stage["start"])).total_seconds()
        for name, stage in stages.items()
    }


def wait_until_training(stack: RunningStack, run_id: str) -> None:
    """Return when the GRU trainer has finished an epoch of the run."""
    eventually(
        lambda: [one for one in stack.log_events("train-gru", "epoch_done") if one.get("pipeline_run_id") == run_id],
        f"{run_id} is in the middle of its training",
        timeout=120,
    )


@dataclass
class Asker:
    """A client that requests a forecast every ``every_seconds`` and counts the answers."""

    url: str
    body: Mapping[str, Any]
    path: str = "/predict"
    every_seconds: float = ASK_SECONDS
    keep_alive: bool = True
    """Whether requests share a connection; without it each request may reach another replica."""
    asked: int = 0
    failures: list[str] = field(default_factory=list)
    failed_at: list[float] = field(default_factory=list)
    """Start of each failed request, in seconds of the monotonic clock."""
    slowest_seconds: float = 0.0

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(ANSWER_SECONDS + 5)

    def _run(self) -> None:
        limits = httpx.Limits(max_keepalive_connections=None if self.keep_alive else 0)
        with httpx.Client(base_url=self.url, timeout=ANSWER_SECONDS, limits=limits) as client:
            while not self._stop.is_set():
                began = time.monotonic()
                self.asked += 1
                try:
                    answer = client.post(self.path, json=dict(self.body))
                    if answer.status_code != httpx.codes.OK or not answer.json()["predictions"]:
                        self.failures.append(f"{answer.status_code} {answer.text[:200]}")
                except httpx.HTTPError as error:
                    self.failures.append(f"{type(error).__name__}: {error}")
                self.failed_at += [began] * (len(self.failures) - len(self.failed_at))
                took = time.monotonic() - began
                self.slowest_seconds = max(self.slowest_seconds, took)
                self._stop.wait(max(0.0, self.every_seconds - took))


def port_of(settings: StoreSettings) -> int:
    address = urlsplit(settings.mlflow_s3_endpoint_url or "")
    assert address.port is not None
    assert address.hostname in {"127.0.0.1", "localhost"}, "the proxy relays on this machine only"
    return address.port


def store_variables(settings: StoreSettings, proxy: FaultyProxy, prefix: str = "") -> dict[str, str]:
    secret = settings.aws_secret_access_key
    assert secret is not None
    return {
        "STORE": "s3",
        "MLFLOW_S3_ENDPOINT_URL": proxy.url,
        "AWS_ACCESS_KEY_ID": settings.aws_access_key_id or "",
        "AWS_SECRET_ACCESS_KEY": secret.get_secret_value(),
        "ALLOW_DEFAULT_CREDENTIALS": "1",
        "NAMESPACE_PREFIX": prefix,
    }
