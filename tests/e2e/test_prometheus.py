"""A real Prometheus scrapes a pipeline with work and faults: every panel and every alert has data."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from flts.messaging.codec import ONLY_GROUP
from tests.compose_pipeline import running_compose
from tests.eventually import eventually
from tests.pipeline import FreezablePipeline
from tests.prometheus import (
    CONFIG,
    RULES,
    Prometheus,
    Query,
    alerts,
    hurried,
    impatient,
    metric_names,
    program,
    queries,
    running_jobs,
    running_prometheus,
)
from tests.reports import report
from tests.stack import SMALL, running_stack
from tests.targets import TARGET
from tests.trainers import INSTALLED

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800 if TARGET == "compose" else 600)]

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
    "FLTS Kafka: Replayed",  # the test replays once, and increase() is zero for the first sample of a series
}
"""Panels whose values may all be zero in this test; every panel that is not listed must show another value."""
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
"""Alerts that fire here; the rest need a day, a loss of interval coverage or a broken disk (see `alert_cases`)."""


BROKEN = {"identifier": "broken", "data": {}}


@dataclass
class Observed:
    """A pipeline that Prometheus scrapes, and the panels that had no data before the first run."""

    stack: FreezablePipeline
    prometheus: Prometheus
    began: float
    idle: set[str] = field(default_factory=set)


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory, swinging: tuple[Path, Path]) -> Iterator[Observed]:
    folder = tmp_path_factory.mktemp("observed")
    with watched(folder) as (stack, prometheus):
        seen = Observed(stack, prometheus, time.time())
        eventually(lambda: all_up(prometheus), "every service answers Prometheus", timeout=60)
        time.sleep(5)  # seconds; meanwhile Prometheus scrapes the idle pipeline several times
        seen.idle = without_data(seen)
        work(stack, swinging)
        trouble(stack, prometheus, swinging)
        yield seen


@contextmanager
def watched(folder: Path) -> Iterator[tuple[FreezablePipeline, Prometheus]]:
    """Yield a pipeline without runs and its Prometheus; under Compose, the Prometheus of the `observe` profile."""
    if TARGET == "compose":
        files = folder / "prometheus"
        files.mkdir(mode=0o755)
        (files / "prometheus.yml").write_text(hurried(CONFIG.read_text()))
        (files / "rules.yml").write_text(impatient(RULES.read_text()))
        changed = {
            "prometheus": {"volumes": [f"{files}:/etc/flts:ro"]},
            "grafana": {"scale": 0},  # not needed: the test itself sends the dashboards' queries
            "preprocess-job": {"profiles": ["never"]},  # the Job would start a run, and the pipeline must be idle
        }
        with running_compose(folder / "compose", profiles=["observe"], services=changed, **ENVIRONMENT) as composed:
            host, port = composed.made.address("prometheus", 9090)
            yield composed, Prometheus(f"http://{host}:{port}")
        return
    program("prometheus")
    with (
        running_stack(folder / "home", **ENVIRONMENT) as stack,
        running_prometheus(folder / "prometheus", stack.state["health"]) as prometheus,
    ):
        yield stack, prometheus


def all_up(prometheus: Prometheus) -> bool:
    """Return whether every running job of prometheus.yml has a target, and every target answers."""
    up = prometheus.up()
    return up.keys() >= running_jobs() and all(up.values())


def without_data(seen: Observed) -> set[str]:
    """Return the panels without values, or with zeros only."""
    return {query.name for query in queries() if not any(shown(seen, query))}


def shown(seen: Observed, query: Query) -> list[float]:
    return seen.prometheus.values(query.asked, seen.began, time.time())


def fired(prometheus: Prometheus) -> set[str]:
    """Return the alerts that fired within the last hour; the test is shorter than an hour."""
    found = prometheus.get("query", query='max_over_time(ALERTS{alertstate="firing"}[1h])')["result"]
    return {series["metric"]["alertname"] for series in found}


def work(stack: FreezablePipeline, swinging: tuple[Path, Path]) -> None:
    """Make two uploads, a refused upload, a rollback, forecasts, and a refused forecast."""
    first = stack.wait_decided(stack.upload("observed", *swinging))
    assert first["outcome"] == "promoted", first
    second = stack.wait_decided(stack.upload("observed", *swinging, settings={"EXTRA_HASH_SALT": "x"}, force=True))
    assert second["outcome"] in {"promoted", "kept"}
    with stack.gateway as client:
        refused = client.post("/datasets/observed", files={"train": ("train.csv", b"ts,load\n1,2\n", "text/csv")})
        assert refused.status_code == 422, refused.text
        rollback = client.post("/datasets/observed/rollback", params={"of_run": first["pipeline_run_id"]})
        assert rollback.status_code == 202, rollback.text
        decided = stack.wait_decided(rollback.json()["pipeline_run_id"])
        assert decided["outcome"] == "promoted", decided
        body = client.get("/datasets/observed/tail").json()
    stack.wait_served("observed", decided["decision"]["run_id"])
    for horizon in range(1, 60):
        answer = stack.predict(body | {"inference_length": horizon})
        assert answer.status_code == 200, answer.text
    assert stack.predict({"identifier": "observed", "data": {"no column of it": [1]}}).status_code == 422


def trouble(stack: FreezablePipeline, prometheus: Prometheus, swinging: tuple[Path, Path]) -> None:
    """Cause faults: a training that hangs in each attempt, a frozen MLflow, a broken bundle, an invalid record."""
    settings = {"EPOCHS": 60, "EARLY_STOPPING": False, "EXTRA_HASH_SALT": "hangs"}
    run_id = stack.upload("hanging", *swinging, settings=settings)
    stack.freeze("mlflow")
    for tries in (1, 2):
        hanging = functools.partial(hang, stack, run_id, tries)
        eventually(hanging, f"the training hangs, try {tries}", timeout=90, every=0.02)
        if tries == 1:
            crowd(stack)
    break_a_champion(stack)
    eventually(lambda: all(code(stack) == "champion_unavailable" for _ in range(4)), "the broken champion is known")
    with stack.gateway as client:
        for _ in range(40):
            assert stack.predict(BROKEN).status_code == 503
            assert client.post("/predict", json=BROKEN).status_code == 503
        again = functools.partial(client.post, "/dead-letters/preprocess/replay", json={"all": True})
        eventually(lambda: again().raise_for_status().json()["replayed"] == 1, "what was no event is replayed")
    stack.wait_decided(run_id, timeout=240)
    stack.thaw("mlflow")
    stack.freeze("inference-worker")
    eventually(lambda: not prometheus.up()["inference-worker"], "a frozen service is seen to be down")
    stack.thaw("inference-worker")


def hang(stack: FreezablePipeline, run_id: str, tries: int) -> bool:
    """Freeze the GRU trainer's child once attempt number `tries` has begun; return whether it has begun."""
    begun = [record for record in stack.log_events("train-gru", "train_start") if record["pipeline_run_id"] == run_id]
    if len(begun) < tries:
        return False
    stack.freeze_work("train-gru")
    return True


def code(stack: FreezablePipeline) -> str:
    """Return the error code of a forecast request to the broken champion."""
    return str(stack.predict(BROKEN).json()["error"]["code"])


def crowd(stack: FreezablePipeline) -> None:
    """Publish 150 records for a group that does not exist behind the hanging training, and an invalid record."""
    producer = Producer({"bootstrap.servers": stack.state["kafka"]})
    for number in range(150):
        producer.produce("training-data", key=f"x{number}", value=b"{}", headers=[(ONLY_GROUP, b"nobody")])
    producer.produce("raw-data", key="x", value=b"no event", headers=[("event", b"raw-claim")])
    assert producer.flush(10) == 0


def break_a_champion(stack: FreezablePipeline) -> None:
    bucket = stack.store_settings.promotion_bucket
    pointer: dict[str, Any] = json.loads(stack.objects.get(bucket, "observed/current.json")[0])
    pointer = {**pointer, "identifier": "broken", "bundle": {**pointer["bundle"], "sha256": "0" * 64}}
    stack.objects.put(bucket, "broken/current.json", json.dumps(pointer).encode())


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


def test_every_message_is_done_in_flight_or_a_dead_letter(observed: Observed) -> None:
    """The metrics account for every message of the pipeline's work and faults."""
    prometheus = observed.prometheus

    def accounts() -> dict[tuple[str, str], dict[str, float]]:
        found: dict[tuple[str, str], dict[str, float]] = {}
        asked = "max by (group, topic, state) (flts_pipeline_messages)"
        for series in prometheus.get("query", query=asked)["result"]:
            labels = series["metric"]
            found.setdefault((labels["topic"], labels["group"]), {})[labels["state"]] = float(series["value"][1])
        return found

    eventually(lambda: not any(each["in_flight"] for each in accounts().values()), "nothing is in flight", timeout=120)
    found = accounts()
    report("messages", [{"topic": topic, "group": group, **each} for (topic, group), each in sorted(found.items())])

    for each in found.values():
        assert each["sent"] == each["done"] + each["in_flight"] + each["dead_letter"]
        assert each["lost"] == 0
    assert found["training-data", "train-gru"]["dead_letter"] == 1  # the record whose training hung
    assert found["raw-data", "preprocess"]["dead_letter"] == 1  # this record is not a valid event
    assert found["training-data", "train-gru"]["sent"] > 150
    groups = {"preprocess", *INSTALLED, "eval", "inference-worker"}
    assert {group for _, group in found} == groups
