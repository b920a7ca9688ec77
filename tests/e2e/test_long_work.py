"""Trainings that exceed the maximum poll interval, are ended by SIGTERM, hang, or are killed for lack of memory."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests import whole_log
from tests.eventually import eventually
from tests.files_below import files_below
from tests.replicas import Instance, identifier_for, launched, replica, wait_shared
from tests.reports import report
from tests.stack import SMALL, RunningStack, running_stack

pytestmark = [pytest.mark.long, pytest.mark.timeout(2400)]

LONG_SECONDS = 90.0
PATIENCE = 300.0
"""Timeout in seconds of one step of a test; the tests assert shorter times where a step must be fast."""
POLL_SECONDS = 10
STUCK_SECONDS = 40
"""A child process reports nothing while it imports torch or MLflow's client: 10 s and more on a busy machine."""
DRAIN_SECONDS = 5
TRIES = 3
GROUP = "train-gru"
DEAD_LETTERS = f"{GROUP}.dead-letter"


def test_a_trainer_whose_child_is_killed_for_its_memory_tries_again(
    stack: RunningStack, swinging: tuple[Path, Path]
) -> None:
    run_id = stack.upload("memory", *swinging, settings={"EPOCHS": 3})
    trainer = launched(stack, GROUP)
    eventually(lambda: trainer.events("train_start", run_id), "training", timeout=120, every=0.02)
    (child,) = trainer.children()

    child.kill()
    run = stack.wait_decided(run_id)

    assert run["outcome"] == "promoted", run["decision"]
    assert run["trained"]["GRU"]["status"] == "SUCCESS"
    (line,) = trainer.events("train_retry_defer", run_id)
    assert "out of memory" in line["error"]
    assert stack.pid(GROUP) == trainer.pid, "the service itself went on"
    assert tries_recorded(stack, "memory", run_id) == []


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """Yield a pipeline with a maximum poll interval of 10 s, in which a training without progress for 40 s is stuck."""
    with running_stack(
        tmp_path_factory.mktemp("long-work") / "home",
        **SMALL,
        EXPECTED_MODEL_TYPES="GRU,PROPHET",
        KAFKA_MAX_POLL_INTERVAL_MS=str(POLL_SECONDS * 1000),
        TRAIN_STUCK_SECONDS=str(STUCK_SECONDS),
        DRAIN_SECONDS=str(DRAIN_SECONDS),
        RETRY_BACKOFF_SECONDS="1",
        TRAIN_THREADS="1",
    ) as running:
        yield running


@pytest.fixture(scope="module")
def epoch_seconds(impatient: RunningStack, swinging: tuple[Path, Path]) -> float:
    """Return the seconds of one epoch, measured now on this machine."""
    run_id = impatient.upload("measured", *swinging, settings={"EPOCHS": 20, "EARLY_STOPPING": False})
    run = impatient.wait_decided(run_id, timeout=PATIENCE)
    assert run["trained"]["GRU"]["status"] == "SUCCESS", run["trained"]["GRU"]
    times = [moment(line) for line in launched(impatient, GROUP).events("epoch_done", run_id)]
    return (times[-1] - times[0]) / (len(times) - 1)


def settings_for(seconds: float, epoch_seconds: float) -> dict[str, Any]:
    return {"EPOCHS": math.ceil(seconds / epoch_seconds), "EARLY_STOPPING": False}


def test_a_training_of_ninety_seconds_keeps_its_partition_while_others_move_on(
    impatient: RunningStack, swinging: tuple[Path, Path], epoch_seconds: float
) -> None:
    stack = impatient
    with replica(stack, GROUP) as second:
        first = launched(stack, GROUP)
        wait_shared([first, second], "training-data")
        busy, free = identifier_for(first, "training-data", "busy"), identifier_for(second, "training-data", "free")
        began = time.time()
        # The test plans a training of 1.5 times LONG_SECONDS, because the machine may be faster now than when the test
        # measured the seconds of an epoch.
        long_run = stack.upload(busy, *swinging, settings=settings_for(LONG_SECONDS * 1.5, epoch_seconds))
        eventually(lambda: first.events("train_start", long_run), "the long training", timeout=PATIENCE)
        others = []
        while not first.events("train_success", long_run):
            others.append(
                stack.wait_decided(
                    stack.upload(free, *swinging, settings={"EPOCHS": 3, "EXTRA_HASH_SALT": f"other-{len(others)}"}),
                    timeout=PATIENCE,
                )
            )
        run = stack.wait_decided(long_run, timeout=PATIENCE)
        settled_at = run["trained"]["GRU"]["created_at"]
        meanwhile = [other for other in others if at(other["outcome_details"]["at"]) < at(settled_at)]
        revoked = [line for one in (first, second) for line in one.events("partitions_revoked") if moment(line) > began]
        row = {
            "max.poll.interval s": POLL_SECONDS,
            "trained s": run["trained"]["GRU"]["duration_seconds"],
            "epochs": len(first.events("epoch_done", long_run)),
            "train_start": [len(one.events("train_start", long_run)) for one in (first, second)],
            "received": [len(one.events("kafka_receive", long_run)) for one in (first, second)],
            "revoked": len(revoked),
            "others decided meanwhile": len(meanwhile),
            "outcome": run["outcome"],
        }
        report("long-training", [row])
        assert row["trained s"] >= LONG_SECONDS
        assert (row["train_start"], row["received"], revoked) == ([1, 0], [1, 0], [])
        assert len(meanwhile) >= 2
        assert run["trained"]["GRU"]["status"] == "SUCCESS"
        assert all(other["trained"]["GRU"]["status"] == "SUCCESS" for other in others)


def test_a_trainer_asked_to_end_gives_its_work_up_in_time_and_it_is_taken_up_again(
    impatient: RunningStack, swinging: tuple[Path, Path], epoch_seconds: float
) -> None:
    stack = impatient
    settings = settings_for(30, epoch_seconds)
    rows = [_ended(stack, swinging, launched(stack, GROUP), "restarted", settings)]
    with replica(stack, GROUP) as second:
        wait_shared([launched(stack, GROUP), second], "training-data")
        rows.append(_ended(stack, swinging, second, "the other", settings))
    report("sigterm-in-training", rows)
    for row in rows:
        assert row["ended after s"] < DRAIN_SECONDS + 4, row
        assert (row["exit code"], row["tries left over"], row["outcome"]) == (0, 0, "promoted"), row
        assert row["taken up after s"] < 60, row


def _ended(
    stack: RunningStack, swinging: tuple[Path, Path], trainer: Instance, by: str, settings: dict[str, Any]
) -> dict[str, Any]:
    identifier = identifier_for(trainer, "training-data", f"ended-{trainer.name}")
    run_id = stack.upload(identifier, *swinging, settings=settings)
    eventually(lambda: len(trainer.events("epoch_done", run_id)) >= 2, "training", timeout=PATIENCE, every=0.05)
    (child,) = trainer.children()
    asked = time.time()
    trainer.signal(signal.SIGTERM)
    eventually(trainer.has_ended, "the trainer's end", timeout=PATIENCE, every=0.02)
    ended = time.time()
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    left = tries_recorded(stack, identifier, run_id)
    stopped = [line for line in trainer.events("service_stopped") if moment(line) >= asked - 1]
    first = launched_again(stack)
    again = eventually(
        lambda: [line for line in first.events("train_start", run_id) if moment(line) > asked],
        "the work is taken up again",
        timeout=PATIENCE,
        every=0.1,
    )
    run = stack.wait_decided(run_id, timeout=PATIENCE)
    return {
        "taken up by": by,
        "drain s": DRAIN_SECONDS,
        "ended after s": ended - asked,
        "exit code": stopped[-1]["exit_code"],
        "interrupted": len(trainer.events("work_interrupted", run_id)),
        "tries left over": len(left),
        "taken up after s": moment(again[0]) - asked,
        "train_start": len(again) + 1,
        "outcome": run["outcome"],
    }


def test_work_that_hangs_shows_its_stack_is_stopped_and_tried_again(
    impatient: RunningStack, swinging: tuple[Path, Path], tmp_path: Path, epoch_seconds: float
) -> None:
    stack = impatient
    flag = tmp_path / "hang"
    flag.touch()
    with replica(stack, GROUP, module="tests.hanging_trainer", HANG_FILE=str(flag)) as second:
        first = launched(stack, GROUP)
        wait_shared([first, second], "training-data")
        rows = [
            _stuck(stack, swinging, second, {"EPOCHS": 4}, stop=False),
            _stuck(stack, swinging, first, settings_for(20, epoch_seconds), stop=True),
        ]
    report("stuck", [{name: value for name, value in row.items() if name != "stack"} for row in rows])
    hung, halted = rows
    assert "wait_for_what_never_comes" in hung["stack"]
    assert "did not answer" in halted["stack"]
    for row in rows:
        assert (row["counted"], row["retries"], row["outcome"], row["tries left over"]) == (1, 1, "promoted", 0), row
        assert STUCK_SECONDS <= row["silent s"] < STUCK_SECONDS + 10, row


def _stuck(
    stack: RunningStack, swinging: tuple[Path, Path], trainer: Instance, settings: dict[str, Any], *, stop: bool
) -> dict[str, Any]:
    identifier = identifier_for(trainer, "training-data", f"stuck-{trainer.name}")
    before = trainer.metric("flts_training_stuck_total")
    run_id = stack.upload(identifier, *swinging, settings=settings)
    eventually(lambda: trainer.events("kafka_receive", run_id), "the trainer's message", timeout=PATIENCE, every=0.02)
    if stop:
        eventually(lambda: trainer.events("epoch_done", run_id), "training", timeout=PATIENCE, every=0.02)
        trainer.children()[0].suspend()
    held = time.time()
    (stuck,) = eventually(lambda: trainer.events("train_stuck", run_id), "train_stuck", timeout=PATIENCE, every=0.1)
    run = stack.wait_decided(run_id, timeout=PATIENCE)
    return {
        "how": "stopped (SIGSTOP)" if stop else "hangs in Python",
        "limit s": STUCK_SECONDS,
        "silent s": stuck["silent_seconds"],
        "found after s": moment(stuck) - held,
        "counted": trainer.metric("flts_training_stuck_total") - before,
        "retries": len(trainer.events("train_retry_defer", run_id)),
        "tries left over": len(tries_recorded(stack, identifier, run_id)),
        "outcome": run["outcome"],
        "stack": stuck["stack"],
    }


def kill_child(trainer: Instance) -> None:
    for child in trainer.children():
        child.kill()


def kill_all(trainer: Instance) -> None:
    """Kill a trainer and its children at once, as Linux does for a control group (version 2) without memory."""
    for process in [*trainer.children(), psutil.Process(trainer.pid)]:
        process.kill()


MEMORY_GROUP = Path("/sys/fs/cgroup/memory/flts-long-work")
LEFT_BYTES = 8 * 2**20


def limit_memory(trainer: Instance) -> None:
    """Put the child processes under a memory limit that their next pages exceed, so that the kernel kills them."""
    try:
        MEMORY_GROUP.mkdir(exist_ok=True)
        (MEMORY_GROUP / "memory.limit_in_bytes").write_text(str(LEFT_BYTES))
    except OSError as error:
        pytest.skip(f"no memory control group (version 1) can be made here: {error}")
    for child in trainer.children():
        (MEMORY_GROUP / "cgroup.procs").write_text(str(child.pid))


def free_memory() -> None:
    with contextlib.suppress(OSError):
        MEMORY_GROUP.rmdir()


WAYS: dict[str, Callable[[Instance], None]] = {
    "child killed": kill_child,
    "service and child killed": kill_all,
    "out of memory (control group)": limit_memory,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_training_that_is_killed_each_time_ends_in_a_dead_letter_and_its_run_is_decided_without_it(
    impatient: RunningStack, swinging: tuple[Path, Path], epoch_seconds: float, way: str
) -> None:
    row = _killed_each_time(impatient, swinging, way, WAYS[way], epoch_seconds)
    report(f"killed-each-time-{list(WAYS).index(way)}", [row])
    assert (row["tries"], row["attempts told"], row["GRU"], row["PROPHET"]) == (TRIES, TRIES, "FAILED", "SUCCESS")
    assert row["outcome"] in {"promoted", "refused"}, row
    assert row["tries left over"] == 0
    assert row["GRU in the next run"] == "SUCCESS", row


def _killed_each_time(
    stack: RunningStack,
    swinging: tuple[Path, Path],
    way: str,
    end: Callable[[Instance], None],
    epoch_seconds: float,
) -> dict[str, Any]:
    identifier = f"killed-{list(WAYS).index(way)}"
    address = stack.state["kafka"]
    log = launched(stack, GROUP).log
    run_id = stack.upload(identifier, *swinging, settings=settings_for(60, epoch_seconds))
    began = time.time()
    ended = 0

    def dead_letter() -> list[whole_log.Logged]:
        letters = whole_log.read_log(address, [DEAD_LETTERS])
        return [record for record in letters if record.content["pipeline_run_id"] == run_id]

    def starts() -> int:
        return len(Instance(GROUP, "", log, 0).events("train_start", run_id))

    def more_starts(than: int) -> bool:
        return starts() > than

    while ended < TRIES:
        eventually(partial(more_starts, ended), f"try {ended + 1}", timeout=PATIENCE, every=0.05)
        end(launched_again(stack))
        ended += 1
    (letter,) = eventually(dead_letter, "the dead letter", timeout=PATIENCE, every=0.3)
    dead = time.time()
    run = stack.wait_decided(run_id, timeout=PATIENCE)
    headers = {name: (value or b"").decode() for name, value in letter.headers}
    free_memory()
    following = stack.wait_decided(stack.upload(identifier, *swinging, settings={"EPOCHS": 3}), timeout=PATIENCE)
    return {
        "way": way,
        "tries": starts(),
        "attempts told": int(headers["attempts"]),
        "error": headers["error"][:70],
        "dead letter after s": dead - began,
        "decided after s": at(run["outcome_details"]["at"]) - began,
        "GRU": run["trained"]["GRU"]["status"],
        "PROPHET": run["trained"]["PROPHET"]["status"],
        "outcome": run["outcome"],
        "tries left over": len(tries_recorded(stack, identifier, run_id)),
        "GRU in the next run": following["trained"]["GRU"]["status"],
    }


def launched_again(stack: RunningStack) -> Instance:
    """Wait until the launcher's trainer runs, and return it."""

    def found() -> Instance | None:
        with contextlib.suppress(AssertionError):
            return launched(stack, GROUP)
        return None

    return eventually(found, "the trainer runs", timeout=PATIENCE)


def tries_recorded(stack: RunningStack, identifier: str, run_id: str) -> list[Path]:
    """Return the records of attempts at a trainer's message that the trainer has not removed."""
    return list(files_below(stack.store / "pipeline-runs" / identifier / run_id / "attempts" / GROUP, ".json"))


def moment(line: dict[str, Any]) -> float:
    return at(line["ts"])


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
