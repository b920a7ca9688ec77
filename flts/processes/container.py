"""The memory that the container of this process has left."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 60
"""What version 1 of control groups calls no limit is a little less than 2**63."""


def memory_left_bytes(cgroup_root: Path = _CGROUP_ROOT) -> int | None:
    """Return what the container may use beyond what it holds now (cgroup v2 or v1), or None without a limit.

    Files that the kernel merely remembers are no use: it gives them up when memory is asked for.
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
    """Divides what the container has left among those who work at the same time: enough for each, or they take turns.

    Parameters
    ----------
    enough : int
        Bytes that one of them takes at most.
    kept : int
        Bytes that none of them gets.
    least : int
        Bytes that one gets in any case.
    left : callable
        Returns the bytes that the container has left, None where it has no limit.
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
        """Wait for a share and hold it: its bytes, or None without a limit."""
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
        # Memory that the other children already use is counted twice, because their use is not measured.
        left = self._left()
        return None if left is None else left - self._kept - sum(self._given)


def _read(path: Path) -> str:
    return path.read_text().strip()


def _remembered(stat: Path, prefix: str) -> int:
    found = dict(line.split() for line in stat.read_text().splitlines())
    return int(found[f"{prefix}active_file"]) + int(found[f"{prefix}inactive_file"])
