"""The next process removes the temporary files of a killed process, and keeps the files of living ones."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from flts.processes.scratch import remove_left_behind, scratch_folder


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def gone() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_folder_lasts_as_long_as_it_is_used(temporary: Path) -> None:
    with scratch_folder("upload") as folder:
        (folder / "train").write_bytes(b"1,2")
        assert folder.parent == temporary
        assert folder.name.startswith(f"flts-upload-{os.getpid()}-")

    assert not folder.exists()


def test_folders_of_processes_that_are_gone_are_removed_and_all_others_stay(temporary: Path) -> None:
    left, earlier = f"flts-upload-{gone()}-a1b2", f"flts-run-{os.getpid()}-c3d4"
    stays = [f"flts-upload-{os.getppid()}-e5f6", "flts-upload-e5f6", "other"]
    for name in (left, earlier, *stays):
        (temporary / name).mkdir()
        (temporary / name / "train").write_bytes(b"1,2")

    assert remove_left_behind() == sorted([left, earlier])

    assert sorted(path.name for path in temporary.iterdir()) == sorted(stays)
