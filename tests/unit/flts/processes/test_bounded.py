from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from flts.errors import ConflictError
from flts.processes.bounded import BoundedWorkError, BoundedWorkers, Bounds, GaveUpError
from tests.brokers import ROOT, lives
from tests.eventually import eventually

MEMORY = 256 * 2**20


@pytest.fixture(scope="module")
def shared() -> Iterator[BoundedWorkers]:
    workers = BoundedWorkers(Bounds("tests.bounded_work:misbehave", MEMORY, seconds=120))
    yield workers
    workers.close()


def answered(workers: BoundedWorkers) -> int:
    answer = workers.ask({"do": "answer", "echo": "\u202eü\0"})
    assert answer["echo"] == "\u202eü\0"
    return int(answer["pid"])


def test_a_child_answers_again_and_again_and_may_print(shared: BoundedWorkers) -> None:
    assert answered(shared) == answered(shared)


@pytest.mark.parametrize(
    ("order", "cause"),
    [
        ({"do": "fill", "size": 2 * MEMORY}, "memory"),
        ({"do": "hang"}, "time"),
        ({"do": "crash"}, "crash"),
        ({"do": "exit"}, "crash"),
        ({"do": "abort", "words": "Check failed: no such thing\n"}, "crash"),
        ({"do": "abort", "words": "terminate called after throwing an instance of 'std::bad_alloc'\n"}, "memory"),
        ({"do": "abort", "words": "Bad status: Out of memory: realloc of size 522944 failed\n"}, "memory"),
        ({"do": "abort", "words": "cannot allocate memory for thread-local data: ABORT"}, "memory"),
    ],
)
def test_what_a_child_does_not_live_through_is_told_apart_and_the_next_one_answers(
    shared: BoundedWorkers, order: dict[str, object], cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = answered(shared)
    if cause == "time":
        monkeypatch.setattr(shared, "_bounds", replace(shared._bounds, seconds=3))

    with pytest.raises(GaveUpError) as gave_up:
        shared.ask(order)
    monkeypatch.undo()

    assert gave_up.value.cause == cause
    assert gave_up.value.noted == f"doing {order['do']}"
    assert answered(shared) != before
    assert not psutil.pid_exists(before)


def test_one_order_may_have_less_memory_than_others() -> None:
    workers = BoundedWorkers(Bounds("tests.bounded_work:misbehave", MEMORY, seconds=10))
    order = {"do": "fill", "size": MEMORY // 2}
    try:
        assert workers.ask(order) == {"size": MEMORY // 2}
        with pytest.raises(GaveUpError) as gave_up:
            workers.ask(order, memory_bytes=MEMORY // 4)
        assert gave_up.value.cause == "memory"
        assert workers.ask({"do": "answer"}, memory_bytes=MEMORY // 4)["pid"] == answered(workers)
        assert workers.ask(order, memory_bytes=MEMORY) == {"size": MEMORY // 2}, "and the next one as much as ever"
        with pytest.raises(GaveUpError):
            workers.ask({"do": "fill", "size": 2 * MEMORY}, memory_bytes=4 * MEMORY)
    finally:
        workers.close()


def test_what_the_work_raises_on_purpose_keeps_its_class_and_the_child(shared: BoundedWorkers) -> None:
    before = answered(shared)

    with pytest.raises(ConflictError, match="not so") as refused:
        shared.ask({"do": "refuse"})

    assert (refused.value.code, refused.value.field) == ("mine", "that")
    assert answered(shared) == before


def test_a_bug_comes_with_the_childs_traceback(shared: BoundedWorkers) -> None:
    with pytest.raises(BoundedWorkError, match="ZeroDivisionError"):
        shared.ask({"do": "bug"})


def test_a_child_that_was_killed_while_it_waited_is_replaced(shared: BoundedWorkers) -> None:
    before = answered(shared)
    psutil.Process(before).kill()

    eventually(lambda: answered(shared) != before, "another child answers")


def test_a_child_that_grew_leaves_so_that_its_memory_is_given_back() -> None:
    workers = BoundedWorkers(Bounds("tests.bounded_work:misbehave", 1024 * 2**20, seconds=10))
    try:
        before = answered(workers)
        assert workers.ask({"do": "fill", "size": 300 * 2**20}) == {"size": 300 * 2**20}
        assert answered(workers) == before, "what was given back is no reason to leave"

        workers.ask({"do": "keep", "size": 300 * 2**20})

        assert not psutil.pid_exists(before)
        assert workers.pids() == []
    finally:
        workers.close()


def test_a_child_that_nobody_asks_leaves_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    workers = BoundedWorkers(Bounds("tests.bounded_work:misbehave", MEMORY, seconds=10, idle_seconds=0.2))
    try:
        before = answered(workers)

        eventually(lambda: not lives(before), "it leaves")

        # The parent forwards all output of the ended child before a new child answers. So capfd has that output in the
        # second check below.
        assert answered(workers) != before
        assert "Fatal Python error" not in capfd.readouterr().err
    finally:
        workers.close()


def test_a_warm_up_replaces_a_child_that_left_and_no_other() -> None:
    workers = BoundedWorkers(Bounds("tests.bounded_work:misbehave", MEMORY, seconds=10, idle_seconds=0.5))
    try:
        workers.warm_up()
        [first] = workers.pids()
        workers.warm_up()
        assert workers.pids() == [first]
        eventually(lambda: not lives(first), "it leaves")

        workers.warm_up()

        [second] = workers.pids()
        assert second != first
    finally:
        workers.close()


def test_questions_at_once_have_children_of_their_own(shared: BoundedWorkers, tmp_path: Path) -> None:
    begun, until = tmp_path / "begun", tmp_path / "until"
    asking = threading.Thread(target=shared.ask, args=({"do": "wait", "begun": str(begun), "until": str(until)},))
    asking.start()
    eventually(begun.exists, "the first is at work")

    answered(shared)

    assert asking.is_alive()
    until.touch()
    asking.join()


def test_children_end_with_their_parent_also_when_it_is_killed() -> None:
    code = (
        "from flts.processes.bounded import Bounds, BoundedWorkers\n"
        "workers = BoundedWorkers(Bounds('tests.bounded_work:misbehave', 2**28, seconds=100))\n"
        "print(workers.ask({'do': 'answer'})['pid'], flush=True)\n"
        "workers.ask({'do': 'hang'})\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert psutil.pid_exists(child)

    parent.kill()
    parent.wait()
    parent.stdout.close()

    eventually(lambda: not lives(child), "the child ends")


def test_work_that_cannot_be_imported_is_a_bug_and_no_endless_loop() -> None:
    workers = BoundedWorkers(Bounds("tests.bounded_work:nothing_like_it", MEMORY, seconds=1))
    with pytest.raises(BoundedWorkError, match="nothing_like_it"):
        workers.ask({"do": "answer"})
