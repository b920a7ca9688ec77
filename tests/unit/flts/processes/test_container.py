"""The free memory of a container is its limit minus the used memory, without the kernel's cache of files."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flts.processes.container import MemoryShares, memory_left_bytes

STAT = "anon 700\nactive_file 60\ninactive_file 40\n"
STAT_1 = "active_file 1\ninactive_file 1\ntotal_rss 700\ntotal_active_file 60\ntotal_inactive_file 40\n"


def version_2(root: Path, limit: str) -> Path:
    for name, text in (("max", limit), ("current", "800"), ("stat", STAT)):
        root.joinpath(f"memory.{name}").write_text(text)
    return root


def version_1(root: Path, limit: str) -> Path:
    folder = root / "memory"
    folder.mkdir()
    for name, text in (("limit_in_bytes", limit), ("usage_in_bytes", "800"), ("stat", STAT_1)):
        folder.joinpath(f"memory.{name}").write_text(text)
    return root


@pytest.mark.parametrize("write", [version_1, version_2])
@pytest.mark.parametrize(("limit", "left"), [("1000", 300), ("650", 0)])
def test_what_is_left_of_a_limit(tmp_path: Path, write: object, limit: str, left: int) -> None:
    assert callable(write)
    assert memory_left_bytes(write(tmp_path, limit)) == left


def test_without_a_limit_nothing_is_said(tmp_path: Path) -> None:
    assert memory_left_bytes(tmp_path) is None
    assert memory_left_bytes(version_2(tmp_path, "max")) is None


def test_version_1_writes_no_limit_as_a_large_number(tmp_path: Path) -> None:
    assert memory_left_bytes(version_1(tmp_path, "9223372036854771712")) is None


@pytest.mark.parametrize(
    ("left", "given"),
    [(None, None), (1_000, 100), (110, 100), (109, 99), (25, 20), (0, 20)],
    ids=["no limit", "room for many", "just enough", "less than it may take", "less than the least", "nothing"],
)
def test_one_alone_gets_what_is_left_within_its_bounds(left: int | None, given: int | None) -> None:
    with MemoryShares(100, kept=10, least=20, left=lambda: left).share() as share:
        assert share == given


@pytest.mark.parametrize(("left", "at_once"), [(None, 12), (410, 4), (409, 3), (210, 2), (109, 1), (0, 1)], ids=str)
def test_so_many_work_at_once_as_there_is_room_for(left: int | None, at_once: int) -> None:
    shares = MemoryShares(100, kept=10, least=20, left=lambda: left)
    met = threading.Barrier(at_once)
    lock = threading.Lock()
    now, most = 0, 0

    def work(_: int) -> int | None:
        nonlocal now, most
        with shares.share() as share:
            with lock:
                now += 1
                most = max(most, now)
            met.wait(60)  # the barrier breaks unless `at_once` threads wait here at the same time
            with lock:
                now -= 1
        return share

    with ThreadPoolExecutor(12) as pool:
        given = list(pool.map(work, range(12)))

    assert most == at_once
    assert set(given) == {None if left is None else max(min(left - 10, 100), 20)}


def test_a_share_comes_back_when_its_work_fails() -> None:
    shares = MemoryShares(100, kept=10, least=20, left=lambda: 50)
    with pytest.raises(ZeroDivisionError), shares.share():
        _ = 1 / 0

    with shares.share() as share:
        assert share == 40
