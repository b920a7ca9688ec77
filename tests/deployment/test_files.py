"""The files of the repository agree with each other and contain no path of one machine."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import flts

ROOT = Path(__file__).resolve().parents[2]
SERVICES = sorted(path.name for path in ROOT.glob("*_container"))


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_there_are_six_services() -> None:
    assert len(SERVICES) == 6


@pytest.mark.parametrize("service", SERVICES)
def test_each_service_has_the_same_files(service: str) -> None:
    names = {path.name for path in (ROOT / service).iterdir()}
    assert {"README.md", "__init__.py", "__main__.py", "settings.py", "bootstrap.py", "handler.py", "domain"} <= names


def test_every_dependency_is_pinned_without_addresses() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", pin) for pin in pins)
    assert "torch==2.13.0" in pins


def test_everything_that_pyproject_names_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(need for needs in project["optional-dependencies"].values() for need in needs),
    ]
    names = {re.split(r"[\[;<>=\s]", need)[0].lower().replace("_", "-") for need in wanted} - {"flts"}
    pinned = {
        line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    assert names <= pinned


def test_every_variable_that_names_a_server_for_tests_is_explained() -> None:
    sources = (ROOT / "tests").rglob("*.py")
    named = {name for path in sources for name in re.findall(r"FLTS_TEST_[A-Z0-9_]*[A-Z0-9]", path.read_text())}
    explained = set(re.findall(r"`(FLTS_TEST_[A-Z0-9_]+)`", (ROOT / "CONTRIBUTING.md").read_text()))

    assert named - {"FLTS_TEST_S3"} == explained  # FLTS_TEST_S3 is only a pattern in a docstring
    assert "FLTS_TEST_KAFKA" in named


def test_the_version_is_said_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == flts.__version__


def test_no_tracked_file_names_a_machine_path_or_a_package_host() -> None:
    # The patterns are written in pieces, so that the search does not find this file.
    wrong = re.compile(
        "|".join(["/" + "root/", "/" + "work/", "pypi" + r"\.org", "/" + "Users/", "github" + "usercontent"])
    )
    found = []
    for path in tracked():
        if path.suffix in {".png", ".onnx"}:
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if wrong.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    assert not found


def test_no_module_has_grown_past_its_one_thing() -> None:
    sources = [path for path in tracked() if path.suffix == ".py" and "tests" not in path.parts]
    long = [path for path in sources if len(path.read_text().splitlines()) > 450]
    assert not long
