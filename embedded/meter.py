"""Measure the peak memory of this process and all its descendants."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

import psutil

PERIOD_SECONDS = 1.0


class MemoryMeter:
    """Samples memory once a second while it is entered; ``peak_bytes`` is the highest sum seen.

    A shared page counts once in the sum (PSS) if the kernel measures it, else once for each process (RSS).
    """

    def __init__(self) -> None:
        self.peak_bytes = 0
        self.peak_by_process: dict[str, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory-meter", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        root = psutil.Process()
        while not self._stop.wait(PERIOD_SECONDS):
            total = 0
            for process in [root, *root.children(recursive=True)]:
                try:
                    size, name = _size(process), _name(process)
                except psutil.Error:
                    continue
                total += size
                self.peak_by_process[name] = max(size, self.peak_by_process.get(name, 0))
            self.peak_bytes = max(self.peak_bytes, total)


def _size(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (AttributeError, psutil.AccessDenied):
        return int(process.memory_info().rss)


def _name(process: psutil.Process) -> str:
    line = process.cmdline()
    if "-m" in line:
        return line[line.index("-m") + 1]
    return f"{process.name()} of {_name(parent)}" if (parent := process.parent()) else process.name()
