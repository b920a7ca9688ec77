from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tools import chart


def test_what_is_written_is_what_is_there() -> None:
    assert all(path.read_bytes() == content for path, content in chart.files().items())


def test_a_pod_is_given_what_its_settings_class_reads_but_no_secret_and_nothing_of_the_charts_own() -> None:
    found = chart.readers()

    assert {"EPOCHS", "KAFKA_BOOTSTRAP_SERVERS", "MLFLOW_TRACKING_URI"} <= set(found["train-gru"])
    assert found["train-gru"] == found["train-lstm"]
    assert "EPOCHS" not in found["eval"]
    assert "GATE_MIN_SKILL" in found["eval"]
    everything = set().union(*found.values())
    assert not everything & chart.NOT_CHOSEN
    assert not {"AWS_SECRET_ACCESS_KEY", "GATEWAY_API_KEY", "INFERENCE_API_KEY"} & everything


def test_no_value_of_a_setting_is_listed_twice() -> None:
    # Helm refuses a chart whose schema has an enum with two equal items.
    settings = json.loads(chart.SCHEMA.read_text())["definitions"]["settings"]["properties"]
    choices = {name: [json.dumps(value) for value in one["enum"]] for name, one in settings.items() if "enum" in one}

    assert len(choices) > 10
    assert [name for name, values in choices.items() if len(set(values)) < len(values)] == []


def test_a_copy_that_is_stale_or_left_over_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(chart, "ROOT", tmp_path)
    monkeypatch.setattr(chart, "CHART", tmp_path / ".helm")
    fresh, stale = tmp_path / ".helm" / "files" / "s3" / "start.sh", tmp_path / ".helm" / "files" / "s3" / "healthy.sh"
    left = tmp_path / ".helm" / "files" / "grafana" / "old.json"
    monkeypatch.setattr(chart, "files", lambda: {fresh: b"start", stale: b"healthy"})
    monkeypatch.setattr(sys, "argv", ["chart"])
    assert chart.main() == 0
    monkeypatch.setattr(sys, "argv", ["chart", "--check"])
    assert chart.main() == 0

    stale.write_text("another")
    left.parent.mkdir()
    left.write_text("{}")
    assert chart.main() == 1
    assert capsys.readouterr().out.splitlines() == [
        ".helm/files/grafana/old.json is stale: make generate",
        ".helm/files/s3/healthy.sh is stale: make generate",
    ]

    monkeypatch.setattr(sys, "argv", ["chart"])
    assert chart.main() == 0
    assert (stale.read_bytes(), left.exists()) == (b"healthy", False)


def test_the_table_has_every_key_with_its_default_and_its_meaning() -> None:
    text = chart.document()

    assert '| `datasetName` | `"sample"` | Data set that a run is started on' in text
    assert "| `nodePorts.inference` | `30080` | For forecasts. |" in text
    assert '| `minio.persistence.size` | `"20Gi"` | Size of the claim' in text
    values = json.loads((chart.SCHEMA).read_text())["properties"]
    assert all(f"| `{key}" in text for key in values if key != "global")
