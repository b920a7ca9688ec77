"""The files that the chart mounts for Prometheus, Grafana and the S3 server are those of Compose."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.helm import (
    COMPLETE,
    ROOT,
    of_kind,
    render,
)
from tests.prometheus import program
from tests.trainers import OFF

# ---- Prometheus and Grafana


def test_the_files_are_composes() -> None:
    maps = of_kind(render(*COMPLETE), "ConfigMap")
    for name, folder in (
        ("s3-files", "s3"),
        ("grafana-dashboards", "grafana/dashboards"),
        ("grafana-datasources", "grafana/provisioning/datasources"),
        ("grafana-providers", "grafana/provisioning/dashboards"),
    ):
        files = {path.name: path.read_text() for path in (ROOT / "deploy" / folder).iterdir()}
        assert maps[name]["data"] == files


def prometheus_files(**sets: str) -> dict[str, Any]:
    data = of_kind(render(*COMPLETE, **sets), "ConfigMap")["prometheus-files"]["data"]
    return {name: yaml.safe_load(text) for name, text in data.items()}


def rules(document: Any) -> dict[str, Any]:
    return {rule["alert"]: rule for group in document["groups"] for rule in group["rules"]}


def test_prometheus_asks_each_replica_of_what_is_installed() -> None:
    compose = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    services = of_kind(render(*COMPLETE), "Service")
    config = prometheus_files()["prometheus.yml"]
    assert config["global"] == compose["global"]
    off = {trainer.deployment for trainer in OFF}
    assert [job["job_name"] for job in config["scrape_configs"]] == [
        job["job_name"] for job in compose["scrape_configs"] if job["job_name"] not in off
    ]
    for job in config["scrape_configs"][1:]:
        [found] = job["dns_sd_configs"]
        [name] = found["names"]
        assert services[name]["spec"]["clusterIP"] == "None", "one address a replica"
        assert services[name]["spec"]["publishNotReadyAddresses"] is True
        assert services[name]["spec"]["selector"]["app.kubernetes.io/component"] == job["job_name"]
        assert found["port"] in {port["port"] for port in services[name]["spec"]["ports"]}
    fewer = prometheus_files(services__trainGru__enabled="false")["prometheus.yml"]
    assert "train-gru" not in [job["job_name"] for job in fewer["scrape_configs"]]


def test_the_rules_are_composes_and_one_for_the_autoscaler() -> None:
    compose = rules(yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yml").read_text()))
    files = prometheus_files(services__inference__autoscaling__maxReplicas="7")
    found = rules(files["rules.yml"])
    assert {name: rule["expr"] for name, rule in found.items()} == {
        name: rule["expr"] for name, rule in compose.items()
    }
    assert "docker" not in json.dumps(files)
    [(name, rule)] = rules(files["rules-kubernetes.yml"]).items()
    assert (name, rule["expr"]) == ("FltsInferenceAtMaxReplicas", 'count(up{job="inference"}) >= 7')
    assert set(files["prometheus.yml"]["rule_files"]) == set(files) - {"prometheus.yml"}


def test_nobody_is_told_that_a_service_is_missing_which_was_not_asked_for() -> None:
    everything = rules(prometheus_files()["rules.yml"])["FltsServiceDown"]["expr"]
    fewer = rules(prometheus_files(services__nonmlProphet__enabled="false")["rules.yml"])["FltsServiceDown"]["expr"]
    assert 'absent(up{job="nonml-prophet"})' in everything
    assert "nonml-prophet" not in fewer
    assert fewer.count("absent(") == everything.count("absent(") - 1


def test_it_is_told_when_inference_has_all_the_replicas_that_it_may_have(tmp_path: Path) -> None:
    data = of_kind(render(*COMPLETE, services__inference__autoscaling__maxReplicas="3"), "ConfigMap")
    (tmp_path / "rules.yml").write_text(data["prometheus-files"]["data"]["rules-kubernetes.yml"])
    firing = 'count(ALERTS{alertname="FltsInferenceAtMaxReplicas",alertstate="firing"})'
    case = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                # Replica c appears after 20 minutes and does not answer. The rule must count replica c too, because the
                # autoscaler requested it. With it the maximum of 3 is reached.
                "input_series": [
                    {"series": 'up{job="inference",instance="a"}', "values": "1x60"},
                    {"series": 'up{job="inference",instance="b"}', "values": "1x60"},
                    {"series": 'up{job="inference",instance="c"}', "values": "_x20 0x40"},
                ],
                "promql_expr_test": [
                    {"expr": firing, "eval_time": "29m", "exp_samples": []},
                    {"expr": firing, "eval_time": "40m", "exp_samples": [{"labels": "{}", "value": 1}]},
                ],
            }
        ],
    }
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(case))
    command = [program("promtool"), "test", "rules", str(tmp_path / "tests.yml")]
    tested = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_promtool_accepts_what_prometheus_is_given(tmp_path: Path) -> None:
    for name, text in of_kind(render(*COMPLETE), "ConfigMap")["prometheus-files"]["data"].items():
        (tmp_path / name).write_text(text)
    command = [program("promtool"), "check", "config", str(tmp_path / "prometheus.yml")]
    checked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "FAILED" not in checked.stdout + checked.stderr
