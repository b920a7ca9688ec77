from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flts.training.threads import MOST_THREADS, cpu_limit, default_threads, resident_bytes


def cgroup(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        file = folder / name.replace("__", "/").replace("_dot_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def test_the_limit_of_either_kind_of_cgroup_is_read(tmp_path: Path) -> None:
    assert cpu_limit(cgroup(tmp_path / "v2", cpu_dot_max="150000 100000\n")) == 1.5
    assert cpu_limit(cgroup(tmp_path / "free", cpu_dot_max="max 100000\n")) is None
    assert (
        cpu_limit(cgroup(tmp_path / "v1", cpu__cpu_dot_cfs_quota_us="50000\n", cpu__cpu_dot_cfs_period_us="100000\n"))
        == 0.5
    )
    assert (
        cpu_limit(cgroup(tmp_path / "v1free", cpu__cpu_dot_cfs_quota_us="-1\n", cpu__cpu_dot_cfs_period_us="100000\n"))
        is None
    )
    assert cpu_limit(tmp_path / "nothing") is None


def test_threads_never_exceed_the_limit_the_cores_or_the_cap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert default_threads(cgroup(tmp_path / "half", cpu_dot_max="50000 100000")) == 1
    assert default_threads(cgroup(tmp_path / "three", cpu_dot_max="390000 100000")) == 3
    assert default_threads(cgroup(tmp_path / "many", cpu_dot_max="6400000 100000")) == MOST_THREADS
    assert default_threads(tmp_path / "nothing") == MOST_THREADS
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert default_threads(tmp_path / "nothing") == 1
    assert default_threads(cgroup(tmp_path / "wide", cpu_dot_max="800000 100000")) == 2


def test_torch_sees_the_cap_that_was_set_before_it_was_imported() -> None:
    code = (
        "from flts.training.threads import cap_threads; cap_threads(1)\n"
        "import os, torch\n"
        "print(torch.get_num_threads(), os.environ['OMP_WAIT_POLICY'])"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}

    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["1", "PASSIVE"]


def test_resident_memory_is_at_least_what_was_just_written() -> None:
    gc.collect()  # frees garbage now; memory freed during the measurement would falsify it
    before = resident_bytes()
    block = bytearray(b"x" * 60_000_000)
    assert resident_bytes() - before > 40_000_000
    del block
