"""What the container that a process runs in still has."""

from __future__ import annotations

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
    except (OSError, ValueError):  # no control groups; "max"
        return None


def _read(path: Path) -> str:
    return path.read_text().strip()


def _remembered(stat: Path, prefix: str) -> int:
    found = dict(line.split() for line in stat.read_text().splitlines())
    return int(found[f"{prefix}active_file"]) + int(found[f"{prefix}inactive_file"])
