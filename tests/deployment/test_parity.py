"""Compose, the chart and the embedded mode run the same services, except for the differences in `EXCEPTIONS`."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from embedded.settings import EmbeddedSettings
from embedded.stack import HOST, Endpoints, Stack
from tests.deployment.test_compose import OURS, TOOLS, declared, settings_of
from tests.docker import require_compose
from tests.helm import CHART, LAYERINGS, ROOT, require_helm
from tests.parity import COMPOSE_FILES, Installation, differences, from_chart, from_compose, from_embedded
from tests.trainers import EVERY_TYPE

COMPLETE = LAYERINGS["complete"]
READ = {name: declared(settings_of(name)) for name in sorted(set(OURS) - TOOLS)}


@dataclass(frozen=True)
class Meant:
    """An intended difference between Compose and another target."""

    between: str
    service: str
    field: str
    reason: str


EXCEPTIONS = (
    Meant("chart", "inference-balancer", "service", "a Service of the cluster does what haproxy does for Compose"),
    Meant(
        "chart",
        "kafka",
        "ports|KAFKA_LISTENERS|KAFKA_ADVERTISED_LISTENERS|KAFKA_LISTENER_SECURITY_PROTOCOL_MAP",
        "Compose publishes the broker to this machine, which takes a listener of its own; nobody is outside a cluster",
    ),
    Meant("chart", "postgres", "PGDATA", "a volume's top belongs to root, and Postgres wants a folder of its own"),
    Meant("chart", "minio", "user", "root without abilities under Compose; the restricted profile has no root"),
    Meant("chart", "fastapi-app", "MLFLOW_UI_URL", "where people's browsers find MLflow: a NodePort, or a port here"),
    Meant("embedded", "preprocess-job", "service", "the demo uploads the sample and starts its run itself"),
    Meant(
        "embedded",
        ".*",
        "STORE|STORE_PATH|MLFLOW_S3_ENDPOINT_URL|AWS_ACCESS_KEY_ID|AWS_SECRET_ACCESS_KEY|CACHE_DIR",
        "the store is a folder of this machine, with the champions' cache beside it",
    ),
    Meant(
        "embedded",
        ".*",
        "SERVICE_HOST|SERVICE_PORT|MLFLOW_UI_URL",
        "all share one address, so each has a port of its own",
    ),
    Meant(
        "embedded",
        ".*",
        "TRAIN_THREADS|DRAIN_SECONDS",
        "no limit of a container tells a training its share of the cores, and the launcher kills sooner",
    ),
)


def unmeant(between: str, one: Installation, other: Installation, **more: Any) -> list[str]:
    """Return the differences without an exception, one line for each."""
    known = [each for each in EXCEPTIONS if each.between == between]
    return [
        f"{service}.{field}: {what}"
        for service, field, what in differences(one, other, **more)
        if not any(re.fullmatch(each.service, service) and re.fullmatch(each.field, field) for each in known)
    ]


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Installation]:
    require_compose()

    def read(**replaced: tuple[str, str]) -> Installation:
        folder = tmp_path_factory.mktemp("compose")
        for name in COMPOSE_FILES:
            text = (ROOT / name).read_text()
            for before, after in replaced.values():
                text = text.replace(before, after, 1)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        return from_compose(folder, READ)

    return read


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Installation]:
    require_helm()

    def read(sets: dict[str, str] | None = None, file: str = "", before: str = "", after: str = "") -> Installation:
        copy = CHART
        if file:
            copy = tmp_path_factory.mktemp("chart") / "chart"
            shutil.copytree(CHART, copy)
            text = (copy / file).read_text()
            assert before in text
            (copy / file).write_text(text.replace(before, after, 1))
        return from_chart(*COMPLETE, chart=copy, sets=sets)

    return read


@pytest.fixture
def embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Installation]:
    def read(variables: Mapping[str, str] | None = None, **settings: Any) -> Installation:
        for name in set().union(*READ.values()):
            monkeypatch.delenv(name, raising=False)
        for name, value in (variables or {}).items():
            monkeypatch.setenv(name, value)
        given = {"flts_home": tmp_path, "expected_model_types": EVERY_TYPE, **settings}
        stack = Stack(EmbeddedSettings(**given), lambda _line: None)
        # The launcher sets these values when it starts the services. This test starts no service, so it sets the values
        # itself.
        health = {name: 40_000 + at for at, name in enumerate(READ)}
        stack.endpoints = Endpoints(gateway=1, inference=2, mlflow=3, kafka=4, health=health)
        stack.api_key = "key-of-the-embedded-mode"
        addresses = {
            f"{HOST}:1": "fastapi-app:8000",
            f"{HOST}:2": "inference:8000",
            f"{HOST}:3": "mlflow:5000",
            f"{HOST}:4": "kafka:9092",
        }
        return from_embedded(stack._programs(), addresses, READ, {"GATEWAY_API_KEY": stack.api_key})

    return read


def test_exceptions_are_few_and_have_their_reasons() -> None:
    assert len(EXCEPTIONS) <= 10
    assert all(len(each.reason) > 30 for each in EXCEPTIONS)


def test_compose_and_the_chart_run_the_same(
    compose: Callable[..., Installation], chart: Callable[..., Installation]
) -> None:
    one, other = compose(), chart()
    assert len(other) >= 16
    assert all(len(running.environment) > 0 for name, running in other.items() if name != "prometheus")
    assert not unmeant("chart", one, other)


def test_compose_and_the_embedded_mode_run_the_same(
    compose: Callable[..., Installation], embedded: Callable[..., Installation]
) -> None:
    one, other = compose(), embedded()
    assert set(other) == set(READ) - {"preprocess-job"}
    assert not unmeant("embedded", one, other, only=set(READ))


@pytest.mark.parametrize("files", LAYERINGS.values(), ids=LAYERINGS)
def test_services_accept_what_every_layering_gives_them(
    files: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    require_helm()
    installed = from_chart(*files, chart=CHART)
    for name, known in READ.items():
        for variable in known:
            monkeypatch.delenv(variable, raising=False)
        for variable, value in installed[name].environment.items():
            monkeypatch.setenv(variable, value)
        settings = settings_of(name)()
        given = {variable.lower() for variable in installed[name].environment} & set(type(settings).model_fields)
        assert given == settings.model_fields_set, name
        for variable in installed[name].environment:
            monkeypatch.delenv(variable)


def test_every_exception_is_one(
    compose: Callable[..., Installation], chart: Callable[..., Installation], embedded: Callable[..., Installation]
) -> None:
    one = compose()
    found = {
        "chart": list(differences(one, chart())),
        "embedded": list(differences(one, embedded(), only=set(READ))),
    }
    for each in EXCEPTIONS:
        for field in each.field.split("|"):
            assert any(
                re.fullmatch(each.service, service) and name == field for service, name, _ in found[each.between]
            ), f"{each.service}.{field} is no difference any more"


# ---- Each case changes one setting of one target (chart, Compose, embedded): the comparison must name the difference

WORKLOADS = "config/workloads.yaml"
IN_THE_CHART = {
    "a setting of one trainer": ("train-gru.EPOCHS", {"services.trainGru.env.EPOCHS": "5"}, "", "", ""),
    "sampling on one side": ("preprocess.SAMPLE_TRAIN_ROWS", {"config.SAMPLE_TRAIN_ROWS": "50"}, "", "", ""),
    "an identity that is missing": ("train-lstm.MODEL_TYPE", {}, WORKLOADS, "  env: {MODEL_TYPE: LSTM}\n", ""),
    "credentials that are missing": (
        "eval.AWS_SECRET_ACCESS_KEY",
        {},
        WORKLOADS,
        "  ports: {http: 8050}\n  metrics: true\n  secrets: [AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY]",
        "  ports: {http: 8050}\n  metrics: true\n  secrets: [AWS_ACCESS_KEY_ID]",
    ),
    "an address": ("inference.KAFKA_BOOTSTRAP_SERVERS", {}, "config/endpoints.env", "kafka:9092", "broker:9092"),
    "a broker's setting": (
        "kafka.KAFKA_AUTO_CREATE_TOPICS_ENABLE",
        {"kafka.env.KAFKA_AUTO_CREATE_TOPICS_ENABLE": "true"},
        "",
        "",
        "",
    ),
    "another version of an image": ("postgres.image", {"postgres.image": "postgres:18.1"}, "", "", ""),
    "a tag of ours": ("nonml-prophet.image", {"images.tag": "0.2.0"}, "", "", ""),
    "an argument": ("prometheus.command", {}, WORKLOADS, "retention.time=15d", "retention.time=30d"),
    "a port": ("eval.ports", {}, WORKLOADS, "ports: {http: 8050}", "ports: {http: 8051}"),
    "what readiness asks": (
        "mlflow.ready",
        {},
        WORKLOADS,
        "    ready: {path: /health}",
        "    ready: {path: /version}",
    ),
    "a limit of memory": ("train-gru.limits", {"services.trainGru.resources.limits.memory": "2Gi"}, "", "", ""),
    "a limit of CPU": ("grafana.limits", {"grafana.resources.limits.cpu": "2"}, "", "", ""),
    "a user": ("kafka.user", {}, WORKLOADS, "user: 1000", "user: 1001"),
    "a service that is missing": ("nonml-prophet.service", {"services.nonmlProphet.enabled": "false"}, "", "", ""),
    "trainers that eval waits for": (
        "eval.EXPECTED_MODEL_TYPES",
        {"services.trainLstm.enabled": "false"},
        "",
        "",
        "",
    ),
    "a folder to write in": ("inference.writable", {}, WORKLOADS, ", /var/cache/flts: 1Gi", ""),
    "time to end in": (
        "mlflow.drain_seconds",
        {},
        WORKLOADS,
        "  graceSeconds: 30\n  folders: {/tmp: 128Mi}",
        "  folders: {/tmp: 128Mi}",
    ),
}
ANOTHER = """\
  another:
    <<: *service
    image: another:1.0
    user: "1:1"
    healthcheck: {disable: true}
    mem_limit: 1m
    cpus: 1.0
"""
IN_COMPOSE = {
    "a setting": ("train-gru.EPOCHS", "      MODEL_TYPE: GRU", "      MODEL_TYPE: GRU\n      EPOCHS: 5"),
    "a start command": ("minio.entrypoint", "[/bin/sh, /deploy/start.sh]", "[/bin/sh, /deploy/begin.sh]"),
    "a health check that is off": (
        "grafana.ready",
        'test: [CMD, wget, -q, -O, /dev/null, "http://127.0.0.1:3000/api/health"]',
        "disable: true",
    ),
    "a service that the chart lacks": ("another.service", "  eval:\n", ANOTHER + "  eval:\n"),
}
IN_THE_EMBEDDED_MODE = {
    "trainers": ("eval.EXPECTED_MODEL_TYPES", {"expected_model_types": "GRU,LSTM"}, {}),
    "a setting": ("train-lstm.EPOCHS", {}, {"EPOCHS": "20"}),
    "a broker": ("eval.KAFKA_BOOTSTRAP_SERVERS", {"kafka_advertised": "elsewhere:9092"}, {}),
}


@pytest.mark.parametrize("drift", IN_THE_CHART)
def test_a_drift_of_the_chart_is_seen(
    compose: Callable[..., Installation], chart: Callable[..., Installation], drift: str
) -> None:
    named, sets, file, before, after = IN_THE_CHART[drift]
    found = unmeant("chart", compose(), chart(sets, file, before, after))
    assert any(line.startswith(f"{named}: ") for line in found), found


@pytest.mark.parametrize("drift", IN_COMPOSE)
def test_a_drift_of_compose_is_seen(
    compose: Callable[..., Installation], chart: Callable[..., Installation], drift: str
) -> None:
    named, before, after = IN_COMPOSE[drift]
    assert before in (ROOT / "docker-compose.yaml").read_text()
    found = unmeant("chart", compose(planted=(before, after)), chart())
    assert any(line.startswith(f"{named}: ") for line in found), found


@pytest.mark.parametrize("drift", IN_THE_EMBEDDED_MODE)
def test_a_drift_of_the_embedded_mode_is_seen(
    compose: Callable[..., Installation],
    embedded: Callable[..., Installation],
    drift: str,
) -> None:
    named, settings, variables = IN_THE_EMBEDDED_MODE[drift]
    found = unmeant("embedded", compose(), embedded(variables, **settings), only=set(READ))
    assert any(line.startswith(f"{named}: ") for line in found), found
