"""Work on untrusted input in a child process with limits on memory and time.

A library that reads a hostile file may allocate any amount of memory, never return, or crash. The child is then killed
and replaced, the caller gets an error that names the cause, and the service goes on. Children stay alive between calls,
so a further call costs a message and no imports.
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
"""Longest time that a child may take to import its libraries on a busy machine."""
START_TRIES = 3
LAST_WORDS_BYTES = 4096
_OUT_OF_MEMORY = re.compile(rb"bad_alloc|out of memory|cannot allocate memory|can't start new thread", re.IGNORECASE)
"""What C and C++ libraries say before they abort where Python would raise MemoryError."""

Cause = Literal["memory", "time", "crash"]


class GaveUpError(Exception):
    """The child did not live through the work.

    Parameters
    ----------
    cause : str
        ``memory`` (more than it may have), ``time`` (longer than it may take) or ``crash``.
    noted : str
        What the work said last of where it is; empty if nothing.
    detail : str
        How the process ended, for the log.
    """

    def __init__(self, cause: Cause, noted: str, detail: str) -> None:
        super().__init__(f"{cause}: {detail}")
        self.cause: Cause = cause
        self.noted = noted


class BoundedWorkError(Exception):
    """A bug in the work, with the child's own traceback."""


class _DiedBeforeError(Exception):
    """A child ended before it took the order."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How a child is made and what it may take.

    ``work`` is ``module:function``, called in the child as ``function(order, note) -> answer``: plain JSON objects, and
    ``note(text)`` remembers where the work is. ``memory_bytes`` counts from when the child was ready.
    """

    work: str
    memory_bytes: int
    seconds: float
    idle_seconds: float = math.inf
    """A child that was asked nothing for so long leaves."""


class BoundedWorkers:
    """Warm children that each answer one question at a time; as many as are asked at once.

    Any thread may ask. A child ends by itself when this process does.

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
        """Start a child for the first question."""
        with self._lock:
            if not self._idle and not self._closed:
                self._idle.append(_Child(self._bounds))

    def ask(self, order: Mapping[str, Any], *, memory_bytes: int | None = None) -> dict[str, Any]:
        """Have a child do the work and return its answer.

        Parameters
        ----------
        order : dict
            What the work is called with.
        memory_bytes : int, optional
            What it may take beyond what the child holds now, where that is less than the bounds allow.

        Raises
        ------
        FltsError
            What the work raised on purpose, of the same class.
        GaveUpError
            If the child needed more than it may have, or crashed.
        BoundedWorkError
            If the work has a bug.
        """
        child, answer = self._answer(order, memory_bytes)
        if answer.pop("retires"):
            child.kill()
        else:
            self._give_back(child)
        return _result(answer, child.noted)

    def close(self) -> None:
        """End the children that wait; one at work ends with its answer."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for child in idle:
            child.kill()

    def pids(self) -> list[int]:
        """Return the children that wait."""
        with self._lock:
            return [child.pid for child in self._idle]

    def _answer(self, order: Mapping[str, Any], memory_bytes: int | None) -> tuple[_Child, dict[str, Any]]:
        for _ in range(START_TRIES):
            child = self._take()
            try:
                return child, child.ask(order, self._bounds.seconds, memory_bytes)
            except _DiedBeforeError:  # the child died before it read this order, so the order is not the cause
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

    def _give_back(self, child: _Child) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(child)
                return
        child.kill()


class _Child:
    """The parent's side of ``flts.processes.bounded_child``."""

    def __init__(self, bounds: Bounds) -> None:
        self.noted = ""
        self._ready = False
        self._process = subprocess.Popen(  # noqa: S603 - this program's own module, named by the service
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
        """Pass on what the child and its libraries say to standard error, and remember the end of it."""
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
        # SIGKILL comes from the kernel's OOM killer: `oom_score_adj` makes it choose these children first.
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
