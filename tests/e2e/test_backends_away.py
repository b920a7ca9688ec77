"""Store, broker or MLflow is away, slow or silent in the middle of a run: the run is delayed, and forecasts continue.

The tests with a `journey` make each backend unavailable for a minute (`FLTS_FAULT_SECONDS`) through a proxy. Their
store is the real S3 server that `FLTS_TEST_S3_*` name, or else the tests' own server. The last test stops MLflow and
the broker of the shared pipeline for some seconds.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.backends_away import (
    Asker,
    FragileStack,
    assert_recorded_once,
    dead_letters,
    fragile_stack,
    frozen,
    training_seconds,
    wait_until_training,
)
from tests.eventually import eventually
from tests.faulty_proxy import BLACKHOLE, REFUSE, Mode, slow, stall_after
from tests.stack import SMALL, RunningStack, now
from tests.stores import why_no_s3
from tests.trainers import LONG_TYPES

FAULT_SECONDS = float(os.environ.get("FLTS_FAULT_SECONDS", "60"))
RECOVERY_SECONDS = 180.0
"""Timeout in seconds from the end of a fault to the end of the run."""
RECORD_SECONDS = 120.0
LATER_SECONDS = 15.0
"""Seconds by which a training may take longer while MLflow does not answer."""
EPOCHS = 12
FAULTS = {
    "refused": REFUSE,
    "black hole": BLACKHOLE,
    "1 KB/s": slow(1000),
    "stalls after 64 KiB": stall_after(64 * 1024),
    "frozen": None,
}
CASES = [
    *((backend, fault, "training") for backend in ("store", "mlflow", "kafka") for fault in FAULTS),
    *((backend, "black hole", "upload") for backend in ("store", "mlflow", "kafka")),
]
"""Backend, fault, and the step of the run in which the fault begins."""
CASES.remove(("store", "frozen", "training"))  # the launcher has no S3 process to freeze


@dataclass
class Journey:
    """The pipeline, the uploaded files, the forecast request that is sent all the time, and the figures so far."""

    fragile: FragileStack
    swinging: tuple[Path, Path]
    question: dict[str, Any]
    rows: list[dict[str, Any]]

    @property
    def quiet(self) -> dict[str, Any]:
        """The figures of the run without a fault."""
        return self.rows[0]

    def upload(self, identifier: str) -> str:
        settings = {"EPOCHS": EPOCHS, "EXTRA_HASH_SALT": identifier}  # a salt of its own, so no bundle is reused
        return self.fragile.stack.upload(identifier, *self.swinging, settings=settings)


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory, swinging: tuple[Path, Path]) -> Iterator[Journey]:
    """Yield a pipeline with one champion; at the end write the figures of all cases into ``FLTS_REPORTS``."""
    home = tmp_path_factory.mktemp("fragile") / "home"
    with fragile_stack(home, **SMALL, SPOOL_DRAIN_SECONDS="3") as fragile:
        journey, stack = Journey(fragile, swinging, {}, []), fragile.stack
        began = now()
        run = stack.wait_decided(journey.upload("steady"))
        seconds = now() - began
        stack.wait_served("steady", run["decision"]["run_id"])
        journey.rows.append(
            {"backend": "none", "run_seconds": seconds, "training_seconds": max(training_seconds(run).values())}
        )
        with stack.gateway as client:
            rows = client.get("/datasets/steady/tail").json()
        journey.question = {**rows, "identifier": "steady", "inference_length": 6}
        yield journey
    folder = os.environ.get("FLTS_REPORTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        server = "real" if why_no_s3() is None else "the tests' own"
        report = {"fault_seconds": FAULT_SECONDS, "s3_server": server, "runs": journey.rows}
        Path(folder, "backends-away.json").write_text(json.dumps(report, indent=2))


@pytest.mark.long
@pytest.mark.timeout(FAULT_SECONDS + RECOVERY_SECONDS + RECORD_SECONDS + 300)
@pytest.mark.parametrize(("backend", "fault", "moment"), CASES)
def test_a_run_outlives_a_backend_that_is_away(
    journey: Journey, capsys: pytest.CaptureFixture[str], backend: str, fault: str, moment: str
) -> None:
    fragile, stack, quiet = journey.fragile, journey.fragile.stack, journey.quiet
    identifier = "-".join(["away", backend, moment, *fault.replace("/", "-").split()])
    given_up = fragile.dead_letters()
    asked = [Asker(stack.state[url], journey.question) for url in ("inference_url", "gateway_url")]
    began = now()
    run_id = journey.upload(identifier)
    if moment == "training":
        wait_until_training(stack, run_id)

    with asked[0], asked[1]:
        with taken_away(fragile, backend, FAULTS[fault]):
            fault_began = now()
            decided_during = eventually_or_not(
                lambda: fragile.run_store.runs.outcome(identifier, run_id), seconds=FAULT_SECONDS
            )
            time.sleep(max(0.0, FAULT_SECONDS - (now() - fault_began)))
        fault_ended = now()
        eventually(
            lambda: fragile.run_store.runs.outcome(identifier, run_id),
            "the run ends",
            timeout=RECOVERY_SECONDS,
            every=0.2,
        )
        decided = decided_during or now()

    run = stack.wait_decided(run_id, timeout=30)
    eventually(
        lambda: assert_recorded_once(stack, identifier, run) or True,
        "MLflow has every record, once",
        timeout=RECORD_SECONDS,
        every=0.5,
    )
    recorded = now()
    row = {
        "backend": backend,
        "fault": fault,
        "moment": moment,
        "run_seconds": decided - began,
        "training_seconds": max(training_seconds(run).values()),
        "decided_after_fault_seconds": max(0.0, decided - fault_ended),
        "recorded_after_fault_seconds": max(0.0, recorded - fault_ended),
        "asked": [one.asked for one in asked],
        "failed": [len(one.failures) for one in asked],
        "slowest_seconds": [one.slowest_seconds for one in asked],
    }
    journey.rows.append(row)
    with capsys.disabled():
        sys.stdout.write(line_of(row, quiet))

    assert run["outcome"] == "promoted", run["decision"]
    assert {run["trained"][kind]["status"] for kind in LONG_TYPES} == {"SUCCESS"}
    assert fragile.decisions(identifier, run_id) == 1
    assert fragile.dead_letters() == given_up
    assert [one.failures for one in asked] == [[], []]
    assert min(one.asked for one in asked) > FAULT_SECONDS, "forecasts went on all the time"
    assert not [name for name in fragile.spooled() if identifier in name]
    if backend == "mlflow":
        assert row["training_seconds"] <= quiet["training_seconds"] + LATER_SECONDS
    stack.wait_served(identifier, run["decision"]["run_id"], timeout=90)


@pytest.mark.long
@pytest.mark.timeout(400)
def test_a_broker_that_is_killed_and_has_forgotten_everything_costs_no_second_decision(
    journey: Journey,
) -> None:
    fragile, stack = journey.fragile, journey.fragile.stack
    with Asker(stack.state["inference_url"], journey.question) as asked:
        run_id = journey.upload("forgotten")
        wait_until_training(stack, run_id)

        os.kill(stack.pid("kafka"), signal.SIGKILL)

        run = stack.wait_decided(run_id, timeout=RECOVERY_SECONDS)
    assert run["outcome"] == "promoted", run["decision"]
    assert fragile.decisions("forgotten", run_id) == 1
    assert sum(fragile.dead_letters().values()) == 0
    assert asked.failures == []
    eventually(
        lambda: assert_recorded_once(stack, "forgotten", run) or True, "MLflow has every record, once", timeout=60
    )
    stack.wait_served("forgotten", run["decision"]["run_id"], timeout=90)


@pytest.mark.long
@pytest.mark.timeout(400)
def test_mlflow_and_the_broker_stop_for_some_seconds_in_mid_run_and_nothing_is_lost(
    stack: RunningStack, swinging: tuple[Path, Path]
) -> None:
    identifier = "away-for-seconds"
    run_id = stack.upload(identifier, *swinging, settings={"EPOCHS": 5, "EXTRA_HASH_SALT": identifier})
    wait_until_training(stack, run_id)
    given_up = dead_letters(stack)

    with frozen(stack, "mlflow"):
        with frozen(stack, "kafka"):
            time.sleep(6)
        run = stack.wait_decided(run_id, timeout=90)

    stack.assert_undisturbed(identifier, run_id)
    assert dead_letters(stack) == given_up
    stack.wait_served(identifier, run["decision"]["run_id"], timeout=60)
    eventually(
        lambda: assert_recorded_once(stack, identifier, run) or True,
        "MLflow has every record, once",
        timeout=90,
        every=0.5,
    )


def taken_away(fragile: FragileStack, backend: str, mode: Mode | None) -> AbstractContextManager[None]:
    return fragile.frozen(backend) if mode is None else fragile.proxies[backend].fault(mode)


def eventually_or_not(check: Any, *, seconds: float) -> float | None:
    """Return the time of the check's first success, or None without a success within `seconds`."""
    deadline = now() + seconds
    while now() < deadline:
        if check():
            return now()
        time.sleep(0.2)
    return None


def line_of(row: dict[str, Any], quiet: dict[str, Any]) -> str:
    return (
        f"\n{row['backend']:7}{row['fault']:20}at {row['moment']:9}"
        f"run {row['run_seconds']:6.1f} s (without {quiet['run_seconds']:.1f})  "
        f"training {row['training_seconds']:5.1f} s ({quiet['training_seconds']:.1f})  "
        f"after the fault: decided {row['decided_after_fault_seconds']:5.1f} s, "
        f"recorded {row['recorded_after_fault_seconds']:5.1f} s  "
        f"forecasts {sum(row['asked'])}, failed {sum(row['failed'])}, slowest {max(row['slowest_seconds']):.2f} s "
    )
