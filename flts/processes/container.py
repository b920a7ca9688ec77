"""The memory that the container of this process has left, and its division among concurrent work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 60
"""Bytes; control groups of version 1 report a missing limit as a number slightly below 2**63."""


def memory_left_bytes(cgroup_root: Path = _CGROUP_ROOT) -> int | None:
    """Return the memory that the container may still allocate (cgroup v2 or v1), or None without a limit.

    The kernel's cache of files counts as free, because the kernel drops it when a process needs memory.
    """
    version_1 = cgroup_root / "memory"
    try:
        if (cgroup_root / "memory.max").exists():
            limit, used = (_read(cgroup_root / f"memory.{name}") for name in ("max", "current"))
            remembered = _remembered(cgroup_root / "memory.stat", "")
        else:
            limit, used = (_read(version_1 / f"memory.{name}_in_bytes") for name in ("limit", "usage"))
            remembered = _remembered(version_1 / "memory.stat", "total_")
        if int(limit) >= _NO_LIMIT:
            return None
        return max(0, int(limit) - int(used) + remembered)
    except (OSError, ValueError):  # the machine has no control groups, or the limit is "max"
        return None


class MemoryShares:
    """Divides the container's free memory among concurrent callers; a caller waits until a full share is free.

    Parameters
    ----------
    enough : int
        Bytes of a full share.
    kept : int
        Bytes that are never shared.
    least : int
        Bytes that a caller gets in any case.
    left : callable
        Returns the free bytes of the container, or None if it has no limit.
    """

    def __init__(
        self, enough: int, *, kept: int, least: int, left: Callable[[], int | None] = memory_left_bytes
    ) -> None:
        self._enough = enough
        self._kept = kept
        self._least = least
        self._left = left
        self._turn = threading.Condition()
        self._given: list[int] = []

    @contextmanager
    def share(self) -> Iterator[int | None]:
        """Wait for a share, and hold it inside the ``with`` block; yield its bytes, or None without a limit."""
        with self._turn:
            while (free := self._free()) is not None and free < self._enough and self._given:
                self._turn.wait()
            given = None if free is None else max(min(free, self._enough), self._least)
            self._given.append(given or 0)
        try:
            yield given
        finally:
            with self._turn:
                self._given.remove(given or 0)
                self._turn.notify_all()

    def _free(self) -> int | None:
        # `_left` already excludes the memory that running children use, and `_given` contains their whole shares. So
        # used memory is subtracted twice, because the children's use is not measured: the result is too low, never too
        # high.
        left = self._left()
        return None if left is None else left - self._kept - sum(self._given)


def _read(path: Path) -> str:
    return path.read_text().strip()


def _remembered(stat: Path, prefix: str) -> int:
    found = dict(line.split() for line in stat.read_text().splitlines())
    return int(found[f"{prefix}active_file"]) + int(found[f"{prefix}inactive_file"])
