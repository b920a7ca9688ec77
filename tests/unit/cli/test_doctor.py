"""`flts doctor` without a pipeline, with missing or wrong settings, and beside an embedded pipeline."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cli.__main__ import main
from cli.doctor import MASKED, finding_lines
from embedded.ports import free_port
from flts.diagnosis import steps
from flts.diagnosis.steps import Finding
from flts.storage.filesystem import FilesystemStore
from tests.gateway import BUCKETS

Captured = pytest.CaptureFixture[str]
Environment = Callable[..., None]


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    import os  # noqa: PLC0415 - only this fixture uses os

    for name in list(os.environ):
        if name.startswith(("FLTS_", "GATEWAY_", "KAFKA_", "STORE", "MLFLOW_", "AWS_", "INFERENCE_", "NAMESPACE_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    bounded = steps._bounded
    monkeypatch.setattr(steps, "_bounded", lambda step: bounded(replace(step, seconds=60)))

    def given(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return given


def doctor(capsys: Captured) -> tuple[int, dict[str, Any]]:
    code = main(["doctor", "--json"])
    return code, json.loads(capsys.readouterr().out)


def of(answer: dict[str, Any], backend: str) -> list[tuple[str, str]]:
    return [(one["step"], one["status"]) for one in answer["findings"] if one["backend"] == backend]


def test_what_nobody_told_the_place_of_is_not_looked_at(environment: Environment, capsys: Captured) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    environment(FLTS_URL=nowhere, INFERENCE_URL=nowhere)

    code, answer = doctor(capsys)

    assert code == 1
    assert of(answer, "kafka") == of(answer, "store") == of(answer, "mlflow") == [("setting", "skipped")]
    assert of(answer, "gateway")[:3] == [("name", "ok"), ("tcp", "failed"), ("request", "skipped")]
    failures = [one for one in answer["findings"] if one["status"] == "failed"]
    assert all("make demo" in one["remedy"] for one in failures)
    assert not answer["embedded"]


def test_settings_come_from_the_environment_and_secrets_are_masked(
    environment: Environment, capsys: Captured, tmp_path: Path
) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    environment(
        FLTS_URL=f"http://{nowhere}",
        INFERENCE_URL=f"http://{nowhere}",
        KAFKA_BOOTSTRAP_SERVERS=nowhere,
        MLFLOW_TRACKING_URI=f"http://someone:hidden-password@{nowhere}",
        MLFLOW_S3_ENDPOINT_URL=f"http://{nowhere}",
        AWS_ACCESS_KEY_ID="flts",
        AWS_SECRET_ACCESS_KEY="a-very-secret-key",
        FLTS_API_KEY="another-secret-key",
    )

    code, answer = doctor(capsys)

    text = json.dumps(answer)
    assert code == 1
    assert not [word for word in ("hidden-password", "a-very-secret-key", "another-secret-key") if word in text]
    assert answer["settings"]["AWS_SECRET_ACCESS_KEY"] == {"value": MASKED, "from": "environment"}
    assert answer["settings"]["KAFKA_BOOTSTRAP_SERVERS"] == {"value": nowhere, "from": "environment"}
    assert answer["settings"]["AWS_DEFAULT_REGION"] == {"value": "us-east-1", "from": "default"}
    for backend in ("kafka", "store", "mlflow", "gateway", "inference"):
        assert of(answer, backend)[:2] == [("name", "ok"), ("tcp", "failed")]
        [failed] = [one for one in answer["findings"] if one["backend"] == backend and one["status"] == "failed"]
        assert failed["remedy"].startswith("nothing listens there")
    assert not list(tmp_path.iterdir()), "a look leaves nothing behind"


def test_a_wrong_setting_is_said_and_the_others_are_still_looked_at(environment: Environment, capsys: Captured) -> None:
    environment(
        STORE="s3", MLFLOW_S3_ENDPOINT_URL="http://127.0.0.1:1", KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}"
    )

    _, answer = doctor(capsys)

    [store] = [one for one in answer["findings"] if one["backend"] == "store"]
    assert store["status"] == "failed"
    assert "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY: required" in store["detail"]
    assert store["remedy"]
    assert of(answer, "kafka")[1] == ("tcp", "failed")


def test_beside_an_embedded_pipeline_its_addresses_are_found(
    environment: Environment, capsys: Captured, tmp_path: Path
) -> None:
    environment()
    home = tmp_path / ".flts"
    home.mkdir()
    nowhere = f"http://127.0.0.1:{free_port()}"
    state = {
        "gateway_url": nowhere,
        "inference_url": nowhere,
        "mlflow_url": nowhere,
        "kafka": nowhere.removeprefix("http://"),
        "store": "filesystem",
        "store_path": str(home / "store"),
    }
    (home / "embedded.json").write_text(json.dumps(state))
    store = FilesystemStore(home / "store")
    for bucket in BUCKETS:
        store.ensure_bucket(bucket)

    code, answer = doctor(capsys)

    assert code == 1
    assert answer["embedded"]
    assert {status for _, status in of(answer, "store")} == {"ok"}
    assert of(answer, "kafka")[:2] == [("name", "ok"), ("tcp", "failed")]
    [kafka] = [one for one in answer["findings"] if one["backend"] == "kafka" and one["status"] == "failed"]
    assert ".flts/logs/kafka.log" in kafka["remedy"]
    assert answer["settings"]["STORE_PATH"]["from"] == "embedded.json"


def test_an_empty_gateway_address_is_one_line(environment: Environment, capsys: Captured) -> None:
    environment(FLTS_URL="nonsense")

    code = main(["doctor"])

    assert code == 1
    assert "FLTS_URL" in capsys.readouterr().out


def test_each_failure_has_one_line_with_its_remedy() -> None:
    found = [
        Finding("kafka", "k:9092", "name", "ok", 1.2, "found"),
        Finding("kafka", "k:9092", "tcp", "failed", 3.4, "refused", "start it"),
    ]

    assert finding_lines(found)[-1] == "! kafka at k:9092, tcp: start it"
    assert finding_lines(found[:1])[-1] == "every backend that is known here answers"
