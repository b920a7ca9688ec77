"""The notes that Helm prints after an installation, and the pod of `helm test`."""

from __future__ import annotations

import re
import shutil
from typing import Any

import pytest

from tests.helm import (
    CHART,
    COMPLETE,
    container,
    documents,
    environment,
    helm,
    job_name,
    of_kind,
    render,
    require_helm,
    template,
)

# ---- NOTES.txt: the text that `helm install` prints


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a renderer of the notes: `helm template` omits NOTES.txt, so a copy of the chart has it in a document."""
    copy = tmp_path_factory.mktemp("notes") / "chart"
    shutil.copytree(CHART, copy)
    probe = 'kind: Notes\nmetadata: {name: notes}\ntext: {{ include "flts.notes" . | toJson }}\n'
    (copy / "templates" / "probe.yaml").write_text(probe)

    def notes(*files: str, **sets: str) -> str:
        answer = template(require_helm(), files, {name.replace("__", "."): value for name, value in sets.items()}, copy)
        assert answer.returncode == 0, answer.stderr
        return str(of_kind(list(documents(answer.stdout)), "Notes")["notes"]["text"])

    return notes


def commands(notes: str) -> list[str]:
    return re.findall(r"(?m)^  \d\. .*:\n\n     (.+)$", notes)


def test_notes_are_the_file_that_helm_shows() -> None:
    assert (CHART / "templates" / "NOTES.txt").read_text().strip() == '{{ include "flts.notes" . }}'


def test_notes_tell_the_next_three_commands(told: Any) -> None:
    notes = told()
    wait, test, forecast = commands(notes)
    assert f"job/{job_name()}" in wait
    assert "--timeout" in wait
    assert re.match(r"helm test flts --namespace default --timeout \d+m$", test)
    assert "http://localhost:30800/datasets/sample/tail" in forecast
    assert forecast.endswith("http://localhost:30080/predict")


def test_notes_are_about_this_configuration(told: Any) -> None:
    upload = commands(told(datasetName=""))
    assert "rollout status deployment/fastapi-app" in upload[0]
    assert "flts --url http://localhost:30800 upload NAME train.csv" in upload[1]
    assert "get secret flts-secrets" in upload[1]
    assert commands(told(datasetName="PobleSec"))[2].count("PobleSec") == 1
    moved = told(nodePorts__inference="31111", nodePorts__gateway="31112")
    assert "http://localhost:31111/predict" in commands(moved)[2]
    assert "http://localhost:31112/datasets" in commands(moved)[2]
    closed = told(nodePorts__inference="0", nodePorts__gateway="0")
    assert "port-forward service/fastapi-app 8000:8000" in closed
    assert "port-forward service/inference 8080:8000" in closed
    assert "http://localhost:8080/predict" in commands(closed)[2]
    assert "port-forward" not in told()
    outside = told(externalBackend__enabled="true", externalBackend__fastapi__gatewayUrl="http://gateway.example:8000")
    assert "http://gateway.example:8000/datasets" in commands(outside)[2]
    assert "the gateway at http://gateway.example:8000" in outside
    assert "Outside of the cluster" not in told()


def test_notes_say_which_volumes_stay(told: Any) -> None:
    def kept(notes: str) -> set[str]:
        return set(re.findall(r"(?m)^  (\w+)-data$", notes))

    assert kept(told()) == {"kafka", "minio", "postgres"}
    assert kept(told(*COMPLETE)) == {"kafka", "minio", "postgres", "prometheus", "grafana"}
    assert kept(told(kafka__persistence__enabled="false", postgres__enabled="false")) == {"minio"}


def test_notes_say_what_the_cluster_may_lack(told: Any) -> None:
    assert "no metrics-server" in told()
    assert "no metrics-server" not in told(services__inference__autoscaling__enabled="false")
    assert "kubelet-insecure-tls" in told()
    assert "if the cluster enforces them" in told()
    assert "if the cluster enforces them" not in told(networkPolicies__enabled="false")
    assert "kafka is switched off" in told(kafka__enabled="false")
    assert "is switched off" not in told()


def test_with_metrics_nobody_is_told_that_there_are_none(told: Any) -> None:
    del told
    answer = helm(require_helm(), *("template", "flts", str(CHART), "--kube-version", "1.34.0"))
    with_metrics = helm(
        require_helm(),
        *("template", "flts", str(CHART), "--kube-version", "1.34.0", "--api-versions", "metrics.k8s.io/v1beta1"),
    )
    assert "TRIAL_NOTE" in answer.stdout
    assert with_metrics.returncode == 0
    assert "TRIAL_NOTE" not in with_metrics.stdout


# ---- helm test


def test_helm_test_tries_the_installation_with_an_image_of_ours() -> None:
    [trial] = of_kind(render(), "Pod").values()
    one = container(trial)
    assert trial["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert one["image"].startswith("flts/gateway:")
    assert one["args"] == ["gateway_container.trial"]
    found = environment(trial)
    assert (found["GATEWAY_URL"], found["INFERENCE_URL"]) == ("http://fastapi-app:8000", "http://inference:8000")
    assert "GATEWAY_API_KEY" in found
    assert "no metrics-server" in (found["TRIAL_NOTE"] or "")
    assert not of_kind(render(services__inference__enabled="false"), "Pod")
