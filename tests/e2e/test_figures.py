"""Resources for the real LTE measurements: seconds from the upload to the served forecast, and memory."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.eventually import eventually
from tests.pipeline import Pipeline
from tests.reports import report
from tests.stack import now
from train_container.domain.direct.plan import CHOSEN

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

DEFAULTS = {name.upper(): CHOSEN[name] for name in ("hidden_size", "num_layers", "batch_size")} | {"EPOCHS": 8}
"""The training of networks by default, 8 passes of 125 steps; the shared pipeline of the tests has smaller values."""
SERVED_SECONDS = 90.0
RETRIED = "train_retry_defer"
SAMPLE_SECONDS = 2.0


def test_the_real_measurements_are_served_in_time_and_every_memory_limit_holds(
    stack: Pipeline, poblesec: tuple[Path, Path]
) -> None:
    before = {row["program"]: row["bytes"] for row in stack.memory()}
    peaks = dict(before)
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            for row in stack.memory():
                peaks[row["program"]] = max(peaks.get(row["program"], 0), row["bytes"])

    sampling = threading.Thread(target=sample)
    sampling.start()
    try:
        began = now()
        run_id = stack.upload("poblesec", *poblesec, settings=DEFAULTS)
        run = stack.wait_decided(run_id, timeout=600)
        decided = now() - began
        assert run["outcome"] == "promoted", run["decision"]
        stack.wait_served("poblesec", run["decision"]["run_id"], timeout=60)
        served = now() - began
        run = eventually(lambda: all_done(stack.run(run_id)), "every stage is done", timeout=60)
    finally:
        ended.set()
        sampling.join()

    stages = [{name: stage.get(name) for name in ("stage", "status", "seconds")} for stage in run["stages"]]
    report("poblesec-stages", stages)
    report("poblesec", [{"decided s": decided, "served s": served, "champion": run["decision"]["model_type"]}])
    rows = stack.memory()
    limits = {row["program"]: row["limit"] for row in rows}
    requests = {row["program"]: row.get("request") for row in rows}
    megabyte = 2**20
    report(
        "memory",
        [
            {
                "program": name,
                "request MiB": requests[name] / megabyte if requests.get(name) else None,
                "idle MiB": before.get(name, 0) / megabyte,
                "peak MiB": peak / megabyte,
                "limit MiB": limits[name] / megabyte if limits.get(name) else None,
            }
            for name, peak in sorted(peaks.items())
        ],
    )
    failed = [event for event in stack.log_events("nonml-baseline", RETRIED) if event["pipeline_run_id"] == run_id]
    assert failed == [], "no run waits for the baselines, so the decision does not show their failure"
    assert served <= SERVED_SECONDS
    assert all(peak < limits[name] for name, peak in peaks.items() if limits.get(name))


def all_done(run: dict[str, Any]) -> dict[str, Any] | None:
    return run if all(stage["status"] == "done" for stage in run["stages"]) else None
