"""The number of threads of a training, and how they wait.

More threads than cores can make a training 15 to 20 times slower: OpenMP's threads wait for each other in a busy loop,
while other processes need the cores.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

MOST_THREADS = 8
"""Threads; a batch of 256 windows does not use more."""
_CGROUP_ROOT = Path("/sys/fs/cgroup")


def cap_threads(threads: int) -> None:
    """Limit OpenMP to ``threads`` that sleep while they wait; call before torch or ONNX Runtime is imported.

    OpenMP reads its environment variables once, when its library is loaded. This function writes them, because the
    setting of FLTS is `TRAIN_THREADS`.
    """
    for name, value in (("OMP_NUM_THREADS", str(threads)), ("OMP_WAIT_POLICY", "PASSIVE")):
        os.environ[name] = value  # noqa: TID251 - written for the library, never read


def default_threads(cgroup_root: Path = _CGROUP_ROOT) -> int:
    """Return the CPU limit of this container, or half of the machine's cores without a limit; 1 to `MOST_THREADS`.

    Half, because without limits the trainers of GRU and LSTM run at the same time on the same cores: both trainings
    take 6.5 s side by side with one thread each, and 9.8 s one after the other with two threads.
    """
    limit = cpu_limit(cgroup_root)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = cores // 2 if limit is None else min(math.floor(limit), cores)
    return max(1, min(threads, MOST_THREADS))


def cpu_limit(cgroup_root: Path = _CGROUP_ROOT) -> float | None:
    """Return the CPUs that this container may use by its cgroup (v2 or v1), or None without a limit."""
    try:
        quota, period = (cgroup_root / "cpu.max").read_text().split()[:2]
    except (OSError, ValueError):
        try:
            quota = (cgroup_root / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroup_root / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    try:
        limit = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # the file contains "max"
        return None
    return limit if limit > 0 else None  # cgroup v1 states -1 if there is no limit


def resident_bytes() -> int:
    """Return this process's resident memory in bytes; 0 if the system does not report it."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
