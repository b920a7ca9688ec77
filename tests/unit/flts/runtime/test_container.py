"""What is left is the limit less what is held, without the files that the kernel merely remembers."""

from __future__ import annotations

from pathlib import Path

import pytest

from flts.runtime.container import memory_left_bytes

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
