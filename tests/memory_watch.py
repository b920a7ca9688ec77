"""Measure the peak memory of running processes and their children, from the kernel's counters."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from tests.files_below import files_below

EVERY_SECONDS = 0.05
MIB = 2**20


class MemoryWatch:
    """Samples processes and their children until the ``with`` block ends.

    Parameters
    ----------
    pids : mapping
        Process ids by name.
    folder : Path, optional
        Folder whose size is sampled too.
    """

    def __init__(self, pids: Mapping[str, int], folder: Path | None = None) -> None:
        self._pids = dict(pids)
        self._folder = folder
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-watch")
        self.itself = dict.fromkeys(pids, 0)
        """Peak bytes of the process alone: the kernel's high-water mark, which includes peaks between two samples."""
        self.family = dict.fromkeys(pids, 0)
        """Largest sample of the process and its children together, in bytes."""
        self.disk = 0
        """Largest sample of the folder's size, in bytes."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(EVERY_SECONDS):
            for name, pid in self._pids.items():
                self.itself[name] = max(self.itself[name], high_water(pid))
                self.family[name] = max(self.family[name], family_bytes(pid))
            if self._folder is not None:
                self.disk = max(self.disk, folder_bytes(self._folder))


def high_water(pid: int) -> int:
    """Return a process's VmHWM in bytes, 0 if the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def family_bytes(pid: int) -> int:
    """Return the resident bytes of a process and its children; shared pages count in each of them."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0
    total = 0
    for one in family:
        try:
            total += one.memory_info().rss
        except psutil.Error:
            continue
    return total


def folder_bytes(folder: Path) -> int:
    """Return the bytes of a folder's files, without the files that are removed meanwhile."""
    total = 0
    for path in files_below(folder):
        with suppress(OSError):
            total += path.lstat().st_size
    return total
