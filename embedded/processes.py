"""Start processes, watch and restart them, and end all of them."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1
RESTART_SECONDS = (0.2, 1.0, 3.0, 10.0)  # seconds before the first, second, third and every further restart
WRONG_SETTINGS = 2
"""Exit code of a service whose settings or store cannot be used; the supervisor does not start it again."""
READY_LOOK_SECONDS = 0.25
"""Seconds between two readiness checks of a program; eleven programs start at once and need the cores."""
STEADY_SECONDS = 10.0
"""Seconds of readiness after which an end is no crash loop: the next wait is the first of RESTART_SECONDS again."""


@dataclass(frozen=True, slots=True)
class Program:
    """One process of the embedded mode."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    ready: Callable[[], bool]
    """Called after each start until it returns True."""
    on_ready: Callable[[], None] | None = None
    """Called when the program is ready again after it died."""
    backend: bool = False
    """Whether it ends after the services: a service that stops still commits and publishes."""


@dataclass
class _Running:
    program: Program
    process: subprocess.Popen[bytes] | None
    restarts: int = 0
    hasty_ends: int = 0
    """Number of ends since it was last ready for STEADY_SECONDS."""
    ready_since: float = 0.0
    next_look: float = 0.0
    next_start: float | None = None
    was_ready: bool = False
    announced: bool = False
    gave_up: bool = False


class Supervisor:
    """Keeps programs running until it is stopped.

    One thread starts all processes and lives as long as they do. On Linux the kernel ends a process with the thread
    that started it, so that a killed launcher leaves no process behind. Elsewhere only `stop` ends them.
    """

    def __init__(self, say: Callable[[str], None], *, stop_seconds: float) -> None:
        self._say = say
        self._stop_seconds = stop_seconds
        self._wanted: list[Program] = []
        self._running: dict[str, _Running] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._thread.start()

    def start(self, program: Program) -> None:
        """Add a program, which the supervisor's thread starts and keeps running."""
        with self._lock:
            self._wanted.append(program)

    def waiting_for(self) -> list[str]:
        """Return the names of programs that are not ready."""
        with self._lock:
            ready = {name for name, running in self._running.items() if running.was_ready}
            return [program.name for program in self._wanted if program.name not in ready]

    def pids(self) -> dict[str, int]:
        """Return the process id of each running program."""
        with self._lock:
            return {
                name: running.process.pid
                for name, running in self._running.items()
                if running.process is not None and running.process.poll() is None
            }

    def refused(self) -> dict[str, Path]:
        """Return the programs that ended because of their settings, with their logs; they are not started again."""
        with self._lock:
            return {name: running.program.log for name, running in self._running.items() if running.gave_up}

    def restarts(self) -> dict[str, int]:
        """Return how often each program was started again."""
        with self._lock:
            return {name: running.restarts for name, running in self._running.items()}

    def stop(self) -> None:
        """End every program, the services before the backends: SIGTERM, then SIGKILL after ``stop_seconds``."""
        self._stop.set()
        self._thread.join(timeout=self._stop_seconds * 2 + 10)

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            self._look()
        self._end_all()

    def _look(self) -> None:
        with self._lock:
            for program in self._wanted:
                running = self._running.setdefault(program.name, _Running(program, None, next_start=0.0))
                if running.gave_up:
                    continue
                if running.next_start is not None:
                    if time.monotonic() >= running.next_start:
                        self._launch(running)
                elif running.process is not None and running.process.poll() is not None:
                    self._died(running, running.process)
            now = time.monotonic()
            waiting = [one for one in self._running.values() if not one.was_ready and now >= one.next_look]
        for running in waiting:
            running.next_look = now + READY_LOOK_SECONDS
            if running.next_start is None and running.program.ready():
                with self._lock:
                    running.was_ready, running.ready_since = True, time.monotonic()
                if running.announced and running.program.on_ready is not None:
                    threading.Thread(target=running.program.on_ready, daemon=True).start()
                running.announced = True

    def _launch(self, running: _Running) -> None:
        try:
            running.process = _launch(running.program)
        except OSError as error:
            # The machine has no free memory or file descriptors. Linux ends the started processes when the thread that
            # started them ends, so this thread must not fail: it tries again later.
            self._say(f"{running.program.name} cannot be started now: {error}")
            running.next_start = time.monotonic() + RESTART_SECONDS[-1]
            return
        running.next_start = None

    def _died(self, running: _Running, process: subprocess.Popen[bytes]) -> None:
        if running.was_ready and time.monotonic() - running.ready_since > STEADY_SECONDS:
            running.hasty_ends = 0
        wait = RESTART_SECONDS[min(running.hasty_ends, len(RESTART_SECONDS) - 1)]
        running.was_ready = False
        end_group(process.pid, signal.SIGKILL)
        code = process.returncode
        if code == WRONG_SETTINGS:
            running.gave_up = True
            return
        running.restarts += 1
        running.hasty_ends += 1
        running.next_start = time.monotonic() + wait
        why = f"signal {-code}" if code < 0 else f"exit code {code}"
        if code > 0 and (reason := why_stopped(running.program.log)):
            why += f", {reason}"
        self._say(f"{running.program.name} ended ({why}); starting it again. Its log: {running.program.log}")

    def _end_all(self) -> None:
        with self._lock:
            started = [
                (self._running[program.name].process, program)
                for program in self._wanted
                if program.name in self._running
            ]
        for backends in (False, True):
            group = [(process, program) for process, program in started if process and program.backend is backends]
            for process, _ in group:
                end_group(process.pid, signal.SIGTERM, group=False)
            deadline = time.monotonic() + self._stop_seconds
            for process, program in group:
                try:
                    process.wait(timeout=max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    self._say(f"{program.name} did not end within {self._stop_seconds:g} s; killing it")
                end_group(process.pid, signal.SIGKILL)
                process.wait()


def why_stopped(log: Path) -> str:
    """Return the reason in a log's last line if that is ``service_stopped``, else an empty string."""
    with contextlib.suppress(OSError, ValueError, IndexError, AttributeError):
        last = json.loads(log.read_text(errors="replace").splitlines()[-1])
        if last.get("event") == "service_stopped":
            return str(last.get("reason", ""))
    return ""


def end_group(pid: int, number: signal.Signals, *, group: bool = True) -> None:
    """Send a signal to a process or to its whole group; do nothing if it has ended."""
    try:
        if group:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def _launch(program: Program) -> subprocess.Popen[bytes]:
    program.log.parent.mkdir(parents=True, exist_ok=True)
    with program.log.open("ab") as log:
        return subprocess.Popen(
            list(program.command),
            env=dict(program.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches only the launcher, which ends the processes in order
            preexec_fn=end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 - its single prctl call is safe with threads
        )


_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def end_with_parent() -> None:
    """Have the kernel end this process (SIGTERM) when the thread that started it ends; on Linux only."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
