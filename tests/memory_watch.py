"""The most memory that running processes and their children held, as the kernel counted it."""

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
    """Looks at processes and their children until it is left.

    Parameters
    ----------
    pids : mapping
        Process ids by name.
    folder : Path, optional
        Whose files' size is watched, too.
    """

    def __init__(self, pids: Mapping[str, int], folder: Path | None = None) -> None:
        self._pids = dict(pids)
        self._folder = folder
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-watch")
        self.itself = dict.fromkeys(pids, 0)
        """Most bytes of the process alone: its high-water mark since it began, so no moment is missed."""
        self.family = dict.fromkeys(pids, 0)
        """Most bytes of the process and all of its children at one moment."""
        self.disk = 0
        """Most bytes in the folder."""

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
    """Return a process's VmHWM, 0 where it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def family_bytes(pid: int) -> int:
    """Return what a process and its children hold now."""
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
    """Return the size of a folder's files; those that vanish meanwhile count nothing."""
    total = 0
    for path in files_below(folder):
        with suppress(OSError):
            total += path.lstat().st_size
    return total
