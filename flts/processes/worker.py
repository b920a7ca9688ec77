"""Runs long work in a child process, which is killed without progress, at a deadline, and when its parent ends."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from flts.contracts.events import Event
from flts.errors import FltsError, RetryableError
from flts.killpoints import reached
from flts.observability.logs import bound_fields, get_logger
from flts.observability.metrics import Metrics, Observation, repeat
from flts.observability.tracing import current_trace
from flts.processes.replayed import is_replayed
from flts.service import Progress

log = get_logger(__name__)

LOOK_SECONDS = 0.1
START_SECONDS = 180.0
"""Seconds for a child to import its libraries and send ``ready``; importing torch is slow on a busy machine."""
START_TRIES = 3
STACK_SECONDS = 2.0


class WorkInterruptedError(Exception):
    """The service stops, so the work was ended; the attempt does not count."""


class WorkerStartError(Exception):
    """The child process cannot be started; the message is not the cause."""


class WorkerDiedError(RetryableError):
    """The child process ended in the middle of its work."""

    code = "worker_died"


class WorkStuckError(RetryableError):
    """The work reported no progress for too long, and the child process was killed."""

    code = "work_stuck"


class WorkOverdueError(RetryableError):
    """The work exceeded its deadline, and the child process was killed."""

    code = "work_overdue"


class ChildError(Exception):
    """A bug in the handler in the child process, with the child's traceback."""

    def __init__(self, message: str, code: str, remote_traceback: str) -> None:
        super().__init__(message)
        self.code = code
        self.remote_traceback = remote_traceback


@dataclass(frozen=True, slots=True)
class Start:
    """The first message to a child process."""

    sys_path: list[str]
    service: str
    log_level: str
    settings_class: str
    factory: str
    tracking: bool
    niceness: int = 0


@dataclass(frozen=True, slots=True)
class Work:
    """The message with one event for the child's handler."""

    event: Event
    log_fields: dict[str, Any]
    traceparent: str | None
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception of the handler, as the child sends it through the pipe."""

    class_name: str
    message: str
    error: dict[str, Any] | None
    """`FltsError.to_dict` of an `FltsError`; None for any other exception, which is a bug."""
    traceback: str

    def rebuild(self) -> Exception:
        """Return the exception: an `FltsError` again, or a `ChildError` for a bug."""
        if self.error is None:
            return ChildError(f"{self.class_name}: {self.message}", self.class_name, self.traceback)
        error = FltsError.from_dict(self.error)
        error.remote_traceback = self.traceback  # type: ignore[attr-defined] # logs.traceback_of reads it
        return error


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """The handler of a child process and its time limits.

    ``factory`` is ``module:function``, called in the child as ``function(settings, adapters) -> Handler``;
    ``settings_class`` is the import path of the settings class that the child loads from the environment.
    """

    factory: str
    settings_class: str
    service: str
    log_level: str = "INFO"
    tracking: bool = False
    niceness: int = 0
    stuck_seconds: float = 120.0
    deadline_seconds: float = 3600.0
    stuck_event: str = "work_stuck"
    """Name of the log event for work without progress."""


class ChildWorker:
    """Keeps one warm child process, which processes one event at a time.

    On Linux a child ends when the thread that started it ends, so the threads that call `start` and `run` must live as
    long as the worker.
    """

    def __init__(self, spec: WorkerSpec, metrics: Metrics) -> None:
        self._spec = spec
        self._metrics = metrics
        self._child: _Child | None = None

    @property
    def pid(self) -> int | None:
        """The process id of the child; None while no child runs."""
        child = self._child
        return child.process.pid if child is not None and child.process.poll() is None else None

    def start(self) -> None:
        """Start the child process without waiting for its imports; a running child is ended first."""
        self.stop()
        reached("child-start.before")
        self._child = _Child(self._spec, self._metrics)
        reached("child-start.after")

    def wait_until_ready(self, stopping: threading.Event) -> None:
        """Wait until the started child is ready or the service stops.

        Raises
        ------
        WorkerStartError
            If the child ended, or was not ready within `START_SECONDS`.
        """
        child = self._child
        assert child is not None
        deadline = time.monotonic() + START_SECONDS
        while not child.ready.wait(LOOK_SECONDS) and not stopping.is_set():
            if child.process.poll() is not None or time.monotonic() > deadline:
                msg = f"the child process for {self._spec.factory} did not start: {child.describe_end()}"
                raise WorkerStartError(msg)

    def run(self, event: Event, progress: Progress, interrupted: threading.Event) -> Sequence[Event]:
        """Have the child process an event, and return the events that its handler returned.

        Raises
        ------
        WorkInterruptedError
            If ``interrupted`` was set; a child that was working is killed.
        WorkStuckError, WorkOverdueError, WorkerDiedError
            If the child was killed or ended; the next call starts a new child.
        WorkerStartError
            If no child can be started.
        FltsError, ChildError
            The handler's error.
        """
        child = self._ready_child(interrupted)
        trace = current_trace()
        child.begin(progress)
        try:
            child.send(Work(event, bound_fields(), trace.header() if trace else None, is_replayed()))
            return self._wait(child, interrupted)
        finally:
            child.end()

    def stop(self) -> None:
        """Kill the child process and the processes that it started."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def _ready_child(self, interrupted: threading.Event) -> _Child:
        for tries in range(1, START_TRIES + 1):
            if self._child is None or self._child.process.poll() is not None:
                self.start()
            child = self._child
            assert child is not None
            try:
                self.wait_until_ready(interrupted)
            except WorkerStartError as error:
                self.stop()
                if tries == START_TRIES:
                    raise
                log.warning("worker_start_error", factory=self._spec.factory, error=str(error), attempt=tries)
                continue
            if interrupted.is_set():
                msg = "the service stops"
                raise WorkInterruptedError(msg)
            return child
        raise AssertionError  # unreachable: the last attempt returns or raises

    def _wait(self, child: _Child, interrupted: threading.Event) -> Sequence[Event]:
        started = time.monotonic()
        while True:
            try:
                answer = child.answers.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                self._look(child, interrupted, started)
                continue
            if answer is None:
                reason = child.describe_end()
                self.stop()
                msg = f"the child process ended in the middle of its work: {reason}"
                raise WorkerDiedError(msg)
            if isinstance(answer, Failure):
                raise answer.rebuild()
            produced: Sequence[Event] = answer
            return produced

    def _look(self, child: _Child, interrupted: threading.Event, started: float) -> None:
        spec, now = self._spec, time.monotonic()
        if interrupted.is_set():
            self.stop()
            msg = "the service stops, and the work was not done in time"
            raise WorkInterruptedError(msg)
        silent = now - child.last_progress
        if silent > spec.stuck_seconds:
            stack = child.stack()
            log.error(spec.stuck_event, silent_seconds=round(silent, 1), child_pid=child.process.pid, stack=stack)
            self._metrics.training_stuck.inc()
            self.stop()
            msg = f"no progress for {spec.stuck_seconds:g} s (TRAIN_STUCK_SECONDS); it was here:\n{stack[-1500:]}"
            raise WorkStuckError(msg)
        if now - started > spec.deadline_seconds:
            stack = child.stack()
            log.error("work_overdue", deadline_seconds=spec.deadline_seconds, stack=stack)
            self.stop()
            msg = f"not done within {spec.deadline_seconds:g} s (WORK_DEADLINE_SECONDS)"
            raise WorkOverdueError(msg)


@dataclass
class _Child:
    """One child process and its pipes."""

    spec: WorkerSpec
    metrics: Metrics
    ready: threading.Event = field(default_factory=threading.Event)
    answers: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)
    last_progress: float = 0.0

    def __post_init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._lifeline_read, self._lifeline = os.pipe()
        self._stack_file = tempfile.TemporaryFile()  # noqa: SIM115 - the file stays open as long as the child runs
        self._progress: Progress | None = None
        stack_fd = self._stack_file.fileno()
        try:
            self.process = subprocess.Popen(  # noqa: S603 - this interpreter and a module of FLTS
                [
                    *(sys.executable, "-m", "flts.runtime.child"),
                    *(str(theirs.fileno()), str(self._lifeline_read), str(stack_fd), str(os.getpid())),
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), self._lifeline_read, stack_fd),
                # With its own process group the child gets no Ctrl-C, and one kill ends its own children (Stan) too.
                process_group=0,
            )
        finally:
            theirs.close()
            os.close(self._lifeline_read)
        self._pipe = Connection(ours.detach())
        self._sending = threading.Lock()
        threading.Thread(target=self._read, name=f"child-{self.process.pid}", daemon=True).start()
        spec = self.spec
        self.send(
            Start(
                list(sys.path),
                spec.service,
                spec.log_level,
                spec.settings_class,
                spec.factory,
                spec.tracking,
                spec.niceness,
            )
        )

    def begin(self, progress: Progress) -> None:
        self.last_progress = time.monotonic()
        self._progress = progress

    def end(self) -> None:
        self._progress = None

    def send(self, message: Start | Work) -> None:
        # A failed write means that the child has ended; the thread that reads its answers reports that.
        with contextlib.suppress(OSError), self._sending:
            self._pipe.send(message)

    def stack(self) -> str:
        """Return the stacks of the child's threads; works also while the child executes C code of a library."""
        before = os.fstat(self._stack_file.fileno()).st_size
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGUSR1)
        deadline = time.monotonic() + STACK_SECONDS
        size, grown = before, before
        while time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
            grown = os.fstat(self._stack_file.fileno()).st_size
            if grown > before and grown == size:
                break
            size = grown
        text = os.pread(self._stack_file.fileno(), grown - before, before).decode("utf-8", "replace")
        return text or "the process did not answer: it is stopped, or waits inside the kernel"

    def kill(self) -> None:
        if self.process.poll() is None:
            self._kill_group()
        self.process.wait()
        with contextlib.suppress(OSError):
            os.close(self._lifeline)
        self._lifeline = -1
        self._stack_file.close()

    def describe_end(self) -> str:
        try:
            code = self.process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return "it did not get ready in time"
        if code == -signal.SIGKILL:
            return "killed (signal 9): out of memory, or by hand"
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def _read(self) -> None:
        while True:
            try:
                kind, content = self._pipe.recv()
            except (EOFError, OSError):
                self._kill_group()  # ends the processes that the ended child had started
                self.answers.put(None)
                self._pipe.close()
                return
            if kind == "metric":
                self._observe(content)
            elif kind == "progress":
                self.last_progress = time.monotonic()
                progress = self._progress
                if progress is not None:
                    progress(**content)
            elif kind == "ready":
                self.ready.set()
            else:
                self.answers.put(content)

    def _observe(self, observation: Observation) -> None:
        try:
            repeat(self.metrics, observation)
        except (AttributeError, ValueError) as error:  # a child of another version of FLTS sent an unknown metric
            log.warning("metric_unknown", metric=observation.metric, error=str(error))


def settings_path(settings: object) -> str:
    """Return the import path of a settings object's class, for `WorkerSpec.settings_class`."""
    kind = type(settings)
    module = kind.__module__
    if module == "__main__":  # started with ``python -m``; the child's __main__ is another module
        spec = sys.modules["__main__"].__spec__
        module = spec.name if spec is not None else module
    return f"{module}:{kind.__qualname__}"
