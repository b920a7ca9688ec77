"""A real Prometheus over a pipeline that has worked, and has had trouble: every panel and every alert has data."""

from __future__ import annotations

import functools
import json
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Producer

from flts.messaging.codec import ONLY_GROUP
from flts.storage.filesystem import FilesystemStore
from tests.eventually import eventually
from tests.prometheus import Prometheus, Query, alerts, metric_names, program, queries, running_prometheus
from tests.reports import report
from tests.stack import SMALL, RunningStack, running_stack

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

STUCK_SECONDS = 15
ENVIRONMENT = {
    **SMALL,
    "FAILURE_MAX_RETRIES": "2",
    "RETRY_BACKOFF_SECONDS": "0.5",
    "TRAIN_STUCK_SECONDS": str(STUCK_SECONDS),
    "POINTER_REFRESH_SECONDS": "3",
}
ZERO_WITHOUT_TROUBLE_OF_ITS_KIND = {
    "FLTS pipeline: Removed by the janitor",
    "FLTS pipeline: Store conflicts",
    "FLTS pipeline: Periodic work that failed",
    "FLTS serving: Waiting",
    "FLTS serving: Dropped",
    "FLTS Kafka: Lag of each replica",
    "FLTS Kafka: Missing from the sum",
    "FLTS Kafka: Replayed",
}
"""Panels that show a line at zero here; all others must have moved."""
FIRED_FOR_REAL = {
    "FltsTrainingFailures",
    "FltsTrainingStuck",
    "FltsTrainingRetriesExhausted",
    "FltsModelLoadFailures",
    "FltsForecastErrors",
    "FltsApiErrors",
    "FltsDeadLetters",
    "FltsConsumerLag",
    "FltsMlflowAway",
    "FltsServiceDown",
}
"""The others need a day, a loss of interval coverage, or a broken disk; promtool makes them fire."""


@dataclass
class Observed:
    """A pipeline under Prometheus, and what its panels showed before anything had worked."""

    stack: RunningStack
    prometheus: Prometheus
    began: float
    idle: set[str] = field(default_factory=set)


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory, sample: tuple[Path, Path]) -> Iterator[Observed]:
    program("prometheus")
    folder = tmp_path_factory.mktemp("observed")
    with (
        running_stack(folder / "home", **ENVIRONMENT) as stack,
        running_prometheus(folder / "prometheus", stack.state["health"]) as prometheus,
    ):
        seen = Observed(stack, prometheus, time.time())
        eventually(lambda: all(prometheus.up().values()), "every service answers Prometheus", timeout=30)
        time.sleep(5)  # a few looks at a pipeline that does nothing
        seen.idle = without_data(seen)
        work(stack, sample)
        trouble(stack, sample)
        yield seen


def without_data(seen: Observed) -> set[str]:
    """The panels that show nothing, or nothing but zero."""
    return {query.name for query in queries() if not any(shown(seen, query))}


def shown(seen: Observed, query: Query) -> list[float]:
    return seen.prometheus.values(query.asked, seen.began, time.time())


def fired(prometheus: Prometheus) -> set[str]:
    """The alerts that have fired since Prometheus began."""
    found = prometheus.get("query", query='max_over_time(ALERTS{alertstate="firing"}[1h])')["result"]
    return {series["metric"]["alertname"] for series in found}


def work(stack: RunningStack, sample: tuple[Path, Path]) -> None:
    """What a working day has: two uploads, one refused, a rollback, forecasts."""
    first = stack.wait_decided(stack.upload("observed", *sample))
    assert first["outcome"] == "promoted", first
    second = stack.wait_decided(stack.upload("observed", *sample, settings={"EXTRA_HASH_SALT": "x"}, force=True))
    assert second["outcome"] in {"promoted", "kept"}
    with stack.gateway as client:
        refused = client.post("/datasets/observed", files={"train": ("train.csv", b"ts,load\n1,2\n", "text/csv")})
        assert refused.status_code == 422, refused.text
        rollback = client.post("/datasets/observed/rollback", params={"of_run": first["pipeline_run_id"]})
        assert rollback.status_code == 202, rollback.text
        decided = stack.wait_decided(rollback.json()["pipeline_run_id"])
        assert decided["outcome"] == "promoted", decided
        body = client.get("/datasets/observed/tail", params={"rows": 50}).json()
    stack.wait_served("observed", decided["decision"]["run_id"])
    for horizon in range(1, 60):
        answer = stack.predict(body | {"inference_length": horizon})
        assert answer.status_code == 200, answer.text
    assert stack.predict({"identifier": "observed", "data": {}}).status_code == 422


def trouble(stack: RunningStack, sample: tuple[Path, Path]) -> None:
    """A training that hangs at every try beside an MLflow that hangs, a broken bundle, a record that is no event."""
    frozen = psutil.Process(stack.pid("mlflow")).children(recursive=True)
    settings = {"EPOCHS": 60, "EARLY_STOPPING": False, "EXTRA_HASH_SALT": "hangs"}
    run_id = stack.upload("hanging", *sample, settings=settings)
    freeze(frozen)
    for tries in (1, 2):
        hanging = functools.partial(hang, stack, run_id, tries)
        eventually(hanging, f"the training hangs, try {tries}", timeout=90, every=0.02)
        if tries == 1:
            crowd(stack)
    break_a_champion(stack)
    eventually(
        lambda: stack.predict({"identifier": "broken", "data": {}}).json()["error"]["code"] == "champion_unavailable",
        "the broken champion is known",
    )
    with stack.gateway as client:
        for _ in range(40):
            assert stack.predict({"identifier": "broken", "data": {}}).status_code == 503
            assert client.post("/predict", json={"identifier": "broken", "data": {}}).status_code == 503
    stack.wait_decided(run_id, timeout=240)
    thaw(frozen)
    worker = [psutil.Process(stack.pid("inference-worker"))]
    freeze(worker)
    time.sleep(4)
    thaw(worker)


def hang(stack: RunningStack, run_id: str, tries: int) -> bool:
    """Stop the GRU trainer's child in the middle of its training."""
    begun = [record for record in stack.log_events("train-gru", "train_start") if record["pipeline_run_id"] == run_id]
    if len(begun) < tries:
        return False
    children = psutil.Process(stack.pid("train-gru")).children()
    freeze([child for child in children if "flts.messaging.child" in child.cmdline()])
    return True


def crowd(stack: RunningStack) -> None:
    """Let messages pile up behind the training that hangs; they are meant for a group that does not exist."""
    producer = Producer({"bootstrap.servers": stack.state["kafka"]})
    for number in range(150):
        producer.produce("training-data", key=f"x{number}", value=b"{}", headers=[(ONLY_GROUP, b"nobody")])
    producer.produce("raw-data", key="x", value=b"no event", headers=[("event", b"raw-claim")])
    assert producer.flush(10) == 0


def break_a_champion(stack: RunningStack) -> None:
    store = FilesystemStore(stack.store)
    pointer: dict[str, Any] = json.loads(store.get("model-promotion", "observed/current.json")[0])
    pointer = {**pointer, "identifier": "broken", "bundle": {**pointer["bundle"], "sha256": "0" * 64}}
    store.put("model-promotion", "broken/current.json", json.dumps(pointer).encode())


def freeze(processes: list[psutil.Process]) -> None:
    for process in processes:
        process.send_signal(signal.SIGSTOP)


def thaw(processes: list[psutil.Process]) -> None:
    for process in processes:
        process.send_signal(signal.SIGCONT)


def test_panels_of_an_idle_pipeline_are_found_to_be_without_data(observed: Observed) -> None:
    assert {
        "FLTS pipeline: Decisions", "FLTS pipeline: Time to preprocess", "FLTS training: Time to train",
        "FLTS training: Trainings", "FLTS serving: Latency", "FLTS serving: Champions", "FLTS Kafka: Dead letters",
    } <= observed.idle  # fmt: skip
    assert len(observed.idle) > len({query.name for query in queries()}) / 2


def test_every_panel_shows_data_once_the_pipeline_has_worked(observed: Observed) -> None:
    values = {query: shown(observed, query) for query in queries()}
    moved = {query.name for query, found in values.items() if any(found)}
    report(
        "panels",
        [
            {"panel": query.name, "idle": "-" if query.name in observed.idle else "data", "values": len(found),
             "highest": max(found, default=None)}
            for query, found in values.items()
        ],
    )  # fmt: skip

    assert not {query.name for query, found in values.items() if not found}, "panels without data"
    assert {query.name for query in values} - moved <= ZERO_WITHOUT_TROUBLE_OF_ITS_KIND


def test_every_alert_reads_metrics_that_are_there(observed: Observed) -> None:
    prometheus = observed.prometheus
    for name, rule in alerts().items():
        for metric in metric_names(rule["expr"]):
            assert prometheus.get("query", query=f"count({metric})")["result"], f"{name}: nobody exports {metric}"
    evaluated = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in evaluated} == set(alerts())
    assert {rule["health"] for rule in evaluated} == {"ok"}


def test_trouble_fires_the_alerts_that_speak_of_it_and_they_read_well(observed: Observed) -> None:
    eventually(lambda: fired(observed.prometheus) >= FIRED_FOR_REAL, f"{FIRED_FOR_REAL} fire", timeout=30)

    said = [
        text for found in observed.prometheus.firing().values() for one in found for text in one["annotations"].values()
    ]
    assert said
    assert not [text for text in said if "{{" in text or "error expanding template" in text or "<no value>" in text]
    report("alerts", [{"alert": name, "fired": name in fired(observed.prometheus)} for name in alerts()])
