"""Runs work on untrusted input in child processes with limits on memory and time.

A library that reads a hostile file may allocate any amount of memory, never return, or crash. The parent then kills and
replaces the child, the caller gets an error with the cause, and the service continues. Children stay alive between
calls, so only the first call of a child waits for imports.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from flts.errors import FltsError

START_SECONDS = 120.0
"""Seconds for a child to import its libraries; importing is slow on a busy machine."""
START_TRIES = 3
LAST_WORDS_BYTES = 4096
_OUT_OF_MEMORY = re.compile(rb"bad_alloc|out of memory|cannot allocate memory|can't start new thread", re.IGNORECASE)
"""Messages that C and C++ libraries write before they abort, where Python would raise MemoryError."""

Cause = Literal["memory", "time", "crash"]


class GaveUpError(Exception):
    """The child process ended before it finished the work.

    Parameters
    ----------
    cause : str
        ``memory`` (above its limit), ``time`` (above its limit) or ``crash``.
    noted : str
        The last ``note`` of the work about its position; empty without a note.
    detail : str
        How the process ended, for the log.
    """

    def __init__(self, cause: Cause, noted: str, detail: str) -> None:
        super().__init__(f"{cause}: {detail}")
        self.cause: Cause = cause
        self.noted = noted


class BoundedWorkError(Exception):
    """A bug in the work, with the child's traceback; also raised if no child starts."""


class _DiedBeforeError(Exception):
    """A child process ended before it read the order."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The work of a child process and its limits.

    ``work`` is ``module:function``, called in the child as ``function(order, note) -> answer``. Order and answer are
    JSON objects, and ``note(text)`` sends the position of the work to the parent. ``memory_bytes`` is the address space
    that a child may add after its imports; ``seconds`` is the limit for one order.
    """

    work: str
    memory_bytes: int
    seconds: float
    idle_seconds: float = math.inf
    """A child without an order for so long ends."""


class BoundedWorkers:
    """A pool of warm child processes. Each processes one order at a time, and the pool grows with concurrent calls.

    Thread-safe. A child ends by itself when this process ends.

    Parameters
    ----------
    bounds : Bounds
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._lock = threading.Lock()
        self._idle: list[_Child] = []
        self._closed = False

    def warm_up(self) -> None:
        """Start a child if none is idle, so that the next call does not wait for its imports."""
        with self._lock:
            self._drop_ended()
            if not self._idle and not self._closed:
                self._idle.append(_Child(self._bounds))

    def ask(self, order: Mapping[str, Any], *, memory_bytes: int | None = None) -> dict[str, Any]:
        """Have a child do the work and return its answer.

        Parameters
        ----------
        order : dict
            The argument of the work.
        memory_bytes : int, optional
            A smaller limit for this order: address space in bytes beyond what the child has now.

        Raises
        ------
        FltsError
            The error that the work raised, of the same class.
        GaveUpError
            If the child exceeded its memory or time, or crashed.
        BoundedWorkError
            If the work has a bug, or no child lives until it has read the order.
        """
        child, answer = self._answer(order, memory_bytes)
        if answer.pop("retires"):
            child.kill()
        else:
            self._give_back(child)
        return _result(answer, child.noted)

    def close(self) -> None:
        """End the idle children; a working child ends after its answer."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for child in idle:
            child.kill()

    def pids(self) -> list[int]:
        """Return the process ids of the idle children."""
        with self._lock:
            return [child.pid for child in self._idle]

    def _answer(self, order: Mapping[str, Any], memory_bytes: int | None) -> tuple[_Child, dict[str, Any]]:
        for _ in range(START_TRIES):
            child = self._take()
            try:
                return child, child.ask(order, self._bounds.seconds, memory_bytes)
            except _DiedBeforeError:  # the child ended before it read this order, so the order is not the cause
                child.kill()
            except BaseException:
                child.kill()
                raise
        msg = f"{self._bounds.work}: no child lives long enough to take an order; the log has their last words"
        raise BoundedWorkError(msg)

    def _take(self) -> _Child:
        with self._lock:
            while self._idle:
                child = self._idle.pop()
                if child.is_alive():
                    return child
                child.kill()
        return _Child(self._bounds)

    def _drop_ended(self) -> None:
        """Forget the children that ended by themselves because they were idle for too long."""
        known, self._idle = self._idle, []
        for child in known:
            if child.is_alive():
                self._idle.append(child)
            else:
                child.kill()

    def _give_back(self, child: _Child) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(child)
                return
        child.kill()


class _Child:
    """The parent's side of a ``flts.processes.bounded_child`` process."""

    def __init__(self, bounds: Bounds) -> None:
        self.noted = ""
        self._ready = False
        self._process = subprocess.Popen(  # noqa: S603 - the module is part of FLTS, and the service names the work
            [sys.executable, "-m", "flts.processes.bounded_child", *_arguments(bounds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._timed_out = False
        self._last_words = b""
        self._hearing = threading.Thread(target=self._hear, name="last-words", daemon=True)
        self._hearing.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, order: Mapping[str, Any], seconds: float, memory_bytes: int | None) -> dict[str, Any]:
        self.noted = ""
        assert self._process.stdin is not None
        line = json.dumps({"order": dict(order), "seconds": seconds, "memory_bytes": memory_bytes}) + "\n"
        try:
            if not self._ready:
                self._expect("ready", START_SECONDS)
                self._ready = True
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
            self._expect("taken", START_SECONDS)
        except (GaveUpError, OSError) as error:
            raise _DiedBeforeError from error
        return self._expect("answer", seconds)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._hearing.join()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _expect(self, kind: str, seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        timer = threading.Timer(seconds, self._overdue)
        timer.daemon = True
        timer.start()
        try:
            for line in self._process.stdout:
                message: dict[str, Any] = json.loads(line)
                if "note" in message:
                    self.noted = message["note"]
                if kind in message:
                    content: dict[str, Any] = message[kind]
                    return content
        finally:
            timer.cancel()
        raise self._gave_up()

    def _overdue(self) -> None:
        self._timed_out = True
        self._process.kill()

    def _hear(self) -> None:
        """Copy the child's standard error to this process's, and keep the last bytes."""
        assert self._process.stderr is not None
        while words := os.read(self._process.stderr.fileno(), LAST_WORDS_BYTES):
            self._last_words = (self._last_words + words)[-LAST_WORDS_BYTES:]
            with contextlib.suppress(OSError):
                os.write(2, words)

    def _gave_up(self) -> GaveUpError:
        code = self._process.wait()
        if self._timed_out or code == -signal.SIGALRM:
            return GaveUpError("time", self.noted, "it was stopped at its deadline")
        self._hearing.join()
        # The child did not reach its deadline, so SIGKILL is taken for the kernel's OOM killer. `oom_score_adj` makes
        # the OOM killer choose these children first.
        starved = code == -signal.SIGKILL or _OUT_OF_MEMORY.search(self._last_words)
        cause: Cause = "memory" if starved else "crash"
        return GaveUpError(cause, self.noted, f"the child ended with code {code}")


def _arguments(bounds: Bounds) -> list[str]:
    return [bounds.work, str(bounds.memory_bytes), str(bounds.idle_seconds)]


def _result(answer: dict[str, Any], noted: str) -> dict[str, Any]:
    if "memory" in answer:
        cause: Cause = "memory"
        raise GaveUpError(cause, noted, str(answer["memory"]))
    if "bug" in answer:
        raise BoundedWorkError(answer["bug"])
    if "error" in answer:
        raise FltsError.from_dict(answer["error"])
    result: dict[str, Any] = answer["result"]
    return result
