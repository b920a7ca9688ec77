"""The server's side of the fetching child, which serves rounds until a round downloads, fails or hangs.

A round in a running child takes milliseconds. A new child imports the store's client first, and an autoscaler would
count that CPU time as load. After a child has ended, the next round starts a new one.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from flts.killpoints import reached
from inference_container.protocol import Done, Fact, Order, decode_fact, encode_order

FETCH = (sys.executable, "-m", "inference_container.fetch")


class ChildFailedError(Exception):
    """The child did not finish its round; the message contains the reason."""


class FetchingChild:
    """The fetching child: one process at a time, started by the first round that needs it.

    Any thread may start a round; it waits until the round of another thread has ended.

    Parameters
    ----------
    command : sequence of str
        The child's command line.
    """

    def __init__(self, command: Sequence[str] = FETCH) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped: subprocess.Popen[bytes] | None = None
        self._at_work = threading.Lock()

    @contextmanager
    def round(self, order: Order, silence_seconds: float) -> Iterator[Iterator[Fact]]:
        """Send an order and yield the facts that the child reports, as they arrive; a child that fails is ended.

        Parameters
        ----------
        order : Order
        silence_seconds : float
            A child that reports no fact for this long is stopped.

        Raises
        ------
        ChildFailedError
            If the child was stopped, or ended before it reported ``Done``.
        OSError, msgspec.MsgspecError
            If the child cannot be started, or a fact cannot be decoded.
        """
        with self._at_work:
            process = self._living()
            assert process.stdin is not None
            assert process.stdout is not None
            watchdog = _Watchdog(silence_seconds, partial(self._stop, process))
            lasts = False
            try:
                process.stdin.write(encode_order(order) + b"\n")
                process.stdin.flush()
                facts = _Facts(watchdog.watch(process.stdout))
                yield iter(facts)
                if facts.done is None:
                    code = process.wait(silence_seconds)
                    msg = f"said nothing for {silence_seconds:g} s" if watchdog.fired else f"ended with code {code}"
                    raise ChildFailedError(msg)
                lasts = facts.done.lasts
            finally:
                watchdog.stop()
                if not lasts:
                    self.close()

    def interrupt(self) -> None:
        """End the child if a round is under way; the round then fails."""
        process = self._process
        if process is not None and self._at_work.locked():
            self._stop(process)

    def close(self) -> None:
        """End the child."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                # The child ended before it read the order, so the rest of the order cannot be written. The pipe is
                # closed all the same.
                continue

    def _stop(self, process: subprocess.Popen[bytes]) -> None:
        # For a moment after the kill, poll() still reports the process as alive. `_living` compares with `_stopped`, so
        # that the next round does not use the killed process.
        self._stopped = process
        process.kill()

    def _living(self) -> subprocess.Popen[bytes]:
        if self._process is not None and (self._process is self._stopped or self._process.poll() is not None):
            # The child has ended since the last round or was killed. `close` removes the rest of it; a new child starts
            # below.
            self.close()
        if self._process is None:
            reached("child-start.before")
            self._process = subprocess.Popen(  # noqa: S603 - the command is this program's own module
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            reached("child-start.after")
        return self._process


class _Facts:
    """The facts that a child reports in a round, up to ``Done``."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines = lines
        self.done: Done | None = None

    def __iter__(self) -> Iterator[Fact]:
        for line in self._lines:
            fact = decode_fact(line)
            if isinstance(fact, Done):
                self.done = fact
                return
            yield fact


class _Watchdog:
    """Calls a function when a stream has been silent for too long."""

    def __init__(self, seconds: float, bite: Callable[[], None]) -> None:
        self._seconds = seconds
        self._bite = bite
        self._timer: threading.Timer | None = None
        self.fired = False
        self._restart()

    def watch(self, stream: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the stream's lines."""
        for line in stream:
            self._restart()
            yield line

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _restart(self) -> None:
        self.stop()
        self._timer = threading.Timer(self._seconds, self._fire)
        self._timer.daemon = True
        self._timer.start()

    def _fire(self) -> None:
        self.fired = True
        self._bite()
