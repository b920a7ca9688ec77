"""Read the dashboards and rules, and run Prometheus with them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from embedded.ports import free_port
from tests.eventually import eventually
from tests.trainers import OFF

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
CONFIG = DEPLOY / "prometheus" / "prometheus.yml"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
WINDOWS = {"$__rate_interval": "1m", "$__range": "30m", "$__interval": "5s"}
"""Replacements for Grafana's variables; `$__range` covers the time that a test's pipeline runs."""
KEYWORDS = {"and", "or", "unless", "on", "by", "without", "ignoring", "offset", "bool", "group_left", "group_right"}


@dataclass(frozen=True)
class Query:
    """One query of a panel."""

    dashboard: str
    panel: str
    expression: str

    @property
    def name(self) -> str:
        return f"{self.dashboard}: {self.panel}"

    @property
    def asked(self) -> str:
        """The expression in the form in which Grafana sends it."""
        text = self.expression
        for variable, value in WINDOWS.items():
            text = text.replace(variable, value)
        return text


def dashboards() -> dict[str, dict[str, Any]]:
    return {path.name: json.loads(path.read_text()) for path in DASHBOARDS}


def panels(dashboard: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries() -> list[Query]:
    return [
        Query(dashboard["title"], panel["title"], target["expr"])
        for dashboard in dashboards().values()
        for panel in panels(dashboard)
        for target in panel["targets"]
    ]


def alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def jobs() -> dict[str, int]:
    """Return the services that prometheus.yml scrapes, and their ports."""
    scraped = yaml.safe_load(CONFIG.read_text())["scrape_configs"]
    return {
        entry["job_name"]: lookup["port"]
        for entry in scraped
        for lookup in entry.get("dns_sd_configs", ())
        if lookup["names"] == [entry["job_name"]]
    }


def running_jobs() -> set[str]:
    """Return the jobs that have a target in an installation; a trainer that is off by default has none."""
    return set(jobs()) - {trainer.deployment for trainer in OFF}


def metric_names(expression: str) -> set[str]:
    """Return the metrics that a PromQL expression reads."""
    text = re.sub(r'"[^"]*"|#[^\n]*', "", expression)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", text)
    text = re.sub(r"\b(by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)", " ", text)
    words = re.finditer(r"(?<![\w.$])([A-Za-z_:][\w:]*)\s*(\(?)", text)
    return {word[1] for word in words if not word[2] and word[1] not in KEYWORDS}


def matchers(expression: str) -> list[tuple[str, str, str, str]]:
    """Return (metric, label, operator, value) of every matcher in an expression."""
    found = []
    for selector in re.finditer(r"([A-Za-z_:][\w:]*)\{([^}]*)\}", expression):
        parts = re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', selector[2])
        found += [(selector[1], label, operator, value) for label, operator, value in parts]
    return found


def program(name: str) -> str:
    """Return the path of prometheus or promtool; skip the test with the reason if it is missing."""
    folder = os.environ.get("FLTS_TEST_PROMETHEUS")
    found = shutil.which(name, path=folder) if folder else shutil.which(name)
    if found is None:
        pytest.skip(f"no {name}: neither on PATH nor in the folder that FLTS_TEST_PROMETHEUS names")
    return found


class Prometheus:
    """A running Prometheus."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **parameters: Any) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def values(self, expression: str, start: float, end: float) -> list[float]:
        """Return all finite values of an expression between two times."""
        step = max(1.0, (end - start) / 200)
        series = self.get("query_range", query=expression, start=start, end=end, step=step)["result"]
        found = [float(value) for one in series for _, value in one["values"]]
        return [value for value in found if value == value and abs(value) != float("inf")]  # noqa: PLR0124 - drops NaN

    def firing(self) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for alert in self.get("alerts")["alerts"]:
            if alert["state"] == "firing":
                found.setdefault(alert["labels"]["alertname"], []).append(alert)
        return found

    def up(self) -> dict[str, bool]:
        """Return whether all targets of each job answer."""
        found: dict[str, bool] = {}
        for target in self.get("targets")["activeTargets"]:
            job = target["labels"]["job"]
            found[job] = found.get(job, True) and target["health"] == "up"
        return found


def config_for(targets: Mapping[str, str], rules: Path) -> str:
    """Return prometheus.yml with the same jobs at other addresses (`http://127.0.0.1:1234`), scraped every second."""
    document = yaml.safe_load(CONFIG.read_text())
    assert set(targets) == running_jobs(), "the stack's services are those of prometheus.yml"
    document["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    document["rule_files"] = [str(rules)]
    document["scrape_configs"] = [
        {"job_name": job, "static_configs": [{"targets": [url.removeprefix("http://")]}]}
        for job, url in targets.items()
    ]
    return yaml.safe_dump(document)


def hurried(config: str) -> str:
    """Return prometheus.yml with all intervals and timeouts set to 2 s."""
    return re.sub(r"(?m)(_interval|_timeout): \d+s", r"\1: 2s", config)


def impatient(rules: str) -> str:
    """Return the rules with `for: 0s`, so that they fire at once; the rules' unit tests test the durations."""
    return re.sub(r"(?m)^( +)for: \w+$", r"\1for: 0s", rules)


@contextmanager
def running_prometheus(folder: Path, targets: Mapping[str, str]) -> Iterator[Prometheus]:
    """Start Prometheus on a free port with the project's rules and jobs, and end it."""
    binary = program("prometheus")
    folder.mkdir(parents=True, exist_ok=True)
    rules, config, port = folder / "rules.yml", folder / "prometheus.yml", free_port()
    rules.write_text(impatient(RULES.read_text()))
    config.write_text(config_for(targets, rules))
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            [
                *(binary, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"),
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            server = Prometheus(f"http://127.0.0.1:{port}")
            eventually(lambda: _answers(server), "Prometheus answers", timeout=30)
            yield server
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(server: Prometheus) -> bool:
    try:
        return httpx.get(f"{server.url}/-/ready", timeout=2).is_success
    except httpx.HTTPError:
        return False
