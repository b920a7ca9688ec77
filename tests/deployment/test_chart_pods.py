"""The chart's pods: rights, probes, secrets, volumes, ports and network policies."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

import flts
from tests.helm import (
    CHART,
    COMPLETE,
    LAYERINGS,
    ROOT,
    SECRETS,
    SPECS,
    VALUES,
    container,
    documents,
    environment,
    helm,
    helms,
    of_kind,
    pods,
    render,
    require_helm,
)
from tools.chart import readers
from tools.images import IMAGES

EVERY_LAYERING = pytest.mark.parametrize("files", LAYERINGS.values(), ids=LAYERINGS)

# ---- Pods


@EVERY_LAYERING
def test_every_pod_passes_the_restricted_profile(files: tuple[str, ...]) -> None:
    for name, pod in pods(render(*files)).items():
        spec, one = pod["spec"], container(pod)
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostAliases", "serviceAccountName"} & set(spec)
        assert not any("hostPort" in port for port in one.get("ports", []))
        for volume in spec.get("volumes", []):
            assert set(volume) - {"name"} <= {"emptyDir", "configMap", "persistentVolumeClaim"}


@EVERY_LAYERING
def test_nothing_waits_without_a_bound(files: tuple[str, ...]) -> None:
    rendered = render(*files)
    for name, pod in pods(rendered).items():
        # No init container waits for backends: a service checks them itself, within a time limit, and names a failure
        # in the pod's termination message.
        assert "initContainers" not in pod["spec"], name
        assert container(pod)["terminationMessagePolicy"] == "FallbackToLogsOnError"
        assert container(pod)["resources"]["limits"].keys() == {"cpu", "memory"}
    for job in of_kind(rendered, "Job").values():
        assert job["spec"]["activeDeadlineSeconds"] <= 3600
        assert job["spec"]["backoffLimit"] <= 10
        assert "ttlSecondsAfterFinished" not in job["spec"]
    for trial in of_kind(rendered, "Pod").values():
        assert trial["spec"]["activeDeadlineSeconds"] <= 1800
        assert trial["spec"]["restartPolicy"] == "Never"
    assert not of_kind(rendered, "ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")


@pytest.mark.parametrize("name", [name for name in SPECS if name != "locust-worker"])
def test_a_pod_is_asked_whether_it_lives_and_whether_it_can_work(name: str) -> None:
    one = container(pods(render(*COMPLETE))[name])
    ready, alive = one["readinessProbe"], one["livenessProbe"]
    asks = ("httpGet", "tcpSocket", "exec")
    if SPECS[name].get("part"):
        assert ready["httpGet"] == {"path": "/readyz", "port": "http"}
        assert alive["httpGet"] == {"path": "/healthz", "port": "http"}
    assert {key: one["startupProbe"].get(key) for key in asks} == {key: alive.get(key) for key in asks}
    assert one["startupProbe"]["periodSeconds"] * one["startupProbe"]["failureThreshold"] <= 300
    ports = {port["name"] for port in one["ports"]}
    for probe in (ready, alive):
        for ask in ("httpGet", "tcpSocket"):
            assert ask not in probe or probe[ask]["port"] in ports


def test_a_pod_that_ends_still_answers_until_nobody_is_sent_to_it() -> None:
    for name, pod in pods(render()).items():
        hook = container(pod).get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command")
        assert hook == (["sleep", "5"] if name in {"inference", "fastapi-app"} else None)
        assert pod["spec"]["terminationGracePeriodSeconds"] >= (40 if hook else 5)


def test_an_image_has_one_exact_tag() -> None:
    names = {image.name for image in IMAGES}
    for name, pod in pods(render(*COMPLETE)).items():
        image = container(pod)["image"]
        repository, _, tag = image.rpartition(":")
        assert re.search(r"\d", tag), name
        if repository.startswith("flts/"):
            assert repository.removeprefix("flts/") in names
            assert tag == flts.__version__
    assert container(pods(render(images__prefix="registry.example/"))["eval"])["image"] == "registry.example/eval:0.1.0"


# ---- Secrets


def test_secrets_lie_in_the_secret_and_nowhere_else() -> None:
    rendered = render(*COMPLETE, secrets__INFERENCE_API_KEY="forecast-key-of-the-test")
    given = {**SECRETS, "INFERENCE_API_KEY": "forecast-key-of-the-test"}
    [secret] = of_kind(rendered, "Secret").values()
    assert {name: base64.b64decode(value).decode() for name, value in secret["data"].items()} == given
    for document in rendered:
        if document["kind"] == "Secret":
            continue
        text = json.dumps(document)
        for value in given.values():
            assert value not in text
            assert base64.b64encode(value.encode()).decode() not in text


def test_a_pod_reads_the_secrets_that_compose_gives_it() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]
    for name, pod in pods(render(*COMPLETE)).items():
        if name == "trial":
            continue
        given = {
            key for key, value in compose[name].get("environment", {}).items() if ":?run `make env`}" in str(value)
        }
        assert {key for key, value in environment(pod).items() if value is None} == given, name


def test_secrets_are_made_at_random_and_outlive_the_release() -> None:
    binary = require_helm()
    made = []
    for _ in range(2):
        answer = helm(binary, "template", "flts", str(CHART), "--kube-version", "1.34.0")
        [secret] = of_kind(list(documents(answer.stdout)), "Secret").values()
        assert secret["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
        assert set(secret["data"]) == set(SECRETS)
        made.append({name: base64.b64decode(value).decode() for name, value in secret["data"].items()})
    for name in SECRETS:
        assert made[0][name] != made[1][name]
        assert name == "AWS_ACCESS_KEY_ID" or len(made[0][name]) >= 32


def test_what_the_cluster_has_wins_over_chance_and_what_is_given_over_both(tmp_path: Path) -> None:
    # Without a cluster `lookup` finds nothing, so the test puts the result of `lookup` into a copy of the chart.
    copy = tmp_path / "chart"
    shutil.copytree(CHART, copy)
    file = copy / "templates" / "_environment.tpl"
    there = {name: base64.b64encode(f"kept-{name}".encode()).decode() for name in SECRETS}
    del there["GRAFANA_ADMIN_PASSWORD"]  # simulates a Secret of an earlier chart version without this password
    asked = '(lookup "v1" "Secret" .Release.Namespace "flts-secrets")'
    assert file.read_text().count(asked) == 1
    file.write_text(file.read_text().replace(asked, f"(`{json.dumps({'data': there})}` | fromJson)"))

    answer = helm(
        require_helm(),
        *("template", "flts", str(copy), "--kube-version", "1.34.0", "--set", "secrets.POSTGRES_PASSWORD=given"),
    )

    assert answer.returncode == 0, answer.stderr
    [secret] = of_kind(list(documents(answer.stdout)), "Secret").values()
    found = {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
    assert found.pop("POSTGRES_PASSWORD") == "given"
    assert len(found.pop("GRAFANA_ADMIN_PASSWORD")) == 48
    assert found == {name: f"kept-{name}" for name in found}
    assert len(found) == 3


def test_templates_leave_the_values_as_they_are() -> None:
    # Helm stores the values with the release for `helm upgrade --reuse-values`. A template that sets a value would
    # change these stored values.
    for path in (CHART / "templates").rglob("*"):
        if path.is_file():
            assert not re.search(r"\bset \$?[\w.]*\.Values", path.read_text()), path.name


def test_one_rendering_has_one_random_secret() -> None:
    for binary in [require_helm(), *helms()[1:]]:
        answer = helm(binary, "template", "flts", str(CHART), "--kube-version", "1.34.0")
        rendered = list(documents(answer.stdout))
        [secret] = of_kind(rendered, "Secret").values()
        value = base64.b64decode(secret["data"]["POSTGRES_PASSWORD"]).decode()
        read = json.dumps({"POSTGRES_PASSWORD": value}, separators=(",", ":"))
        digest = hashlib.sha256(read.encode()).hexdigest()[:8]
        assert pods(rendered)["postgres"]["metadata"]["annotations"]["checksum/secrets"] == digest


def test_somebody_elses_secret_is_used_instead() -> None:
    rendered = render(secrets__existingSecret="ours")
    assert not of_kind(rendered, "Secret")
    names = {
        each["valueFrom"]["secretKeyRef"]["name"]
        for pod in pods(rendered).values()
        for each in container(pod).get("env", [])
        if "valueFrom" in each
    }
    assert names == {"ours"}


# ---- Data


def test_each_store_keeps_its_data_beyond_the_release_if_it_is_to() -> None:
    stores = [name for name, spec in SPECS.items() if "data" in spec]
    assert set(stores) == {"kafka", "minio", "postgres", "prometheus", "grafana"}
    claims = of_kind(render(*COMPLETE), "PersistentVolumeClaim")
    assert set(claims) == {f"{name}-data" for name in stores}
    for claim in claims.values():
        assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
        assert "storageClassName" not in claim["spec"], "the cluster's default class"
    for name in stores:
        rendered = render(*COMPLETE, **{f"{name}__persistence__size": "3Gi"})
        claim = of_kind(rendered, "PersistentVolumeClaim")[f"{name}-data"]
        assert claim["spec"]["resources"]["requests"]["storage"] == "3Gi"
        rendered = render(*COMPLETE, **{f"{name}__persistence__enabled": "false"})
        assert f"{name}-data" not in of_kind(rendered, "PersistentVolumeClaim")
        volumes = pods(rendered)[name]["spec"]["volumes"]
        assert [each for each in volumes if each["name"] == "data" and "emptyDir" in each]
    for pod in pods(render()).values():
        # `helm uninstall --wait` would wait for a finished pod that has a volume claim. So pods that finish have none.
        if pod["spec"].get("restartPolicy", "Always") != "Always":
            assert not any("persistentVolumeClaim" in each for each in pod["spec"]["volumes"])


def test_what_is_mounted_is_there() -> None:
    rendered = render(*COMPLETE)
    maps, claims = of_kind(rendered, "ConfigMap"), of_kind(rendered, "PersistentVolumeClaim")
    for name, pod in pods(rendered).items():
        volumes = {each["name"]: each for each in pod["spec"].get("volumes", [])}
        assert {each["name"] for each in container(pod).get("volumeMounts", [])} == set(volumes), name
        for each in volumes.values():
            assert "configMap" not in each or each["configMap"]["name"] in maps
            assert "persistentVolumeClaim" not in each or each["persistentVolumeClaim"]["claimName"] in claims


# ---- Ports, addresses and network policies


def test_people_reach_it_at_the_designs_ports() -> None:
    found = {
        (name, port["port"]): port["nodePort"]
        for name, service in of_kind(render(*COMPLETE), "Service").items()
        for port in service["spec"]["ports"]
        if "nodePort" in port
    }
    assert found == {
        ("inference", 8000): 30080,
        ("minio", 9000): 30900,
        ("minio", 9001): 30901,
        ("mlflow", 5000): 30500,
        ("fastapi-app", 8000): 30800,
        ("grafana", 3000): 30300,
        ("locust-master", 8089): 30089,
    }
    none = {f"nodePorts__{name}": "0" for name in VALUES["nodePorts"]}
    services = of_kind(render(*COMPLETE, **none), "Service")
    assert {service["spec"].get("type", "ClusterIP") for service in services.values()} == {"ClusterIP"}


def test_addresses_of_the_endpoints_are_services_of_the_chart() -> None:
    services = of_kind(render(), "Service")
    for line in (CHART / "config" / "endpoints.env").read_text().splitlines():
        if line and not line.startswith("#"):
            host, port = re.sub(r".*=(http://)?", "", line).split(":")
            assert int(port) in {each["port"] for each in services[host]["spec"]["ports"]}


def test_a_policy_lets_in_who_needs_to_and_nobody_else() -> None:
    rendered = render(*COMPLETE)
    policies = of_kind(rendered, "NetworkPolicy")
    assert policies["flts"]["spec"]["podSelector"]["matchLabels"] == {
        "app.kubernetes.io/name": "flts",
        "app.kubernetes.io/instance": "flts",
    }
    assert "ingress" not in policies["flts"]["spec"]
    allowed: dict[tuple[str, str], set[str] | None] = {}
    for name, policy in policies.items():
        assert policy["spec"]["policyTypes"] == ["Ingress"]
        for rule in policy["spec"].get("ingress", []):
            [port] = rule["ports"]
            [peer] = rule.get("from", [None])
            values = peer["podSelector"]["matchExpressions"][0]["values"] if peer else None
            allowed[name, port["port"]] = set(values) if values is not None else None
    assert set(allowed) == {
        (name, port["name"]) for name, pod in pods(rendered).items() for port in container(pod).get("ports", [])
    }
    anybody = {key for key, clients in allowed.items() if clients is None}
    assert anybody == {
        *(("fastapi-app", "http"), ("inference", "http"), ("minio", "s3"), ("minio", "console")),
        *(("mlflow", "http"), ("grafana", "http"), ("locust-master", "http")),
    }
    assert allowed["postgres", "postgres"] == {"mlflow"}
    assert allowed["prometheus", "http"] == {"grafana"}
    users = {name for name, reads in readers().items() if "KAFKA_BOOTSTRAP_SERVERS" in reads}
    assert allowed["kafka", "kafka"] == {*users, "kafka"}, "the broker reaches itself by its advertised address"
    for (name, _), clients in allowed.items():
        assert not SPECS[name].get("metrics") or clients is None or "prometheus" in clients
    assert not of_kind(render(networkPolicies__enabled="false"), "NetworkPolicy")
