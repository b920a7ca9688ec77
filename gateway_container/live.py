"""The live state of runs from the topics: the latest progress, and the clients that watch a run.

This state is only a cache; the records in the store are authoritative. After a restart the next event fills it again.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

MOST_RUNS = 500


@dataclass(frozen=True, slots=True)
class Note:
    """One message to a watcher."""

    kind: str
    """``progress``, or ``changed``: a record in the store may have changed, so the watcher reads the records again."""
    data: dict[str, Any] = field(default_factory=dict)


class Watcher:
    """One client that follows a run; belongs to the event loop that created it."""

    def __init__(self, size: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Note] = asyncio.Queue(size)
        self._ended = asyncio.Event()
        self.reason = ""

    def tell(self, note: Note) -> None:
        """Add a note to the queue, from any thread; if the queue is full, end the stream."""
        self._from_any_thread(lambda: self._put(note))

    def end(self, reason: str) -> None:
        """End the stream from any thread."""
        self._from_any_thread(lambda: self._end(reason))

    async def next(self, timeout_seconds: float) -> Note | None:
        """Return the next note; None after ``timeout_seconds``, or at once if the stream was ended."""
        if self._ended.is_set():
            return None
        if not self._queue.empty():
            return self._queue.get_nowait()
        getting = asyncio.ensure_future(self._queue.get())
        ending = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait({getting, ending}, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
            return getting.result() if getting.done() else None
        finally:
            getting.cancel()
            ending.cancel()

    @property
    def ended(self) -> bool:
        """Return whether the stream must end."""
        return self._ended.is_set()

    def _put(self, note: Note) -> None:
        try:
            self._queue.put_nowait(note)
        except asyncio.QueueFull:
            self._end("too_slow")

    def _end(self, reason: str) -> None:
        if not self._ended.is_set():
            self.reason = reason
            self._ended.set()

    def _from_any_thread(self, call: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:
            # The event loop is closed, so no watcher waits any more and the call is dropped.
            return


@dataclass(slots=True)
class _LiveRun:
    progress: dict[str, dict[str, Any]] = field(default_factory=dict)
    moved: float = 0.0


class LiveRuns:
    """Latest progress per run and stage, and a fan-out to watchers; safe to use from any thread."""

    def __init__(self, *, queue_size: int, clock: Callable[[], float] = time.time) -> None:
        self._queue_size = queue_size
        self._clock = clock
        self._lock = threading.Lock()
        self._runs: OrderedDict[str, _LiveRun] = OrderedDict()
        self._watchers: dict[str, set[Watcher]] = {}
        self._closed = False

    def progressed(self, run_id: str, stage: str, record: dict[str, Any]) -> None:
        """Keep a stage's latest progress and notify the run's watchers."""
        with self._lock:
            self._touch(run_id).progress[stage] = record
            watchers = tuple(self._watchers.get(run_id, ()))
        for watcher in watchers:
            watcher.tell(Note("progress", record))

    def changed(self, run_id: str) -> None:
        """Notify the run's watchers that a record has changed."""
        with self._lock:
            self._touch(run_id)
            watchers = tuple(self._watchers.get(run_id, ()))
        for watcher in watchers:
            watcher.tell(Note("changed"))

    def progress(self, run_id: str) -> dict[str, dict[str, Any]]:
        """Return the latest progress of each stage of a run."""
        with self._lock:
            run = self._runs.get(run_id)
            return dict(run.progress) if run else {}

    def moved(self, run_id: str) -> float | None:
        """Return the epoch seconds of the run's last progress or change, or None."""
        with self._lock:
            run = self._runs.get(run_id)
            return run.moved if run else None

    @contextmanager
    def watching(self, run_id: str) -> Iterator[Watcher]:
        """Provide a watcher of one run; must be called inside an event loop."""
        watcher = Watcher(self._queue_size)
        with self._lock:
            closed = self._closed
            self._watchers.setdefault(run_id, set()).add(watcher)
        if closed:
            watcher.end("shutdown")
        try:
            yield watcher
        finally:
            with self._lock:
                left = self._watchers.get(run_id, set())
                left.discard(watcher)
                if not left:
                    self._watchers.pop(run_id, None)

    def watchers(self) -> int:
        """Return the number of watchers."""
        with self._lock:
            return sum(len(watchers) for watchers in self._watchers.values())

    def close(self) -> None:
        """End every stream, also those that begin later, because the service stops."""
        with self._lock:
            self._closed = True
            watchers = [watcher for group in self._watchers.values() for watcher in group]
        for watcher in watchers:
            watcher.end("shutdown")

    def _touch(self, run_id: str) -> _LiveRun:
        run = self._runs.setdefault(run_id, _LiveRun())
        run.moved = self._clock()
        self._runs.move_to_end(run_id)
        while len(self._runs) > MOST_RUNS:
            self._runs.popitem(last=False)
        return run
