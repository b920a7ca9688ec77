"""The chart, rendered without a cluster: every layering, every switch, and what must never change."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import flts
from tests.helm import (
    CHART,
    LAYERINGS,
    ROOT,
    SECRETS,
    Document,
    container,
    documents,
    environment,
    helm,
    helms,
    of_kind,
    pods,
    render,
    require_helm,
    template,
)
from tests.prometheus import program
from tools.chart import readers
from tools.images import IMAGES

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SPECS = yaml.safe_load((CHART / "config" / "workloads.yaml").read_text())
COMPLETE = LAYERINGS["complete"]
EVERY_HELM = pytest.mark.parametrize("binary", helms() or [pytest.param("", id="no-helm")])
EVERY_LAYERING = pytest.mark.parametrize("files", LAYERINGS.values(), ids=LAYERINGS)
ENTRIES = {
    # Entries of the values and the workloads that they switch.
    **{f"services.{spec['values']}": [name] for name, spec in SPECS.items() if spec.get("part")},
    **{
        entry: [name for name, spec in SPECS.items() if spec["values"] == entry and not spec.get("part")]
        for entry in ("kafka", "minio", "postgres", "mlflow", "prometheus", "grafana", "locust")
    },
}


# ---- Every values file, every Helm


@EVERY_HELM
@EVERY_LAYERING
def test_every_layering_passes_the_linter(binary: str, files: tuple[str, ...]) -> None:
    require_helm()
    values = [part for name in files for part in ("--values", str(CHART / name))]
    answer = helm(binary, "lint", "--strict", "--kube-version", "1.34.0", str(CHART), *values)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "0 chart(s) failed" in answer.stdout


@EVERY_LAYERING
def test_every_helm_renders_the_same(files: tuple[str, ...]) -> None:
    first = require_helm()
    answers = [template(binary, files) for binary in helms()]
    assert all(answer.returncode == 0 for answer in answers), [answer.stderr for answer in answers]
    [one, *others] = [sorted(documents(answer.stdout), key=str) for answer in answers]
    if not others:
        pytest.skip(f"only {first} is there: Helm 3 and 4 are not compared")
    assert all(other == one for other in others)


@EVERY_LAYERING
def test_the_cluster_would_accept_every_document(files: tuple[str, ...]) -> None:
    kubeconform = os.environ.get("FLTS_TEST_KUBECONFORM") or shutil.which("kubeconform")
    schemas = os.environ.get("FLTS_TEST_KUBE_SCHEMAS")
    if not kubeconform or not schemas:
        pytest.skip("no kubeconform, or FLTS_TEST_KUBE_SCHEMAS names no schemas: documents are not validated")
    answer = subprocess.run(
        [kubeconform, "-strict", "-summary", "-schema-location", schemas],
        input=template(require_helm(), files).stdout,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    found = re.search(r"Valid: (\d+), Invalid: 0, Errors: 0, Skipped: 0", answer.stdout)
    assert found is not None, answer.stdout
    assert int(found[1]) > 40


@pytest.mark.skipif(len(helms()) < 2, reason="FLTS_TEST_HELM and the PATH name fewer than two: only one is tested")
def test_helm_3_and_4_are_both_tested() -> None:
    versions = {helm(binary, "version", "--template", "{{.Version}}").stdout.lstrip("v")[0] for binary in helms()}
    assert versions == {"3", "4"}


def test_chart_and_project_have_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["name"], chart["version"], chart["appVersion"]) == ("flts", flts.__version__, flts.__version__)
    assert "dependencies" not in chart


# ---- Strict values


def objects(part: Any, path: str = "values") -> dict[str, Any]:
    """Every object of the schema, by where it stands."""
    if isinstance(part, list):
        return {key: found for at, each in enumerate(part) for key, found in objects(each, f"{path}[{at}]").items()}
    if not isinstance(part, dict):
        return {}
    own = {path: part} if part.get("type") == "object" else {}
    return own | {key: found for name, each in part.items() for key, found in objects(each, f"{path}.{name}").items()}


def test_no_object_of_the_schema_takes_any_key() -> None:
    found = objects(json.loads((CHART / "values.schema.json").read_text()))
    assert len(found) > 20
    for path, schema in found.items():
        if path == "values.properties.global":  # Helm's own, for charts of charts
            continue
        assert schema.get("additionalProperties") is False or "propertyNames" in schema, path


def test_values_and_schema_have_the_same_keys() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    def compare(values: Any, part: Any, path: str) -> None:
        if "$ref" in part:
            part = schema["definitions"][part["$ref"].rpartition("/")[2]]
        if "properties" in part and "required" in part and part["required"]:
            assert set(values) == set(part["required"]), path
            for name, value in values.items():
                compare(value, part["properties"][name], f"{path}.{name}")

    compare(VALUES, schema, "values")


@pytest.mark.parametrize(
    "key",
    [
        "servces.eval.enabled",
        "services.trainGRU.enabled",
        "services.eval.enabeld",
        "services.inference.autoscaling.maxReplica",
        "services.trainGru.env.EPOCH",
        "config.EPOCH",
        "externalBackend.kafka.bootstrapServer",
        "minio.persistance.size",
        "kafka.resources.limits.mem",
        "kafka.env.epochs",
        "nodePorts.fastapi",
    ],
)
def test_a_mistyped_key_is_refused_by_name(key: str) -> None:
    for binary in [require_helm(), *helms()[1:]]:
        answer = template(binary, sets={key: "true"})
        assert answer.returncode != 0
        assert any(f"'{name}'" in answer.stderr for name in key.split(".")), answer.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        "services.trainGru.enabled=sometimes",
        "services.eval.replicas=-1",
        "services.inference.autoscaling.maxReplicas=0",
        "nodePorts.inference=80",
        "kafka.persistence.size=lots",
        "minio.initJob.enabled=true",
        "images.pullPolicy=Sometimes",
        "externalBackend.minio.endpoint=minio:9000",
        "datasetName=../other",
        "services.eval.env.KAFKA_PORT=1",
        "config.AWS_SECRET_ACCESS_KEY=x",
        "services.fastapiApp.env.GATEWAY_API_KEY=x",
        "config.SERVICE_PORT=1234",
        "kafka.resources.limits.memory=plenty",
    ],
)
def test_a_value_that_makes_no_sense_is_refused(wrong: str) -> None:
    key, _, value = wrong.partition("=")
    answer = template(require_helm(), sets={key: value})
    assert answer.returncode != 0
    assert re.search(r"schema|values don't meet", answer.stderr)


def test_every_setting_may_be_chosen_and_reaches_its_readers_alone() -> None:
    known = json.loads((CHART / "values.schema.json").read_text())["definitions"]["settings"]["propertyNames"]["enum"]
    given = {f"config__{name}": "7" for name in known}
    found = pods(render(*COMPLETE, **given))
    for name, reads in readers().items():
        got = {key for key, value in environment(found[name]).items() if value == "7" and key in known}
        # A workload's own settings win, such as the model type's.
        assert got == set(reads) - set(SPECS.get(name, {}).get("env", {})), name


# ---- Switches


@pytest.mark.parametrize("entry", ENTRIES)
def test_what_is_switched_off_is_gone_and_nothing_else(entry: str) -> None:
    before = render(*COMPLETE)
    after = render(*COMPLETE, **{f"{entry.replace('.', '__')}__enabled": "false"})
    off = set(ENTRIES[entry])
    assert off

    def components(rendered: list[Document]) -> set[tuple[str, str]]:
        return {
            (each["kind"], each["metadata"]["name"])
            for each in rendered
            if each["metadata"]["labels"]["app.kubernetes.io/component"] in off
        }

    gone = {(each["kind"], each["metadata"]["name"]) for each in before} - {
        (each["kind"], each["metadata"]["name"]) for each in after
    }
    # Without inference there is nothing to try.
    assert gone - {("Pod", "flts-trial")} == components(before)
    assert not components(after)


@pytest.mark.parametrize("entry", ["prometheus", "grafana", "locust"])
def test_what_is_switched_on_is_there(entry: str) -> None:
    assert not set(ENTRIES[entry]) & set(pods(render()))
    assert set(ENTRIES[entry]) <= set(pods(render(**{f"{entry}__enabled": "true"})))


def test_the_job_can_be_switched_off_twice() -> None:
    assert of_kind(render(), "Job")
    assert not of_kind(render(datasetName=""), "Job")
    assert not of_kind(render(services__preprocessJob__enabled="false"), "Job")


def test_by_itself_it_has_all_that_a_forecast_takes() -> None:
    assert set(pods(render())) == {
        *("fastapi-app", "preprocess", "preprocess-job", "train-gru", "train-lstm", "nonml-prophet", "eval"),
        *("inference", "inference-worker", "kafka", "minio", "postgres", "mlflow", "trial"),
    }
    assert not VALUES["config"], "complete means complete: no sampling, the default epochs"


def test_complete_is_full_data_and_dev_is_small() -> None:
    complete, dev = pods(render(*COMPLETE)), pods(render(*LAYERINGS["complete-dev"]))
    assert set(complete) == set(SPECS) | {"preprocess-job", "trial"} == set(dev)
    sampled = {
        "SAMPLE_TRAIN_ROWS": "50",
        "SAMPLE_TEST_ROWS": "30",
        "SAMPLE_STRATEGY": "head",
        "SAMPLE_SEED": "45",
    }
    for name, pod in dev.items():
        found = environment(pod)
        assert not sampled.keys() & environment(complete[name]).keys()
        # Sampling is preprocess's; the gateway checks uploads against it.
        reads = name in {"preprocess", "preprocess-job", "fastapi-app"}
        assert {key: found[key] for key in sampled if key in found} == (sampled if reads else {}), name
    for name in ("train-gru", "train-lstm"):
        assert environment(dev[name])["EPOCHS"] == "5"
        assert "EPOCHS" not in environment(complete[name])
    assert "GATE_MIN_SKILL" not in environment(complete["eval"])


def test_eval_waits_for_the_trainers_that_are_installed() -> None:
    assert environment(pods(render())["eval"])["EXPECTED_MODEL_TYPES"] == "GRU,LSTM,PROPHET"
    fewer = pods(render(services__trainGru__enabled="false", services__nonmlProphet__enabled="false"))
    assert environment(fewer["eval"])["EXPECTED_MODEL_TYPES"] == "LSTM"


# ---- The Job's name, selectors, rollouts


def job_name(*files: str, **sets: str) -> str:
    [name] = of_kind(render(*files, **sets), "Job")
    return name


def test_the_same_job_keeps_its_name() -> None:
    assert re.fullmatch(r"preprocess-[0-9a-f]{10}", job_name())
    assert job_name() == job_name(*COMPLETE)
    # What it does not read.
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
    # A Job's pod cannot be changed: the same name over another pod would make an upgrade fail.
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
        ({"config__EPOCHS": "20"}, {"train-gru", "train-lstm", "fastapi-app"}),
        ({"config__GATE_MIN_SKILL": "0.1"}, {"eval"}),
        ({"config__PROPHET_OPTIMISER": "stan"}, {"nonml-prophet"}),
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
    assert (up["stabilizationWindowSeconds"], up["policies"]) == (
        0,
        [{"type": "Pods", "value": 4, "periodSeconds": 15}],
    )
    assert (down["stabilizationWindowSeconds"], down["policies"]) == (
        60,
        [{"type": "Pods", "value": 1, "periodSeconds": 60}],
    )
    inference = of_kind(rendered, "Deployment")["inference"]
    assert "replicas" not in inference["spec"]
    # What the percentage is of.
    assert container(inference["spec"]["template"])["resources"]["requests"]["cpu"] == "50m"


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
        # What a pod needs, it asks for itself, in a bounded time, and its last words say what failed.
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
    # What the cluster has wins over chance; a cluster to show it on is another test's.
    assert 'lookup "v1" "Secret"' in (CHART / "templates" / "_environment.tpl").read_text()


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
        # A finished pod with a claim would keep `helm uninstall --wait` waiting.
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


# ---- Reaching it


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
    assert allowed["kafka", "kafka"] == users
    for (name, _), clients in allowed.items():
        assert not SPECS[name].get("metrics") or clients is None or "prometheus" in clients
    assert not of_kind(render(networkPolicies__enabled="false"), "NetworkPolicy")


# ---- Backends outside

OUTSIDE = {
    "kafka.bootstrapServers": ("broker.example:9092", {"kafka"}, "KAFKA_BOOTSTRAP_SERVERS"),
    "minio.endpoint": ("http://store.example:9000", {"minio"}, "MLFLOW_S3_ENDPOINT_URL"),
    "mlflow.trackingUri": ("http://mlflow.example:5000", {"mlflow", "postgres"}, "MLFLOW_TRACKING_URI"),
    "fastapi.gatewayUrl": ("http://gateway.example:8000", {"fastapi-app"}, "GATEWAY_URL"),
}


@pytest.mark.parametrize("key", OUTSIDE)
def test_a_backend_outside_replaces_the_one_inside_for_all_who_read_it(key: str) -> None:
    address, replaced, variable = OUTSIDE[key]
    chosen = {f"externalBackend__{key.replace('.', '__')}": address}
    before = pods(render(*COMPLETE))
    assert pods(render(*COMPLETE, **chosen)) == before, "nothing changes until it is enabled"
    after = pods(render(*COMPLETE, externalBackend__enabled="true", **chosen))
    assert set(before) - set(after) == replaced
    readers_of_it = {name for name, pod in after.items() if variable in environment(pod)}
    assert readers_of_it == {name for name, reads in readers().items() if variable in reads} - replaced
    assert {environment(after[name])[variable] for name in readers_of_it} == {address}


def test_an_empty_address_stays_in_the_cluster() -> None:
    assert render(externalBackend__enabled="true") == render()


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
    assert [job["job_name"] for job in config["scrape_configs"]] == [
        job["job_name"] for job in compose["scrape_configs"]
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


def test_promtool_accepts_what_prometheus_is_given(tmp_path: Path) -> None:
    for name, text in of_kind(render(*COMPLETE), "ConfigMap")["prometheus-files"]["data"].items():
        (tmp_path / name).write_text(text)
    command = [program("promtool"), "check", "config", str(tmp_path / "prometheus.yml")]
    checked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "FAILED" not in checked.stdout + checked.stderr


# ---- NOTES


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return what NOTES.txt says: `helm template` leaves it out, so a copy of the chart has it in a document."""
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
