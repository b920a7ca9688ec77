"""`make test` runs end-to-end tests first, each half on one worker, and lists each folder's seconds."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.brokers import ROOT
from tests.workers import OWN_SERVERS

NOTE = """
import os

def test_it():
    with open("ran", "a") as file:
        file.write(os.environ["PYTEST_XDIST_WORKER"] + " " + __file__ + "\\n")
"""
FILES = [
    "contract/test_a.py",
    "contract/test_b.py",
    "e2e/test_demo.py",
    "e2e/test_first_run.py",
    "e2e/test_journey.py",
    "e2e/test_load.py",
    "unit/test_e.py",
]


def test_journeys_come_first_on_a_worker_each_half_and_each_folder_has_its_seconds(tmp_path: Path) -> None:
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
    ran = [(Path(path).relative_to(tmp_path / "tests").as_posix(), worker) for worker, path in read(tmp_path / "ran")]
    assert sorted(file for file, _ in ran) == FILES
    first = {tuple([file for file, worker in ran if worker == each][:2]) for each in ("gw0", "gw1")}
    assert first == {("e2e/test_demo.py", "e2e/test_first_run.py"), ("e2e/test_journey.py", "e2e/test_load.py")}
    folders = set(re.findall(r"^ +[\d.]+ s  (\S+)$", done.stdout, re.MULTILINE))
    assert folders == {"tests/contract", "tests/e2e", "tests/unit"}
    assert re.search(r"7 passed in [\d.]+s", done.stdout.splitlines()[-1]), "the last line is pytest's own"


@pytest.mark.parametrize("name", OWN_SERVERS)
def test_a_file_with_servers_of_its_own_asks_for_no_fixture_of_the_sessions_pipeline(name: str) -> None:
    tree = ast.parse((ROOT / "tests" / "e2e" / name).read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    fixtures = [one for one in functions if any("fixture" in ast.unparse(each) for each in one.decorator_list)]
    asking = [*fixtures, *(one for one in functions if one.name.startswith("test_"))]

    assert asking
    assert not [one.name for one in asking if {"stack", "seasonal"} & {argument.arg for argument in one.args.args}]


def read(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()]
