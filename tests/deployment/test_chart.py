"""The chart, rendered without a cluster: every layering, strict values, every switch."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic_core import PydanticUndefined

import flts
from flts.trainers import DEFAULT_MODEL_TYPES, Trainer
from tests.helm import (
    CHART,
    COMPLETE,
    EVERY_TRAINER,
    LAYERINGS,
    ROOT,
    SPECS,
    VALUES,
    Document,
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
from tests.trainers import INSTALLED, OFF
from tools.chart import readers
from tools.configuration import READERS
from tools.trainers import values_key

EVERY_HELM = pytest.mark.parametrize("binary", helms() or [pytest.param("", id="no-helm")])
EVERY_LAYERING = pytest.mark.parametrize("files", LAYERINGS.values(), ids=LAYERINGS)
ENTRIES = {
    # Each key is an entry of values.yaml. Its value lists the workloads that the entry enables.
    **{f"services.{spec['values']}": [name] for name, spec in SPECS.items() if spec.get("part")},
    **{
        entry: [name for name, spec in SPECS.items() if spec["values"] == entry and not spec.get("part")]
        for entry in ("kafka", "minio", "postgres", "mlflow", "prometheus", "grafana", "locust")
    },
}


# ---- Every combination of values files, with every version of Helm


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


# ---- The schema refuses unknown values


def objects(part: Any, path: str = "values") -> dict[str, Any]:
    """Return every object of the schema, by its path."""
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
        if path == "values.properties.global":  # Helm fills this property, so any key is allowed
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


def defaults() -> dict[str, str]:
    """Return the default of every setting as text, by its variable; a setting without a default has 7."""
    found = {}
    for name, path in READERS:
        if name in {"embedded mode", "make demo", "flts"}:
            continue
        module, _, class_name = path.partition(":")
        for field, info in getattr(importlib.import_module(module), class_name).model_fields.items():
            default = info.get_default()
            text = ",".join(default) if isinstance(default, tuple) else str(default)
            found[field.upper()] = "7" if default is None or default is PydanticUndefined else text
    return found


def test_every_setting_may_be_chosen_and_reaches_its_readers_alone(tmp_path: Path) -> None:
    known = json.loads((CHART / "values.schema.json").read_text())["definitions"]["settings"]["properties"]
    config = {name: value for name, value in defaults().items() if name in known}
    assert set(config) == set(known)
    (tmp_path / "values.yaml").write_text(yaml.safe_dump({"config": config}))
    every = {name.replace("__", "."): value for name, value in EVERY_TRAINER.items()}
    answer = template(require_helm(), (*COMPLETE, str(tmp_path / "values.yaml")), every)
    assert answer.returncode == 0, answer.stderr
    found = pods(list(documents(answer.stdout)))
    for name, reads in readers().items():
        assert environment(found[name]).keys() & known.keys() == set(reads), name
        given = {key: value for key, value in environment(found[name]).items() if key in reads}
        assert given == {key: config[key] for key in reads}, name


@pytest.mark.parametrize(
    "wrong",
    [
        *("EPOCHS=five", "EPOCHS=0", "EPOCHS=2.5", "SCALER=Standard", "LAGS_ENABLE=perhaps", "TRAIN_TEST_SPLIT=2"),
        *("NAMESPACE_PREFIX=a/b", "IDENTIFIER=../x", "LEARNING_RATE=fast", "SAMPLE_STRATEGY=tail", "LOG_LEVEL=loud"),
    ],
)
def test_a_setting_that_no_service_would_accept_is_refused(wrong: str) -> None:
    name, _, value = wrong.partition("=")
    for place in ("config", "services.fastapiApp.env", "services.inference.env"):
        answer = template(require_helm(), sets={f"{place}.{name}": value})
        assert answer.returncode != 0
        assert name in answer.stderr


@pytest.mark.parametrize(
    "right",
    [
        *(
            "EPOCHS=5",
            "LEARNING_RATE=1e-4",
            "LAGS_ENABLE=1",
            "LAGS_ENABLE=false",
            "TARGETS=down",
            "TARGETS=",
            "SCALER=",
        ),
        *("GATE_MIN_SKILL=-0.5", "EXTRA_HASH_SALT=v2", "IDENTIFIER=", "MAX_UPLOAD_BYTES=1073741824", "SEED=42"),
    ],
)
def test_a_setting_reaches_its_readers_as_it_was_written(right: str, tmp_path: Path) -> None:
    name, _, value = right.partition("=")
    reader = next(workload for workload, reads in readers().items() if name in reads)
    # The test writes the value first without quotes, where YAML may parse a number or a boolean, and then with quotes.
    # Both must reach the program that reads the setting as the same text.
    for text in (value or '""', f'"{value}"'):
        (tmp_path / "values.yaml").write_text(f"config: {{{name}: {text}}}\n")
        answer = template(require_helm(), (str(tmp_path / "values.yaml"),))
        assert answer.returncode == 0, answer.stderr
        found = environment(pods(list(documents(answer.stdout)))[reader])[name]
        assert found is not None
        assert found == value or float(found) == float(value)


def test_the_documents_name_keys_that_there_are() -> None:
    known = json.loads((CHART / "values.schema.json").read_text())["definitions"]["settings"]["properties"]
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    for name in re.findall(r"(?:config|env)\.([A-Z][A-Z_]+[A-Z])\b", text):
        assert name in known
    for path in re.findall(r"`((?:services|externalBackend|images|minio)(?:\.\w+)+)`", text):
        part: Any = VALUES
        for key in path.split("."):
            if not key.isupper():
                part = part[key]


def leaves(values: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield path and last name of every value."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", key


def marked(path: str, key: str, number: int) -> tuple[str, str, str] | None:
    """Return path, unique value and the line that the chart must render for it; None for other kinds of values."""
    if path.startswith("nodePorts."):
        return path, str(31_000 + number), f"nodePort: {31_000 + number}\n"
    if key == "env":
        # For FLTS services the chart accepts only known settings in `env`. For other images it accepts any variable.
        name = "EXTRA_HASH_SALT" if path.startswith("services.") else "SENTINEL"
        return f"{path}.{name}", f"sentinel-{number}", f"value: sentinel-{number}\n"
    units = {"cpu": ("m", "cpu: "), "memory": ("Mi", "memory: "), "size": ("Gi", "storage: ")}
    if key in units:
        unit, before = units[key]
        return path, f"{number}{unit}", f"{before}{number}{unit}\n"
    if key == "image":
        return path, f"sentinel-{number}:1", f"image: sentinel-{number}:1\n"
    if key in {"replicas", "workers"}:
        return path, str(number), f"replicas: {number}\n"
    return None


def test_every_value_is_used() -> None:
    found = list(leaves(VALUES))
    # The schema allows at most 100, so their marks start at 31.
    few = [each for each in found if each[1] in {"replicas", "workers"}]
    numbered = [
        *enumerate(few, 31),
        *enumerate((each for each in found if each not in few), 101),
    ]
    chosen = [mark for number, (path, key) in numbered if (mark := marked(path, key, number)) is not None]
    given = {path.replace(".", "__"): value for path, value, _ in chosen}
    # The chart uses `replicas` of inference only if the autoscaler is off, so the test switches it off.
    given["services__inference__autoscaling__enabled"] = "false"
    given |= EVERY_TRAINER

    text = yaml.safe_dump_all(render(*COMPLETE, **given), width=1000)

    assert len(chosen) > 90
    assert not [path for path, _, line in chosen if line not in text]


# ---- Parts of the pipeline that are switched off or on


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
    # The trial Pod of `helm test` needs a forecast. So the chart leaves it out, too, when inference is switched off.
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
        *("fastapi-app", "preprocess", "preprocess-job", *INSTALLED, "eval"),
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
        # Only these workloads read the settings of sampling. The gateway (fastapi-app) checks the number of rows.
        reads = name in {"preprocess", "preprocess-job", "fastapi-app"}
        assert {key: found[key] for key in sampled if key in found} == (sampled if reads else {}), name
    for name in ("train-gru", "train-lstm"):
        assert environment(dev[name])["EPOCHS"] == "5"
        assert "EPOCHS" not in environment(complete[name])
    assert "GATE_MIN_SKILL" not in environment(complete["eval"])


def test_eval_waits_for_the_trainers_that_are_installed() -> None:
    assert environment(pods(render())["eval"])["EXPECTED_MODEL_TYPES"] == ",".join(sorted(DEFAULT_MODEL_TYPES))
    fewer = pods(render(services__trainGru__enabled="false", services__nonmlProphet__enabled="false"))
    assert environment(fewer["eval"])["EXPECTED_MODEL_TYPES"] == "LINEAR,LSTM,THETA"


@pytest.mark.parametrize("trainer", OFF, ids=lambda trainer: trainer.model_type)
def test_a_trainer_that_is_off_can_be_asked_for(trainer: Trainer) -> None:
    found = pods(render(**{f"services__{values_key(trainer)}__enabled": "true"}))
    assert set(found) == {*pods(render()), trainer.deployment}
    assert environment(found[trainer.deployment])["MODEL_TYPE"] == trainer.model_type
    assert set(environment(found["eval"])["EXPECTED_MODEL_TYPES"].split(",")) == {
        *DEFAULT_MODEL_TYPES,
        trainer.model_type,
    }


# ---- External backends

OUTSIDE = {
    "kafka.bootstrapServers": ("broker.example:9092", {"kafka"}, "KAFKA_BOOTSTRAP_SERVERS"),
    "minio.endpoint": ("http://store.example:9000", {"minio"}, "MLFLOW_S3_ENDPOINT_URL"),
    "mlflow.trackingUri": ("http://mlflow.example:5000", {"mlflow", "postgres"}, "MLFLOW_TRACKING_URI"),
    "fastapi.gatewayUrl": ("http://gateway.example:8000", {"fastapi-app"}, "GATEWAY_URL"),
}


@pytest.mark.parametrize("key", OUTSIDE)
def test_a_backend_outside_replaces_the_one_inside_for_all_who_read_it(key: str) -> None:
    address, replaced, variable = OUTSIDE[key]
    chosen = {f"externalBackend__{key.replace('.', '__')}": address, **EVERY_TRAINER}
    before = pods(render(*COMPLETE, **EVERY_TRAINER))
    assert pods(render(*COMPLETE, **chosen)) == before, "nothing changes until it is enabled"
    after = pods(render(*COMPLETE, externalBackend__enabled="true", **chosen))
    assert set(before) - set(after) == replaced
    readers_of_it = {name for name, pod in after.items() if variable in environment(pod)}
    assert readers_of_it == {name for name, reads in readers().items() if variable in reads} - replaced
    assert {environment(after[name])[variable] for name in readers_of_it} == {address}


def test_an_empty_address_stays_in_the_cluster() -> None:
    assert render(externalBackend__enabled="true") == render()
