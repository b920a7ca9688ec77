"""`tools.load`: the load test passes on a pipeline that answers, and fails with its reason otherwise."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.reports import report
from tests.stack import ROOT, RunningStack

pytestmark = [pytest.mark.long, pytest.mark.timeout(500)]

PATIENT = ("--max-median-ms", "1000", "--max-p95-ms", "8000")
"""Wide latency limits: the test checks the load test itself, and other tests use the cores at the same time."""


def load(home: Path, folder: Path, *options: str) -> tuple[int, str, dict[str, Any]]:
    command = [sys.executable, "-m", "tools.load", "--home", str(home), "--report", str(folder), *options]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=400)
    summary = folder / "summary.json"
    return ended.returncode, ended.stdout + ended.stderr, json.loads(summary.read_text()) if summary.exists() else {}


def test_ten_seconds_of_load_pass_with_evidence_of_every_journey(
    stack: RunningStack, swinging: tuple[Path, Path], tmp_path: Path
) -> None:
    run = stack.wait_decided(stack.upload("under-load", *swinging))
    stack.wait_served("under-load", run["decision"]["run_id"])

    code, said, summary = load(stack.home, tmp_path, "--users", "6", "--duration", "10s", *PATIENT)

    report("load", summary.get("entries", []))
    assert code == 0, said
    assert summary["passed"]
    assert summary["reasons"] == []
    counted = {entry["name"]: entry["requests"] for entry in summary["entries"]}
    assert counted["POST /predict"] > 20
    assert counted["upload to decision"] >= 1
    assert summary["metrics"]['flts_predictions_total{outcome="success"}'] >= 0.8 * counted["POST /predict"]
    assert (tmp_path / "load_stats.csv").exists()


def test_a_threshold_that_is_passed_ends_the_run_with_1_and_the_reason(stack: RunningStack, tmp_path: Path) -> None:
    code, said, summary = load(stack.home, tmp_path, "--users", "4", "--duration", "5s", "--max-median-ms", "0.001")

    assert code == 1
    assert not summary["passed"]
    assert any("median of POST /predict" in reason for reason in summary["reasons"])
    assert "load failed: median of POST /predict" in said


def test_without_a_pipeline_there_is_no_load_and_the_reason_says_what_to_do(tmp_path: Path) -> None:
    code, said, _ = load(tmp_path, tmp_path / "report")

    assert code == 2
    assert "make embedded" in said
