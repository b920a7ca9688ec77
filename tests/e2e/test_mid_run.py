"""Every program and every backend is killed in the middle of a run: one promotion, and forecasts never stop."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from flts.errors import BackendAwayError
from tests.backends_away import Asker
from tests.eventually import eventually
from tests.pipeline import Pipeline
from tests.reports import report

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

BACKENDS = ("kafka", "mlflow", "minio", "postgres")
PROGRAMS = (
    *("fastapi-app", "preprocess", "train-gru", "train-lstm", "nonml-prophet", "eval"),
    *("inference", "inference-worker"),
)
DECIDED_SECONDS = 300


@pytest.fixture(scope="module")
def question(stack: Pipeline, sample: tuple[Path, Path]) -> dict[str, Any]:
    """A champion that is asked all the time, and what it is asked."""
    run = stack.wait_decided(stack.upload("steady", *sample), timeout=DECIDED_SECONDS)
    assert run["outcome"] == "promoted", run["decision"]
    stack.wait_served("steady", run["decision"]["run_id"], timeout=60)
    with stack.gateway as client:
        tail = client.get("/datasets/steady/tail", params={"rows": 50}).json()
    return {**tail, "identifier": "steady", "inference_length": 6}


@pytest.mark.parametrize("victim", [*PROGRAMS, *BACKENDS])
def test_a_run_survives_the_death_of_anything_in_its_middle(
    stack: Pipeline, sample: tuple[Path, Path], question: dict[str, Any], victim: str
) -> None:
    if victim not in {*stack.state["health"], *stack.backends}:
        pytest.skip(f"{victim} is no process of this target")
    if victim == "inference" and stack.replicas == 1:
        pytest.skip("the only replica of this target: its forecasts stop while it starts again")
    identifier = f"death-of-{victim}"
    asked = Asker(stack.state["inference_url"], question)
    with asked:
        run_id = stack.upload(identifier, *sample, settings={"EPOCHS": 8, "EXTRA_HASH_SALT": identifier})
        eventually(lambda: in_training(stack.run(run_id)), "training has begun", timeout=120, every=0.1)
        killed = time.monotonic()

        stack.kill(victim)

        eventually(lambda: ended(stack, identifier, run_id), "the run ends", timeout=DECIDED_SECONDS, every=0.5)
        decided = time.monotonic()
    run = eventually(lambda: answered(stack, run_id), "the gateway answers", timeout=90)
    report(
        f"death-of-{victim}",
        [
            {
                "killed": victim,
                "outcome": run["outcome"],
                "decided after s": decided - killed,
                "forecasts": asked.asked,
                "failed": len(asked.failures),
                "slowest s": asked.slowest_seconds,
            }
        ],
    )
    assert run["outcome"] == "promoted", run["decision"]
    assert {each["status"] for each in run["trained"].values()} == {"SUCCESS"}
    assert len(stack.decisions(identifier, run_id)) == 1
    assert asked.failures == []
    assert asked.asked > 0
    stack.wait_served(identifier, run["decision"]["run_id"], timeout=90)


def in_training(run: dict[str, Any]) -> bool:
    return any(stage["stage"].startswith("train-") for stage in run["stages"])


def ended(stack: Pipeline, identifier: str, run_id: str) -> dict[str, Any] | None:
    try:
        return stack.runs.outcome(identifier, run_id)
    except BackendAwayError:
        return None


def answered(stack: Pipeline, run_id: str) -> dict[str, Any] | None:
    try:
        return stack.run(run_id)
    except (httpx.HTTPError, AssertionError):
        return None
