"""The effects of an upgrade of the chart on the Job's name, the selectors, the pods and the replicas."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.helm import (
    CHART,
    COMPLETE,
    container,
    documents,
    job_name,
    of_kind,
    pods,
    render,
    require_helm,
    template,
)

# ---- The Job's name, selectors, rollouts


def test_the_same_job_keeps_its_name() -> None:
    assert re.fullmatch(r"preprocess-[0-9a-f]{10}", job_name())
    assert job_name() == job_name(*COMPLETE)
    # The Job does not read these settings, so the name of the Job must not change.
    for same in (
        {"config__EPOCHS": "20"},
        {"config__GATE_MIN_SKILL": "0.5"},
        {"services__trainGru__replicas": "3"},
        {"secrets__GATEWAY_API_KEY": "another-key-of-the-test"},
        {"secrets__AWS_SECRET_ACCESS_KEY": "another-key-of-the-test"},
        {"nodePorts__inference": "0"},
    ):
        assert job_name(**same) == job_name(), same


def test_another_job_has_another_name() -> None:
    changes = (
        {},
        {"datasetName": "PobleSec"},
        {"config__SAMPLE_SEED": "45"},
        {"config__SCALER": "StandardScaler"},
        {"config__LAGS_ENABLE": "true"},
        {"config__INPUT_SEQ_LEN": "20"},
        {"config__EXTRA_HASH_SALT": "v2"},
        {"config__EXTRA_HASH_SALT": "v3"},
        {"images__tag": "0.1.1"},
        {"images__prefix": "registry.example/flts/"},
        {"services__preprocessJob__image": "flts/preprocess:mine"},
        {"services__preprocessJob__env__TARGETS": "load"},
        {"services__preprocessJob__resources__limits__memory": "512Mi"},
    )
    names = [job_name(**change) for change in changes]
    assert len(set(names)) == len(names)


def test_only_a_change_of_the_pod_gives_a_job_another_name() -> None:
    # The pod template of a Job is immutable, so a Job with a changed template needs a new name.
    found: dict[str, str] = {}
    for change in (
        {},
        {"images__pullPolicy": "Never"},
        {"config__LOG_LEVEL": "DEBUG"},
        {"images__pullSecrets[0]": "a"},
    ):
        [(name, job)] = of_kind(render(**change), "Job").items()
        pod = json.dumps(job["spec"]["template"])
        assert found.setdefault(name, pod) == pod
    assert len(found) == 4


def test_selectors_never_change(tmp_path: Path) -> None:
    copy = tmp_path / "chart"
    shutil.copytree(CHART, copy)
    (copy / "Chart.yaml").write_text((CHART / "Chart.yaml").read_text().replace("0.1.0", "9.9.9"))
    answer = template(require_helm(), COMPLETE, {"images.tag": "other", "config.EPOCHS": "3"}, chart=copy)
    assert answer.returncode == 0, answer.stderr
    for rendered in (render(*COMPLETE), list(documents(answer.stdout))):
        for kind in ("Deployment", "StatefulSet"):
            for name, document in of_kind(rendered, kind).items():
                selector = {
                    "app.kubernetes.io/name": "flts",
                    "app.kubernetes.io/instance": "flts",
                    "app.kubernetes.io/component": name,
                }
                assert document["spec"]["selector"] == {"matchLabels": selector}
                assert document["spec"]["template"]["metadata"]["labels"] == selector
        for service in of_kind(rendered, "Service").values():
            assert service["spec"]["selector"] in [
                pod["metadata"]["labels"] for name, pod in pods(rendered).items() if name != "trial"
            ]


@pytest.mark.parametrize(
    ("change", "rolled"),
    [
        ({"config__EPOCHS": "20"}, {"train-gru", "train-lstm"}),
        ({"config__GATE_MIN_SKILL": "0.1"}, {"eval"}),
        ({"config__PROPHET_OPTIMISER": "stan"}, {"nonml-prophet", "nonml-baseline"}),
        ({"config__MAX_HORIZON_STEPS": "100"}, {"inference"}),
        ({"config__SAMPLE_TRAIN_ROWS": "50"}, {"preprocess", "preprocess-job", "fastapi-app"}),
        ({"services__trainLstm__env__EPOCHS": "3"}, {"train-lstm"}),
        ({"services__trainGru__enabled": "false"}, {"train-gru", "eval", "prometheus"}),
        ({"services__inference__autoscaling__maxReplicas": "5"}, {"prometheus"}),
        ({"secrets__POSTGRES_PASSWORD": "another-one-of-the-test"}, {"postgres", "mlflow"}),
        ({"secrets__GRAFANA_ADMIN_PASSWORD": "another-one-of-the-test"}, {"grafana"}),
        (
            {"secrets__GATEWAY_API_KEY": "another-one-of-the-test"},
            {"fastapi-app", "locust-master", "locust-worker"},
        ),
        ({"kafka__env__KAFKA_HEAP_OPTS": "-Xmx1g"}, {"kafka"}),
        ({"services__eval__replicas": "2"}, set()),
    ],
    ids=lambda case: "-".join(case) if isinstance(case, dict) else "",
)
def test_a_changed_value_rolls_exactly_the_pods_that_read_it(change: dict[str, str], rolled: set[str]) -> None:
    before, after = pods(render(*COMPLETE)), pods(render(*COMPLETE, **change))
    assert {name for name in before if before[name] != after.get(name)} - {"trial"} == rolled


# ---- Scaling


def test_the_autoscaler_is_the_designs_and_owns_the_replicas() -> None:
    rendered = render()
    [(name, scaler)] = of_kind(rendered, "HorizontalPodAutoscaler").items()
    spec = scaler["spec"]
    assert name == spec["scaleTargetRef"]["name"] == "inference"
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 20)
    assert [each["resource"]["target"]["averageUtilization"] for each in spec["metrics"]] == [70]
    up, down = spec["behavior"]["scaleUp"], spec["behavior"]["scaleDown"]
    # The chart scales up after 30 s, although the design names no delay: each replica uses a second of CPU to load a
    # new champion, and this second must not count as load.
    assert (up["stabilizationWindowSeconds"], up["policies"]) == (
        30,
        [{"type": "Pods", "value": 4, "periodSeconds": 15}],
    )
    assert (down["stabilizationWindowSeconds"], down["policies"]) == (
        60,
        [{"type": "Pods", "value": 1, "periodSeconds": 60}],
    )
    inference = of_kind(rendered, "Deployment")["inference"]
    assert "replicas" not in inference["spec"]
    # The autoscaler's target of 70 % is a share of this CPU request.
    assert container(inference["spec"]["template"])["resources"]["requests"]["cpu"] == "50m"


def test_on_a_full_node_replicas_of_inference_make_room_one_at_a_time() -> None:
    rendered = render()
    [(name, lower)] = of_kind(rendered, "PriorityClass").items()
    [(_, budget)] = of_kind(rendered, "PodDisruptionBudget").items()
    classes = {name: pod["spec"].get("priorityClassName") for name, pod in pods(rendered).items()}

    assert (lower["value"], lower["preemptionPolicy"]) == (-1, "Never")
    assert {each for each, chosen in classes.items() if chosen == name} == {"inference"}
    assert {each for each, chosen in classes.items() if chosen is None} == set(classes) - {"inference"}
    labels = pods(rendered)["inference"]["metadata"]["labels"]
    assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert budget["spec"]["maxUnavailable"] == 1

    without = render(priorityClass__enabled="false")
    assert not of_kind(without, "PriorityClass")
    assert not any("priorityClassName" in pod["spec"] for pod in pods(without).values())


def test_without_the_autoscaler_the_replicas_are_the_values() -> None:
    rendered = render(services__inference__autoscaling__enabled="false", services__inference__replicas="3")
    assert not of_kind(rendered, "HorizontalPodAutoscaler")
    assert of_kind(rendered, "Deployment")["inference"]["spec"]["replicas"] == 3


def test_every_other_workload_says_how_many_it_has() -> None:
    for name, document in of_kind(render(*COMPLETE, services__eval__replicas="0"), "Deployment", "StatefulSet").items():
        if name != "inference":
            wanted = {"locust-worker": 2, "eval": 0}
            assert document["spec"]["replicas"] == wanted.get(name, 1), name


def quantity(text: str) -> float:
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text)).groups()  # type: ignore[union-attr]
    return float(number) * {"": 1, "m": 0.001, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}[unit]


def test_all_requests_fit_a_laptop() -> None:
    replicas = {"inference": 4, "locust-worker": 2, "trial": 0}
    total = {"cpu": 0.0, "memory": 0.0}
    for name, pod in pods(render(*COMPLETE)).items():
        for resource in total:
            requested = quantity(container(pod)["resources"]["requests"][resource])
            assert requested <= quantity(container(pod)["resources"]["limits"][resource])
            total[resource] += replicas.get(name, 1) * requested
    assert total["cpu"] <= 1.5
    assert total["memory"] <= 4e9
