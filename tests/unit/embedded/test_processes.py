"""The launcher restarts programs, ends them in order, and does not restart a program that would fail again."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from embedded import processes
from embedded.processes import Program, Supervisor
from tests.eventually import eventually


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def supervisor(said: list[str]) -> Iterator[Supervisor]:
    supervisor = Supervisor(said.append, stop_seconds=2)
    yield supervisor
    supervisor.stop()


def program(tmp_path: Path, name: str, code: str, *, backend: bool = False) -> Program:
    command = [sys.executable, "-c", code]
    return Program(name, command, dict(os.environ), tmp_path / f"{name}.log", lambda: True, backend=backend)


def test_a_program_that_is_killed_is_started_again(supervisor: Supervisor, said: list[str], tmp_path: Path) -> None:
    supervisor.start(program(tmp_path, "service", "import time; time.sleep(60)"))
    first = eventually(lambda: supervisor.pids().get("service"), "the program runs")

    os.kill(first, signal.SIGKILL)

    eventually(lambda: supervisor.pids().get("service") not in {None, first}, "it runs again")
    assert supervisor.restarts() == {"service": 1}
    assert "service ended (signal 9)" in said[0]


def test_a_program_that_was_steady_before_each_end_starts_again_at_once(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "STEADY_SECONDS", 0.3)
    monkeypatch.setattr(processes, "RESTART_SECONDS", (0.05, 60.0))
    supervisor.start(program(tmp_path, "service", "import time; time.sleep(60)"))
    known: set[int] = set()

    for _ in range(3):
        pid = eventually(lambda: next(iter(set(supervisor.pids().values()) - known), None), "it runs again")
        known.add(pid)
        eventually(lambda: not supervisor.waiting_for(), "it is ready")
        time.sleep(0.5)
        os.kill(pid, signal.SIGKILL)

    eventually(lambda: supervisor.restarts() == {"service": 3}, "it was started after each end")


def test_a_program_that_ends_at_once_waits_longer_and_longer(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "RESTART_SECONDS", (0.05, 60.0))
    supervisor.start(program(tmp_path, "service", "raise SystemExit(1)"))

    eventually(lambda: supervisor.restarts() == {"service": 2}, "it ended twice")
    time.sleep(1)

    assert supervisor.restarts() == {"service": 2}


def test_why_a_service_ended_is_said_with_its_end(supervisor: Supervisor, said: list[str], tmp_path: Path) -> None:
    last = '{"event": "service_stopped", "reason": "store http://s3:9000: no answer"}'
    supervisor.start(program(tmp_path, "service", f"print('{last}'); raise SystemExit(1)"))

    eventually(lambda: said, "the program ended")

    assert "service ended (exit code 1, store http://s3:9000: no answer); starting it again" in said[0]


def test_a_program_that_refuses_its_settings_is_not_started_again(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start(program(tmp_path, "service", "raise SystemExit(2)"))

    refused = eventually(supervisor.refused, "the program gave up")

    assert refused == {"service": tmp_path / "service.log"}
    assert supervisor.restarts() == {"service": 0}


def test_backends_are_ended_after_the_services_that_need_them(said: list[str], tmp_path: Path) -> None:
    supervisor = Supervisor(said.append, stop_seconds=60)
    order = tmp_path / "order"
    wait = (
        "import signal, sys, time\n"
        "def end(*_):\n"
        "    time.sleep({delay}); open({order!r}, 'a').write({name!r}); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end); print('ready', flush=True); time.sleep(60)"
    )
    for name, delay, backend in (("b", 0, True), ("s", 0.3, False)):
        code = wait.format(order=str(order), name=name, delay=delay)
        supervisor.start(program(tmp_path, name, code, backend=backend))
    for name in ("b", "s"):
        log = tmp_path / f"{name}.log"
        eventually(lambda log=log: log.exists() and log.read_text() == "ready\n", f"{name} listens")

    supervisor.stop()

    assert order.read_text() == "sb"


def test_a_program_that_does_not_end_is_killed_and_nothing_is_left(said: list[str], tmp_path: Path) -> None:
    supervisor = Supervisor(said.append, stop_seconds=0.3)
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
    )
    supervisor.start(program(tmp_path, "stubborn", code))
    eventually(lambda: (tmp_path / "stubborn.log").exists() and (tmp_path / "stubborn.log").read_text(), "it listens")
    pid = supervisor.pids()["stubborn"]

    supervisor.stop()

    assert not psutil.pid_exists(pid)
    assert any("killing it" in line for line in said)


def test_a_command_that_cannot_be_started_ends_nobody_else(
    supervisor: Supervisor, said: list[str], tmp_path: Path
) -> None:
    supervisor.start(program(tmp_path, "good", "import time; time.sleep(60)"))
    supervisor.start(Program("bad", [str(tmp_path / "absent")], {}, tmp_path / "bad.log", lambda: True))

    eventually(lambda: any("bad cannot be started" in line for line in said), "it is said")

    assert eventually(lambda: supervisor.pids().get("good"), "the other runs")
