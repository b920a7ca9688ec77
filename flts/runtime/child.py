"""The child process of `flts.processes.worker`, started as ``python -m flts.runtime.child``."""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

from flts import killpoints
from flts.errors import FltsError
from flts.observability.logs import bind, configure_logs, secret_values, traceback_of
from flts.observability.metrics import Observation, send_metrics_to
from flts.observability.tracing import Trace, use_trace
from flts.processes.replayed import replaying
from flts.processes.worker import Failure, Start, Work
from flts.runtime.adapters import connect
from flts.service import Handler

PR_SET_PDEATHSIG = 1
MAX_TRACEBACK = 20_000


def main() -> int:
    """Process events until the parent ends."""
    pipe_fd, lifeline_fd, stack_fd, parent = map(int, sys.argv[1:5])
    for descriptor in (pipe_fd, lifeline_fd, stack_fd):
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - the function has no keyword argument
    # The child ignores Ctrl-C, because the parent handles it and gives the work time to finish.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent(parent, lifeline_fd)
    faulthandler.register(signal.SIGUSR1, file=stack_fd, all_threads=True)
    pipe = _Pipe(Connection(pipe_fd))
    start = pipe.receive()
    assert isinstance(start, Start)
    os.nice(start.niceness)
    sys.path[:] = start.sys_path
    settings = _named(start.settings_class).load()
    configure_logs(start.service, start.log_level, secrets=secret_values(settings))
    send_metrics_to(pipe.send_metric)
    if settings.kill_points is not None:
        killpoints.switch_on(settings.kill_points, f"{start.service}.child")
    handler: Handler = _named(start.factory)(settings, connect(settings, tracking=start.tracking))
    killpoints.reached("child-ready.before")
    pipe.send("ready", None)
    killpoints.reached("child-ready.after")
    while True:
        work = pipe.receive()
        bound = bind(**work.log_fields)
        with bound, use_trace(Trace.parse(work.traceparent)), replaying(replayed=work.replayed):
            _serve(handler, work, pipe)


class _Pipe:
    """The pipe to the parent. Any thread may send."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def receive(self) -> Any:
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            os._exit(1)  # the parent has ended

    def send(self, kind: str, content: object) -> None:
        try:
            with self._lock:
                self._connection.send((kind, content))
        except OSError:
            os._exit(1)

    def send_metric(self, observation: Observation) -> None:
        self.send("metric", observation)

    def send_progress(
        self,
        stage: str,
        state: str,
        *,
        epoch: int | None = None,
        epochs: int | None = None,
        loss: float | None = None,
        detail: str | None = None,
    ) -> None:
        known = {"epoch": epoch, "epochs": epochs, "loss": loss, "detail": detail}
        self.send("progress", {"stage": stage, "state": state, **known})


def _serve(handler: Handler, work: Work, pipe: _Pipe) -> None:
    killpoints.reached("work.before", type(work.event).__name__, work.event.identifier)
    try:
        produced = list(handler(work.event, pipe.send_progress))
    except Exception as error:  # noqa: BLE001 - the parent's consume loop handles every error
        pipe.send("failed", _describe(error))
    else:
        killpoints.reached("work.after", type(work.event).__name__, work.event.identifier)
        pipe.send("done", produced)


def _describe(error: Exception) -> Failure:
    return Failure(
        class_name=type(error).__name__,
        message=str(error),
        error=error.to_dict() if isinstance(error, FltsError) else None,
        traceback=traceback_of(error)[-MAX_TRACEBACK:],
    )


def _end_with_parent(parent: int, lifeline_fd: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent ended before prctl was called, so the kernel sends no signal
            os._exit(1)

    def watch() -> None:
        os.read(lifeline_fd, 1)  # returns when the parent closes the pipe's other end, or ends
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


def _named(path: str) -> Any:
    module, _, name = path.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


if __name__ == "__main__":
    raise SystemExit(main())
