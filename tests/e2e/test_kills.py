"""A service is killed with SIGKILL in the middle of its work: the run still has one decision and a served forecast."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.eventually import eventually
from tests.stack import RunningStack
from tests.trainers import LONG_TYPES

pytestmark = pytest.mark.timeout(300)

MIDDLE = {
    "preprocess": "download_start",
    "train-gru": "epoch_done",
    "nonml-prophet": "train_start",
    "eval": "model_evaluate_start",
}
SHORT = ("train-gru",)
"""Services that `make test` kills here; `test_kill_places` kills one process of each service there."""


@pytest.mark.parametrize(
    "service", [pytest.param(name, marks=[] if name in SHORT else [pytest.mark.long]) for name in MIDDLE]
)
def test_a_service_killed_in_the_middle_of_its_work_is_made_up_for(
    stack: RunningStack, seasonal_file: Path, service: str
) -> None:
    identifier = f"kill-{service}"
    victim = stack.pid(service)
    run_id = stack.upload(identifier, seasonal_file, settings={"EPOCHS": 5, "EXTRA_HASH_SALT": service})

    eventually(lambda: in_the_middle(stack, service, run_id), f"{service} is at work", timeout=120, every=0.01)
    os.kill(victim, signal.SIGKILL)

    run = stack.wait_decided(run_id)
    assert stack.pid(service) != victim
    assert run["outcome"] == "promoted", run["decision"]
    assert len(stack.decisions(identifier, run_id)) == 1
    assert {run["trained"][kind]["status"] for kind in LONG_TYPES} == {"SUCCESS"}
    stack.wait_served(identifier, run["decision"]["run_id"])
    with stack.gateway as client:
        body = client.get(f"/datasets/{identifier}/tail").json()
    forecast = stack.predict(body | {"identifier": identifier, "inference_length": 3})
    assert forecast.status_code == 200, forecast.text
    assert len(forecast.json()["predictions"]) == 3


def in_the_middle(stack: RunningStack, service: str, run_id: str) -> list[dict[str, Any]]:
    events = stack.log_events(service, MIDDLE[service])
    return [record for record in events if record.get("pipeline_run_id") == run_id]
