from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from flts.errors import BackendAwayError, RejectedError
from flts.observability.metrics import Metrics
from flts.processes.replayed import replaying
from flts.processes.worker import (
    ChildError,
    ChildWorker,
    WorkerDiedError,
    WorkerSpec,
    WorkerStartError,
    WorkInterruptedError,
    WorkOverdueError,
    WorkStuckError,
)
from tests.brokers import ROOT, lives, raw_data
from tests.bus_service import Journal
from tests.eventually import eventually


class Reports:
    """Receives progress, as the consume loop does."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str, dict[str, Any]]] = []

    def __call__(self, stage: str, state: str, **details: Any) -> None:
        self.all.append((stage, state, details))


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "journal"
    path.touch()
    for name, value in {
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "STORE": "filesystem",
        "STORE_PATH": str(tmp_path / "store"),
        "BUS_JOURNAL": str(path),
    }.items():
        monkeypatch.setenv(name, value)
    return path


@pytest.fixture
def make(metrics: Metrics, journal: Path) -> Iterator[Any]:
    workers = []

    def make(**spec: Any) -> ChildWorker:
        assert journal.exists()
        known = {"factory": "tests.bus_service:make_handler", "settings_class": "tests.bus_service:BusSettings"}
        worker = ChildWorker(WorkerSpec(**{**known, "service": "bus", **spec}), metrics)
        workers.append(worker)
        worker.start()
        return worker

    yield make
    for worker in workers:
        worker.stop()


def expect(worker: ChildWorker, **changed: float) -> None:
    """Change a worker's limits from now on; by default 0.5 s without progress."""
    worker._spec = replace(worker._spec, **(changed or {"stuck_seconds": 0.5}))


def run(worker: ChildWorker, **told: str | float) -> Any:
    return worker.run(raw_data(told=told), Reports(), threading.Event())


def test_work_comes_back_with_its_progress_and_its_metrics_from_one_warm_child(make: Any, metrics: Metrics) -> None:
    worker = make()
    reports = Reports()

    (event,) = worker.run(raw_data(), reports, threading.Event())
    pid = worker.pid
    run(worker)

    assert worker.pid == pid

    assert event.decision == "kept"
    assert reports.all == [("bus", "running", {"epoch": 1, "epochs": 2, "loss": None, "detail": None})]
    assert metrics.registry.get_sample_value("flts_predictions_total", {"outcome": "ok"}) == 2


def test_the_child_has_the_niceness_of_its_work(make: Any) -> None:
    worker = make(niceness=3)

    run(worker)

    assert os.getpriority(os.PRIO_PROCESS, worker.pid) == os.getpriority(os.PRIO_PROCESS, 0) + 3


def test_the_child_knows_a_dead_letter_that_was_sent_again(make: Any, journal: Path) -> None:
    worker = make()
    run(worker)
    with replaying(replayed=True):
        run(worker)
    run(worker)

    assert [line["replayed"] for line in read(journal) if line["what"] == "begin"] == [False, True, False]


def test_an_error_keeps_its_class_code_field_and_the_childs_traceback(make: Any) -> None:
    worker = make()

    with pytest.raises(RejectedError) as rejected:
        run(worker, do="reject")
    with pytest.raises(BackendAwayError) as away:
        run(worker, do="away")
    with pytest.raises(ChildError) as bug:
        run(worker, do="fail")

    assert (rejected.value.code, rejected.value.field, rejected.value.message) == (
        "no_column",
        "down",
        "no such column",
    )
    assert away.value.retry_after_seconds == 0.1
    assert str(bug.value) == "RuntimeError: a bug"
    assert "tests/bus_service.py" in bug.value.remote_traceback
    assert run(worker)


def test_stuck_work_shows_where_it_is_is_stopped_and_counted_and_the_next_try_works(
    make: Any, metrics: Metrics, journal: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker = make(stuck_seconds=600)
    hasty = threading.Thread(target=lambda: eventually(lambda: pids(journal, "hangs"), "it hangs") and expect(worker))
    hasty.start()

    with pytest.raises(WorkStuckError) as stuck:
        run(worker, do="hang")

    hasty.join()
    expect(worker, stuck_seconds=600)
    assert "wait_for_what_never_comes" in stuck.value.message
    (line,) = [record for record in caplog.records if record.message == "work_stuck"]
    assert "wait_for_what_never_comes" in line.flts_fields["stack"]  # type: ignore[attr-defined] # set by FLTS's log
    assert metrics.registry.get_sample_value("flts_training_stuck_total") == 1
    assert worker.pid is None
    assert run(worker)


def test_progress_keeps_long_work_from_being_stuck_but_not_from_its_deadline(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make(stuck_seconds=0.5)
    now = 0.0

    def told(*_: object, **__: object) -> None:
        nonlocal now
        now += 0.4

    with monkeypatch.context() as only:
        # This clock advances only with a progress report, by 0.4 s each time. So the worker sees no silence of 0.5 s,
        # although the work takes longer than 0.5 s.
        only.setattr("flts.processes.worker.time", SimpleNamespace(monotonic=lambda: now, sleep=time.sleep))
        assert worker.run(raw_data(told={"do": "work", "seconds": 1.2}), told, threading.Event())
    assert now > 0.5

    hasty = make(stuck_seconds=600, deadline_seconds=0.5)
    with pytest.raises(WorkOverdueError):
        run(hasty, do="work", seconds=30)


def test_a_stopped_process_counts_as_stuck_and_is_still_ended(make: Any) -> None:
    worker = make()
    run(worker)
    pid = worker.pid
    os.kill(pid, signal.SIGSTOP)
    expect(worker)

    with pytest.raises(WorkStuckError, match="did not answer"):
        run(worker)

    assert not lives(pid)


def test_a_killed_child_is_named_and_replaced(make: Any) -> None:
    worker = make()

    with pytest.raises(WorkerDiedError, match="out of memory"):
        run(worker, do="die")

    assert run(worker)


def test_a_child_that_died_between_two_events_costs_no_try(make: Any) -> None:
    worker = make()
    run(worker)
    os.kill(worker.pid, signal.SIGKILL)
    eventually(lambda: worker.pid is None, "the child's end")

    assert run(worker)


def test_what_the_child_started_ends_with_it(make: Any, journal: Path) -> None:
    worker = make()
    hasty = threading.Thread(
        target=lambda: eventually(lambda: helpers(journal), "its helper") and expect(worker, deadline_seconds=0)
    )
    hasty.start()

    with pytest.raises(WorkOverdueError):
        run(worker, do="grow", seconds=600)

    hasty.join()
    (helper,) = helpers(journal)
    eventually(lambda: not lives(helper), "the helper's end")


def test_a_stopping_service_ends_the_child_in_the_middle_of_its_work(make: Any) -> None:
    worker, interrupted = make(), threading.Event()
    run(worker)
    pid = worker.pid

    def told(*_: object, **__: object) -> None:
        interrupted.set()

    with pytest.raises(WorkInterruptedError):
        worker.run(raw_data(told={"do": "work", "seconds": 600}), told, interrupted)

    assert not lives(pid)


def test_ctrl_c_on_the_terminal_does_not_reach_the_child(make: Any) -> None:
    worker = make()
    run(worker)

    assert os.getpgid(worker.pid) != os.getpgid(0)
    os.kill(worker.pid, signal.SIGINT)

    assert run(worker, do="work", seconds=0.2)


def test_a_child_that_cannot_start_is_nobodys_try(make: Any) -> None:
    worker = make(factory="tests.bus_service:no_such_function")

    with pytest.raises(WorkerStartError, match="exit code 1"):
        run(worker)


PARENT = """
import sys, threading, time
from prometheus_client import CollectorRegistry
from flts.processes.worker import ChildWorker, WorkerSpec
from flts.observability.metrics import Metrics
from tests.brokers import raw_data
spec = WorkerSpec("tests.bus_service:make_handler", "tests.bus_service:BusSettings", "bus")
worker = ChildWorker(spec, Metrics(CollectorRegistry()))
worker.start()
worker.run(raw_data(told={"do": "work", "seconds": 600}), lambda *a, **k: None, threading.Event())
"""


def test_no_child_outlives_a_killed_parent(journal: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], cwd=ROOT)
    pid = eventually(lambda: pids(journal, "begin"), "the child's work")[0]
    assert lives(pid)
    assert pid != parent.pid

    parent.kill()
    parent.wait()

    eventually(lambda: not lives(pid), "the child's end")


def pids(journal: Path, what: str) -> list[int]:
    return [line["pid"] for line in read(journal) if line["what"] == what]


def helpers(journal: Path) -> list[int]:
    return [line["helper"] for line in read(journal) if line["what"] == "helper"]


def read(journal: Path) -> list[dict[str, Any]]:
    return Journal(journal).read()
