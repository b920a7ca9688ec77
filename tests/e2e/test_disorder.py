"""Messages that are repeated, late or out of order change no object, no record in MLflow and no forecast."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from flts.contracts import ids
from flts.contracts.claim_check import ClaimCheck
from flts.contracts.events import RawData, RollbackRequest
from flts.settings import StoreSettings
from flts.storage.filesystem import FilesystemStore
from flts.storage.run_store import RunStore
from tests import whole_log
from tests.eventually import eventually
from tests.reports import report
from tests.stack import ROOT, RunningStack
from tests.trainers import LONG_TYPES, of_models
from tests.what_remains import Kept, settled

pytestmark = pytest.mark.timeout(300)

TIMES = 3
STAY_SECONDS = 3.0
"""Seconds to wait after the last message was read; the inference worker reacts to a message within 0.5 s."""


def replay(
    stack: RunningStack, identifiers: tuple[str, ...], *, seed: int, also: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Produce all records of these identifiers again, three times in random order; assert that no result changes."""
    address = stack.state["kafka"]
    settled(stack, identifiers)
    before = Kept.of(stack, identifiers)
    keys = {identifier.encode() for identifier in identifiers}
    names = [*whole_log.PIPELINE, *also]
    log = [record for record in whole_log.read_log(address, names) if record.key in keys]
    dead = sum(record.topic in also for record in log)
    again = list(dict.fromkeys(log)) * TIMES
    random.Random(seed).shuffle(again)
    began = time.monotonic()
    whole_log.produce(address, again)
    whole_log.wait_read(address)
    seconds = time.monotonic() - began
    time.sleep(STAY_SECONDS)
    settled(stack, identifiers)
    after = Kept.of(stack, identifiers)

    assert before.changes(after) == {}, f"seed {seed}"
    now = [record for record in whole_log.read_log(address, names) if record.key in keys]
    first, then = whole_log.ids_by_topic(log), whole_log.ids_by_topic(now)
    assert {topic: set(found) for topic, found in then.items()} == {topic: set(found) for topic, found in first.items()}
    replayed = sum(record.topic in also for record in again)
    assert sum(record.topic in also for record in now) == dead + replayed, "no dead letter is new"
    return {
        "seed": seed,
        "runs": len(before.runs),
        "outcomes": ", ".join(sorted(str(run["outcome"]) for run in before.runs.values())),
        "records": len(log),
        "replayed": len(again),
        "seconds": seconds,
        "objects": len(before.store),
        "mlflow values": len(before.records),
        "repeats sent": len(now) - len(log) - len(again),
    }


@pytest.fixture(scope="module")
def finished(stack: RunningStack, seasonal_file: Path) -> dict[str, Any]:
    return stack.wait_decided(stack.upload("disorder", seasonal_file, settings={"EPOCHS": 3}))


def test_the_log_of_a_finished_run_replayed_three_times_in_random_order_changes_nothing(
    stack: RunningStack, finished: dict[str, Any]
) -> None:
    assert finished["outcome"] == "promoted", finished["decision"]
    seed = int.from_bytes(os.urandom(4))
    row = replay(stack, ("disorder",), seed=seed)

    report("replay-one-run", [row])


# Events that arrive late


def test_an_older_run_that_decides_after_a_newer_ones_promotion_is_superseded(
    stack: RunningStack, seasonal_file: Path, finished: dict[str, Any]
) -> None:
    (child,) = psutil.Process(stack.pid("train-lstm")).children()
    child.suspend()  # stops only the training: the trainer's main process keeps polling, so it keeps its partition
    try:
        older = stack.upload("disorder", seasonal_file, settings={"EPOCHS": 2})
        eventually(
            lambda: set(of_models(stack.run(older)["trained"])) == {*LONG_TYPES} - {"LSTM"} or None,
            "all but LSTM",
            timeout=120,
            every=0.2,
        )
        with stack.gateway as client:
            asked = client.post("/datasets/disorder/rollback", params={"of_run": finished["pipeline_run_id"]})
        newer = asked.json()["pipeline_run_id"]
        assert stack.wait_decided(newer, timeout=60)["outcome"] == "promoted"
        pointer = (stack.store / "model-promotion" / "disorder" / "current.json").read_bytes()
    finally:
        child.resume()
    late = stack.wait_decided(older)

    assert_superseded(stack, late)
    assert (stack.store / "model-promotion" / "disorder" / "current.json").read_bytes() == pointer
    with stack.inference as client:
        served = {one["identifier"]: one["run_id"] for one in client.get("/models").json()["models"]}
    assert served["disorder"] == finished["decision"]["run_id"], "the champion that was gone back to"


def assert_superseded(stack: RunningStack, run: dict[str, Any]) -> None:
    """Check the outcome, the single decision, the published message and the output of `flts why`."""
    assert run["outcome"] == "superseded", run["decision"]
    assert any("newer" in reason for reason in run["outcome_details"]["reasons"])
    assert len(stack.decisions(run["identifier"], run["pipeline_run_id"])) == 1

    def told() -> set[str]:
        log = whole_log.read_log(stack.state["kafka"], ["model-selected"])
        of_run = (one.content for one in log if one.content["pipeline_run_id"] == run["pipeline_run_id"])
        return {one["decision"] for one in of_run}

    assert eventually(told, "it is told") == {"superseded"}
    shown = subprocess.run(
        [sys.executable, "-m", "cli", "why", run["pipeline_run_id"]],
        cwd=ROOT,
        env={**os.environ, "FLTS_HOME": str(stack.home)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "superseded" in shown
    assert "a newer run was decided first" in shown
    assert "promoted" not in shown, shown


def of_a_new_run(identifier: str) -> dict[str, Any]:
    run = ids.new_pipeline_run_id()
    return {
        "event_id": ids.derived_event_id(run, "start"),
        "identifier": identifier,
        "pipeline_run_id": run,
        "created_at": datetime.now(UTC),
    }


def run_store_of(stack: RunningStack) -> RunStore:
    return RunStore(FilesystemStore(stack.store), StoreSettings(store="filesystem", store_path=stack.store))


def ask(stack: RunningStack, event: RawData | RollbackRequest) -> str:
    """Record a run as the gateway does before it publishes, and make the gateway announce the run."""
    run_store_of(stack).runs.create(event)
    announce(stack, event.pipeline_run_id)
    return event.pipeline_run_id


def announce(stack: RunningStack, run_id: str) -> None:
    with stack.gateway as client:
        assert client.post(f"/runs/{run_id}/resume").json()["resumed"] == [run_id]


@pytest.mark.long
def test_an_older_run_that_is_announced_late_is_superseded(stack: RunningStack, swinging: tuple[Path, Path]) -> None:
    """The older run is recorded and not announced, as after the kill of a gateway between these two steps."""
    example = stack.wait_decided(stack.upload("late", *swinging, settings={"EPOCHS": 2}))
    older = RawData(
        **of_a_new_run("late"),
        train=ClaimCheck.model_validate(example["train"]),
        test=ClaimCheck.model_validate(example["test"]),
        settings={"EPOCHS": 3},
    )
    run_store = run_store_of(stack)
    run_store.runs.create(older)
    newer = stack.wait_decided(stack.upload("late", *swinging, settings={"EPOCHS": 4, "EXTRA_HASH_SALT": "newer"}))
    assert newer["outcome"] == "promoted", newer["decision"]
    stack.wait_refitted(newer["pipeline_run_id"])
    pointer = (stack.store / "model-promotion" / "late" / "current.json").read_bytes()

    if not run_store.runs.announced("late", older.pipeline_run_id):  # the gateway's outbox may have announced it
        announce(stack, older.pipeline_run_id)
    run = stack.wait_decided(older.pipeline_run_id)

    assert_superseded(stack, run)
    assert (stack.store / "model-promotion" / "late" / "current.json").read_bytes() == pointer
    assert {trained["status"] for trained in run["trained"].values()} == {"SUCCESS"}


@pytest.mark.long
@pytest.mark.timeout(2400)
def test_the_whole_log_of_runs_that_ended_in_every_way_changes_nothing(
    stack: RunningStack, swinging: tuple[Path, Path]
) -> None:
    train, test = swinging
    first = stack.wait_decided(stack.upload("log-a", train, test, settings={"EPOCHS": 3}))
    assert first["outcome"] == "promoted", first["decision"]
    kept = stack.wait_decided(stack.upload("log-a", train, test, settings={"EPOCHS": 3}))
    assert kept["outcome"] == "kept"
    forced = stack.wait_decided(stack.upload("log-a", train, test, settings={"EPOCHS": 3}, force=True))
    with stack.gateway as client:
        again = client.post(f"/runs/{first['pipeline_run_id']}/evaluate").json()["pipeline_run_id"]
        back = client.post("/datasets/log-a/rollback", params={"of_run": first["pipeline_run_id"]}).json()
    ended = [stack.wait_decided(one)["outcome"] for one in (again, back["pipeline_run_id"])]
    assert ended[1] == "promoted"
    cancelled = stack.upload("log-b", train, test, settings={"EPOCHS": 3, "EXTRA_HASH_SALT": "b"})
    with stack.gateway as client:
        assert client.post(f"/runs/{cancelled}/cancel").status_code == 200
    rejected = ask(stack, rejected_by_preprocess("log-c", first))
    assert stack.wait_decided(rejected)["outcome"] == "rejected"
    whole = stack.wait_decided(stack.upload("log-d", train, settings={"EPOCHS": 2, "INPUT_SEQ_LEN": 12}))
    assert whole["outcome"] is not None
    assert forced["outcome"] is not None

    rows = [
        replay(stack, ("log-a", "log-b", "log-c", "log-d"), seed=seed, also=("preprocess.dead-letter",))
        for seed in (20261, 20262, 20263)
    ]

    report("replay-whole-log", rows)
    assert stack.run(cancelled)["outcome"] == "cancelled"


def rejected_by_preprocess(identifier: str, example: dict[str, Any]) -> RawData:
    """Return an upload that the gateway would refuse; preprocess also checks it, and rejects it."""
    return RawData(
        **of_a_new_run(identifier), train=ClaimCheck.model_validate(example["train"]), settings={"INPUT_SEQ_LEN": 9_000}
    )
