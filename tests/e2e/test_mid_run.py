"""Each program and backend is killed or evicted in the middle of a run: one promotion, and forecasts continue."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from flts.errors import BackendAwayError
from tests.backends_away import Asker
from tests.eventually import eventually
from tests.pipeline import Pipeline
from tests.reports import report
from tests.trainers import INSTALLED

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

BACKENDS = ("kafka", "mlflow", "minio", "postgres")
PROGRAMS = (*("fastapi-app", "preprocess", *INSTALLED, "eval", "inference", "inference-worker"),)
DEATHS = ("kill", "eviction")
DECIDED_SECONDS = 300
UNNOTICED_SECONDS = 5.0
"""Seconds in which requests may still reach a killed replica, where no balancer repeats them."""


@pytest.fixture(scope="module")
def question(stack: Pipeline, swinging: tuple[Path, Path]) -> dict[str, Any]:
    """Promote a champion, and return the request that is sent to it all the time."""
    run = stack.wait_decided(stack.upload("steady", *swinging), timeout=DECIDED_SECONDS)
    assert run["outcome"] == "promoted", run["decision"]
    stack.wait_served("steady", run["decision"]["run_id"], timeout=60)
    return stack.question("steady")


@pytest.mark.parametrize("victim", [*PROGRAMS, *BACKENDS])
@pytest.mark.parametrize("death", DEATHS)
def test_a_run_survives_the_death_of_anything_in_its_middle(
    stack: Pipeline, swinging: tuple[Path, Path], question: dict[str, Any], victim: str, death: str
) -> None:
    if death not in stack.deaths:
        pytest.skip(f"no {death} on this target")
    if victim not in {*stack.state["health"], *stack.backends}:
        pytest.skip(f"{victim} is no process of this target")
    if victim == "inference" and stack.replicas == 1:
        pytest.skip("the only replica of this target: its forecasts stop while it starts again")
    identifier = f"{death}-of-{victim}"
    asked = Asker(stack.state["inference_url"], question)
    with asked:
        run_id = stack.start_training(identifier, *swinging)
        killed = time.monotonic()

        (stack.kill if death == "kill" else stack.evict)(victim)

        eventually(lambda: ended(stack, identifier, run_id), "the run ends", timeout=DECIDED_SECONDS, every=0.5)
        decided = time.monotonic()
    # With `through_faults` the wait accepts errors, because the gateway may be restarting.
    run = stack.wait_decided(run_id, timeout=90, through_faults=True)
    report(
        identifier,
        [
            {
                "victim": victim,
                "death": death,
                "outcome": run["outcome"],
                "decided after s": decided - killed,
                "forecasts": asked.asked,
                "failed": len(asked.failures),
                "slowest s": asked.slowest_seconds,
            }
        ],
    )
    stack.assert_undisturbed(identifier, run_id)
    if (victim, death) == ("inference", "kill") and not stack.balanced:
        assert all(each - killed < UNNOTICED_SECONDS for each in asked.failed_at), asked.failures
    else:
        assert asked.failures == []
    assert asked.asked > 0
    stack.wait_served(identifier, run["decision"]["run_id"], timeout=90)


def ended(stack: Pipeline, identifier: str, run_id: str) -> dict[str, Any] | None:
    try:
        return stack.run_store.runs.outcome(identifier, run_id)
    except BackendAwayError:
        return None
