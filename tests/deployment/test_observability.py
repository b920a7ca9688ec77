"""Dashboards, alerts and scrape configuration name metrics and ports of the code, and every alert can fire."""

from __future__ import annotations

import functools
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.process_collector import ProcessCollector

from cli.arguments import build_parser
from eval_container.settings import EvalSettings
from flts.observability import metrics as declared
from flts.observability.metrics import Metrics
from flts.settings import ServiceSettings
from flts.trainers import TRAINERS
from gateway_container.settings import GatewaySettings
from inference_container.settings import InferenceSettings, WorkerSettings
from preprocess_container.settings import PreprocessSettings
from tests.deployment.alert_cases import CASES, Case
from tests.prometheus import (
    CONFIG,
    DEPLOY,
    ROOT,
    RULES,
    alerts,
    dashboards,
    jobs,
    matchers,
    metric_names,
    panels,
    program,
    queries,
    running_jobs,
)
from tests.trainers import SETTINGS as TRAINER_SETTINGS

SETTINGS: dict[str, type[ServiceSettings]] = {
    "fastapi-app": GatewaySettings,
    "preprocess": PreprocessSettings,
    **{trainer.deployment: TRAINER_SETTINGS[trainer.package] for trainer in TRAINERS},
    "eval": EvalSettings,
    "inference": InferenceSettings,
    "inference-worker": WorkerSettings,
}
OUTCOMES = {
    "flts_messages_total": declared.MESSAGE_OUTCOMES,
    "flts_ticks_total": declared.TICK_OUTCOMES,
    "flts_trainings_total": declared.TRAINING_OUTCOMES,
    "flts_model_load_total": declared.MODEL_LOAD_OUTCOMES,
    "flts_http_requests_total": declared.HTTP_OUTCOMES,
    "flts_predictions_total": ("success", "rejected", "unavailable", "failed"),
}
SAMPLES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
SCRAPED_LABELS = {"job", "instance"}


def exported() -> dict[str, set[str]]:
    """Return the name of each sample that a service can export, with its labels."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    found = {f"{family.name}{end}": set() for family in registry.collect() for end in SAMPLES[family.type]}
    for metric in vars(Metrics(registry)).values():
        if not hasattr(metric, "_labelnames"):
            continue
        for end in SAMPLES[metric._type]:
            found[f"{metric._name}{end}"] = {*metric._labelnames, *(("le",) if end == "_bucket" else ())}
    return found


def asked() -> list[tuple[str, str]]:
    """Return (name, expression) of each panel and each alert."""
    return [
        *((query.name, query.expression) for query in queries()),
        *((name, rule["expr"]) for name, rule in alerts().items()),
    ]


def test_the_reader_of_expressions_sees_metrics_and_nothing_else() -> None:
    expression = 'sum by (le, job) (rate(a_bucket{b="c"}[5m])) / on () group_left (x) d > 0.05 and e offset 1d'
    assert metric_names(expression) == {"a_bucket", "d", "e"}


def test_there_is_a_dashboard_for_pipeline_training_serving_and_kafka() -> None:
    assert {document["uid"] for document in dashboards().values()} == {
        "flts-pipeline", "flts-training", "flts-serving", "flts-kafka",
    }  # fmt: skip


@pytest.mark.parametrize(("name", "expression"), asked())
def test_every_query_names_metrics_that_the_code_declares(name: str, expression: str) -> None:
    del name
    known = {"up": set(), **exported()}
    names = metric_names(expression)
    assert names, "an expression reads at least one metric"
    assert names <= set(known)
    for metric, label, operator, value in matchers(expression):
        assert label in known[metric] | SCRAPED_LABELS, f"{metric} has no label {label}"
        values = value.split("|") if operator.endswith("~") else [value]
        if label == "outcome" and metric in OUTCOMES:
            assert set(values) <= set(OUTCOMES[metric]), f"{metric} has no such outcome"
        if label == "decision":
            assert set(values) <= set(declared.DECISIONS)
        if label == "job":
            matching = [job for job in (*jobs(), "prometheus") if any(re.fullmatch(one, job) for one in values)]
            assert matching, f"no job is called {value}"


@pytest.mark.parametrize("name", dashboards())
def test_a_dashboards_panels_are_whole(name: str) -> None:
    document = dashboards()[name]
    assert name == f"{document['uid']}.json", "a dashboard is found by its uid"
    assert len({panel["id"] for panel in document["panels"]}) == len(document["panels"])
    [variable] = document["templating"]["list"]
    assert (variable["name"], variable["type"], variable["query"]) == ("datasource", "datasource", "prometheus")
    titles = [panel["title"] for panel in panels(document)]
    assert len(set(titles)) >= len(titles) - 1, "titles say what a panel shows"
    for panel in panels(document):
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["targets"], "no empty panel"
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == panel["datasource"]["uid"] == "${datasource}"
            assert target["legendFormat"]
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24


def test_panels_do_not_lie_on_each_other() -> None:
    for document in dashboards().values():
        taken: set[tuple[int, int]] = set()
        for panel in document["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, f"{document['title']}: {panel['title']}"
            taken |= cells


def test_grafana_is_provisioned_with_the_datasource_that_dashboards_default_to() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    [provider] = yaml.safe_load((provisioning / "dashboards" / "flts.yml").read_text())["providers"]
    interval = yaml.safe_load(CONFIG.read_text())["global"]["scrape_interval"]

    assert (source["uid"], source["type"], source["jsonData"]["timeInterval"]) == ("prometheus", "prometheus", interval)
    assert all(
        document["templating"]["list"][0]["current"]["value"] == source["uid"] for document in dashboards().values()
    )
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"


def test_prometheus_asks_every_service_at_its_port() -> None:
    ports = {job: int(settings.model_fields["service_port"].default) for job, settings in SETTINGS.items()}
    compose = ROOT / "docker-compose.yaml"
    if compose.exists():
        services = yaml.safe_load(compose.read_text())["services"]
        for job, port in list(ports.items()):
            environment = services[job].get("environment") or {}
            ports[job] = int(environment.get("SERVICE_PORT", port))

    assert jobs() == ports


@pytest.mark.parametrize("name", alerts())
def test_an_alert_says_what_happened_and_what_to_do(name: str) -> None:
    rule = alerts()[name]
    assert re.fullmatch(r"Flts[A-Z]\w+", name)
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert set(rule["annotations"]) == {"summary", "description", "action"}
    text = " ".join(rule["annotations"].values())
    known = {*exported(), *SCRAPED_LABELS, *(label for labels in exported().values() for label in labels)}
    for word in re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", text):
        assert word in known or f'"{word}"' in sources(), f"nothing logs or exports {word}"
    settings = (ROOT / "docs" / "configuration.md").read_text()
    for setting in re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", text):
        assert f"`{setting}`" in settings, f"there is no setting {setting}"
    commands = set(_subcommands())
    for command in re.findall(r"`flts ([\w-]+)", text):
        assert command in commands, f"there is no command flts {command}"


@functools.cache
def sources() -> str:
    folders = [ROOT / "flts", *ROOT.glob("*_container")]
    return "".join(path.read_text() for folder in folders for path in folder.rglob("*.py"))


def _subcommands() -> list[str]:
    return [name for action in build_parser()._actions if isinstance(action.choices, dict) for name in action.choices]


def test_a_service_of_which_no_replica_is_left_counts_as_down() -> None:
    named = {value for metric, label, _, value in matchers(alerts()["FltsServiceDown"]["expr"]) if metric == "up"}
    assert named == running_jobs()


def test_every_alert_has_a_case_that_makes_it_fire() -> None:
    assert set(CASES) == set(alerts())


def test_promtool_accepts_the_configuration_and_the_rules() -> None:
    for kind, path in (("config", CONFIG), ("rules", RULES)):
        command = [program("promtool"), "check", kind, str(path)]
        checked = subprocess.run(command, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_alert_is_quiet_first_and_then_fires(tmp_path: Path) -> None:
    tests = tmp_path / "tests.yml"
    document = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [unit_test(name, case) for name, case in CASES.items()],
    }
    tests.write_text(yaml.safe_dump(document))

    command = [program("promtool"), "test", "rules", str(tests)]
    tested = subprocess.run(command, capture_output=True, text=True, check=False)

    assert tested.returncode == 0, tested.stdout + tested.stderr


def unit_test(name: str, case: Case) -> dict[str, Any]:
    firing = f'count(ALERTS{{alertname="{name}",alertstate="firing"}})'
    return {
        "name": name,
        "interval": case.interval,
        "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
        "promql_expr_test": [
            {"expr": firing, "eval_time": case.quiet, "exp_samples": []},
            {"expr": firing, "eval_time": case.fires, "exp_samples": [{"labels": "{}", "value": case.count}]},
        ],
    }
