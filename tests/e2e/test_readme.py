"""Each command of the README succeeds, each make target runs one known program, and each link names a file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stack import ROOT, RunningStack

pytestmark = pytest.mark.timeout(300)


def commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


MAKE = [command for command in commands() if command.startswith("make ")]
OTHERS = [command for command in commands() if not command.startswith("make ")]


@pytest.fixture(scope="module")
def served(stack: RunningStack, seasonal_file: Path) -> RunningStack:
    """Return the pipeline with a data set `sample`, as the README names it, of rows that are trained on faster."""
    run = stack.wait_decided(stack.upload("sample", seasonal_file, settings={"EPOCHS": 1}))
    stack.wait_served("sample", run["decision"]["run_id"])
    return stack


def test_the_first_command_is_the_demo_and_the_second_the_tests() -> None:
    assert MAKE[:2] == ["make demo", "make test"]


@pytest.mark.parametrize("command", MAKE)
def test_a_make_target_is_one_line_that_runs_what_the_tests_run(command: str) -> None:
    lines = subprocess.run(
        [*command.split(), "--dry-run", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    # Each make target prepares the environment and then runs one program: the demo or pytest. Other tests run the demo,
    # so this test only reads the command line.
    programs = [line for line in lines if "tools.environment" not in line]
    assert len(programs) == 1, programs
    assert (
        programs[0]
        .removeprefix("exec ")
        .startswith((".venv/bin/python -m embedded demo", ".venv/bin/python -m pytest"))
    )


@pytest.mark.parametrize("command", OTHERS)
def test_a_command_of_the_readme_succeeds(served: RunningStack, command: str, tmp_path: Path) -> None:
    for address, own in (
        ("http://127.0.0.1:8000", served.state["gateway_url"]),
        ("http://127.0.0.1:30080", served.state["inference_url"]),
    ):
        command = command.replace(address, own)
    command = command.replace(".venv/bin/flts", f"{sys.executable} -m cli")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "FLTS_URL": served.state["gateway_url"],
        "FLTS_HOME": str(served.home),
    }

    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()
    if "--plot forecast.png" in command:
        assert (tmp_path / "forecast.png").read_bytes().startswith(b"\x89PNG")
    if "/predict" in command:
        assert '"SUCCESS"' in done.stdout


def test_the_first_screen_shows_two_small_pictures() -> None:
    first_screen = "".join((ROOT / "README.md").read_text().splitlines(keepends=True)[:40])
    pictures = [ROOT / target for target in re.findall(r"^!\[.+?\]\(([^)]+)\)", first_screen, flags=re.MULTILINE)]

    assert [picture.name for picture in pictures] == ["forecast.png", "scoreboard.png"]
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)
    assert sum(picture.stat().st_size for picture in pictures) < 150_000


def test_every_link_of_the_documents_leads_somewhere() -> None:
    for document in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").rglob("*.md"),
        *ROOT.glob("*_container/README.md"),
    ]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), f"{document.name}: {target}"
