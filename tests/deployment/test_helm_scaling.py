"""The autoscaler of inference under load goes from 2 replicas to at least 4 and back; the cluster's events prove it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.backends_away import Asker
from tests.cluster import Release, release
from tests.eventually import eventually
from tests.helm import ROOT
from tests.helm_pipeline import HelmPipeline
from tests.reports import report
from tools.release import Release as Installed
from tools.scaling import ScalingWatch, reasons_to_fail

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

FEWEST, ENOUGH, MOST = 2, 4, 6
"""Replicas; the chart's maximum of 20 exceeds the memory of a small machine."""
USERS, LOAD_SECONDS = 20, 150
PATIENT = ("--max-median-ms", "1000", "--max-p95-ms", "8000", "--upload-seconds", "60")
"""Wide latency limits: the test checks the autoscaler, and the load runs on the same machine."""
LIGHT_SECONDS = 1.0
"""Seconds between two requests of an `Asker` during the scale-in; so little load keeps no additional replica."""
BACK_SECONDS = 720
"""Timeout in seconds of the scale-in: one replica a minute, from a minute after the end of the load."""
SCALED = {"services": {"inference": {"autoscaling": {"maxReplicas": MOST}}}}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    with release("flts-test", tmp_path_factory.mktemp("helm"), SCALED) as made:
        made.install()
        stack = HelmPipeline(made)
        eventually(lambda: stack.champion("sample"), "the sample is served", timeout=600, every=1)
        eventually(lambda: len(ready(made)) == FEWEST, "the autoscaler is at rest", timeout=300, every=2)
        yield made


def ready(made: Release) -> list[str]:
    return [
        pod["metadata"]["name"]
        for pod in made.pods("inference")
        if {"type": "Ready", "status": "True"}.items() <= {**_condition(pod), "type": "Ready"}.items()
    ]


def _condition(pod: dict) -> dict:
    return next((each for each in pod["status"].get("conditions", []) if each["type"] == "Ready"), {})


def test_load_scales_inference_out_and_its_end_scales_it_back_without_a_lost_request(
    installed: Release, tmp_path: Path
) -> None:
    stack = HelmPipeline(installed)
    question, url = stack.question("sample"), stack.state["inference_url"]
    with ScalingWatch(Installed(installed.name)) as watch:
        load(installed.name, tmp_path, "--scale-to", str(ENOUGH))
        out = len(ready(installed))
        askers = [
            Asker(url, question, every_seconds=LIGHT_SECONDS, keep_alive=kept_alive) for kept_alive in (True, False)
        ]
        with ExitStack() as asking:
            for asker in askers:
                asking.enter_context(asker)
            eventually(lambda: len(ready(installed)) == FEWEST, "replicas go", timeout=BACK_SECONDS, every=5)

    summary = json.loads((tmp_path / "summary.json").read_text())
    report("helm-load", summary["entries"])
    report("helm-scaling", [vars(rescale) for rescale in watch.evidence.rescales])
    report("helm-scaling-looks", [vars(look) for look in watch.evidence.looks])
    report(
        "helm-scale-in",
        [
            {"connection": "kept" if asker.keep_alive else "new each time", "asked": asker.asked}
            | {"failed": len(asker.failures), "slowest s": asker.slowest_seconds}
            for asker in askers
        ],
    )
    assert reasons_to_fail(watch.evidence, ENOUGH, back_to=FEWEST) == []
    assert out >= ENOUGH
    for asker in askers:
        assert asker.asked > 0
        assert asker.failures == []


def test_without_its_events_a_load_test_does_not_pass(installed: Release, tmp_path: Path) -> None:
    # All requests succeed, but the autoscaler does not scale to the required 99 replicas, so the load test must fail.
    code, said = run_load(installed.name, tmp_path, "5s", "--users", "3", "--scale-to", "99")

    assert code == 1
    assert "load failed: no evidence" in said or "load failed: the autoscaler went to" in said


def load(namespace: str, folder: Path, *options: str) -> None:
    code, said = run_load(namespace, folder, f"{LOAD_SECONDS}s", "--users", str(USERS), *options)
    assert code == 0, said[-4000:]


def run_load(namespace: str, folder: Path, duration: str, *options: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "tools.load", "--target", "helm", "--namespace", namespace]
    command += ["--duration", duration, "--report", str(folder), *PATIENT, *options]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=LOAD_SECONDS + 330)
    return ended.returncode, ended.stdout + ended.stderr
