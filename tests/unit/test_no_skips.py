"""A run with ``--no-skips`` lists the skipped tests, and fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.brokers import ROOT

MARKED = """
import pytest

class TestOnAServer:
    @pytest.mark.skipif(True, reason="SERVER not set")
    def test_there(self): ...

def test_here():
    open("ran", "w").close()
"""
IN_THE_MIDDLE = """
import pytest

def test_half():
    pytest.skip("no such program")
"""
WHOLE_FILE = """
import pytest

pytest.importorskip("no_such_module")
"""


def run(folder: Path, content: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_it.py").write_text(content + "\n\ndef test_passes(): ...\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.no_skips", "-p", "no:cacheprovider", *options, "test_it.py"]
    return subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False
    )


def test_what_a_mark_asks_for_is_missed_before_anything_runs(tmp_path: Path) -> None:
    done = run(tmp_path, MARKED, "--no-skips")

    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "MISSING: test_it.py::TestOnAServer (1 tests): SERVER not set" in done.stdout
    assert "nothing was run" in done.stderr
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "told", "code"),
    [
        (IN_THE_MIDDLE, "no such program", pytest.ExitCode.TESTS_FAILED),
        (WHOLE_FILE, "no_such_module", pytest.ExitCode.USAGE_ERROR),
    ],
    ids=["in the middle", "a whole file"],
)
def test_what_skips_by_itself_fails_the_run(tmp_path: Path, content: str, told: str, code: int) -> None:
    done = run(tmp_path, content, "--no-skips")

    assert done.returncode == code, done.stdout
    assert "MISSING: test_it.py" in done.stdout
    assert told in done.stdout


@pytest.mark.parametrize("content", [MARKED, IN_THE_MIDDLE], ids=["a mark", "in the middle"])
def test_what_skips_in_a_worker_fails_the_run(tmp_path: Path, content: str) -> None:
    done = run(tmp_path, content, "--no-skips", "-n", "2")

    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    assert "MISSING: test_it.py" in done.stdout


def test_a_suite_that_is_named_may_be_left_out_and_is_told(tmp_path: Path) -> None:
    done = run(tmp_path, MARKED, "--no-skips", "--may-skip", "TestOnAServer")

    assert done.returncode == 0, done.stdout
    assert "LEFT OUT, as allowed: test_it.py::TestOnAServer (1 tests): SERVER not set" in done.stdout
    assert (tmp_path / "ran").exists()


def test_another_name_allows_nothing(tmp_path: Path) -> None:
    assert run(tmp_path, MARKED, "--no-skips", "--may-skip", "TestOnTheServer").returncode != 0


def test_without_the_option_skips_are_skips(tmp_path: Path) -> None:
    done = run(tmp_path, MARKED)

    assert done.returncode == 0
    assert "MISSING" not in done.stdout
