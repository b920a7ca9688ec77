"""`make test`: journeys stay together on one worker and come first; the end of the run lists each folder's seconds."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.brokers import ROOT

NOTE = """
import os

def test_it():
    with open("ran", "a") as file:
        file.write(os.environ["PYTEST_XDIST_WORKER"] + " " + __file__ + "\\n")
"""
FILES = ["contract/test_a.py", "contract/test_b.py", "e2e/test_c.py", "e2e/test_d.py", "unit/test_e.py"]


def test_journeys_come_first_on_one_worker_and_each_folder_has_its_seconds(tmp_path: Path) -> None:
    for name in FILES:
        path = tmp_path / "tests" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(NOTE)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    plugins = ["-p", "tests.workers", "-p", "tests.costs", "-p", "no:cacheprovider"]

    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, "-n", "2", "--durations=2", "tests"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    ran = [line.split() for line in (tmp_path / "ran").read_text().splitlines()]
    assert sorted(Path(path).relative_to(tmp_path / "tests").as_posix() for _, path in ran) == FILES
    (worker,) = {worker for worker, path in ran if "/e2e/" in path}
    assert ["/e2e/" in path for name, path in ran if name == worker][:2] == [True, True]
    assert set(re.findall(r"^ +[\d.]+ s  (\S+)$", done.stdout, re.MULTILINE)) == {
        "tests/contract",
        "tests/e2e",
        "tests/unit",
    }
    assert re.search(r"5 passed in [\d.]+s", done.stdout.splitlines()[-1]), "the last line is pytest's own"
