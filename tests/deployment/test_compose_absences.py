"""Real backends are away for longer than a timeout: runs end, MLflow has each record once, forecasts continue."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest

from tests.backends_away import Asker, assert_recorded_once
from tests.compose_pipeline import ComposePipeline, running_compose
from tests.docker import docker
from tests.eventually import eventually
from tests.reports import report
from tests.swinging import write_swinging

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

DECIDED_SECONDS = 300
RECORDED_SECONDS = 120
"""Timeout in seconds; eval sends spooled documents to MLflow every SPOOL_DRAIN_SECONDS."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposePipeline]:
    with running_compose(tmp_path_factory.mktemp("absences"), SPOOL_DRAIN_SECONDS="10") as made:
        yield made


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_swinging(tmp_path_factory.mktemp("sample"), train_rows=2_000, test_rows=500)


@pytest.fixture(scope="module")
def question(stack: ComposePipeline, sample: tuple[Path, Path]) -> dict[str, Any]:
    run = stack.wait_decided(stack.upload("steady", *sample), timeout=DECIDED_SECONDS)
    assert run["outcome"] == "promoted", run["decision"]
    stack.wait_served("steady", run["decision"]["run_id"], timeout=60)
    return stack.question("steady")


@dataclass(frozen=True)
class Absence:
    backend: str
    way: Literal["frozen", "stopped", "killed"]
    seconds: float = 0.0


ABSENCES = [
    Absence("minio", "frozen", 60),
    Absence("minio", "stopped", 60),
    Absence("postgres", "frozen", 30),
    Absence("mlflow", "stopped", 120),
    Absence("mlflow", "frozen", 60),
    Absence("kafka", "frozen", 30),  # 30 s is longer than the broker's session timeout, so the controller fences it
    Absence("kafka", "killed"),
]


@pytest.mark.parametrize("absence", ABSENCES, ids=lambda each: f"{each.backend}-{each.way}")
def test_a_run_survives_a_backend_that_is_away_in_its_middle(
    stack: ComposePipeline, sample: tuple[Path, Path], question: dict[str, Any], absence: Absence
) -> None:
    identifier = f"{absence.backend}-{absence.way}"
    with Asker(stack.state["inference_url"], question) as asked:
        run_id = stack.start_training(identifier, *sample)
        left = time.monotonic()
        be_away(stack, absence)
        back = time.monotonic()
        run = stack.wait_decided(run_id, timeout=DECIDED_SECONDS, through_faults=True)
        decided = time.monotonic()
    report(
        f"compose-{identifier}",
        [
            {
                "backend": absence.backend,
                "away": absence.way,
                "s": back - left,
                "outcome": run["outcome"],
                "decided s after it was back": decided - back,
                "forecasts": asked.asked,
                "failed": len(asked.failures),
                "slowest s": asked.slowest_seconds,
            }
        ],
    )
    stack.assert_undisturbed(identifier, run_id)
    assert asked.asked > 0
    assert asked.failures == []
    stack.wait_served(identifier, run["decision"]["run_id"], timeout=90)

    def recorded() -> bool:
        try:
            assert_recorded_once(stack, identifier, run)
        except (httpx.HTTPError, AssertionError):  # MLflow is restarting, or does not have all records yet
            return False
        return True

    eventually(recorded, "every record is there once", timeout=RECORDED_SECONDS, every=3)


def be_away(stack: ComposePipeline, absence: Absence) -> None:
    if absence.way == "killed":
        stack.kill(absence.backend)
        return
    [name] = [name for name, each in stack.made.containers().items() if each["Service"] == absence.backend]
    gone, back = {"frozen": ("pause", "unpause"), "stopped": ("stop", "start")}[absence.way]
    docker(gone, name)
    try:
        time.sleep(absence.seconds)
    finally:
        docker(back, name)
