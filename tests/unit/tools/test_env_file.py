from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

from tools.env_file import EXAMPLE, ROOT, names


def make_env(target: Path) -> str:
    return subprocess.run(
        [sys.executable, "-m", "tools.env_file", str(target)], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout


def values(target: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in target.read_text().splitlines())


def test_every_secret_gets_a_random_value_that_only_its_owner_reads(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    make_env(first)
    make_env(second)

    assert set(values(first)) == names(EXAMPLE.read_text())
    assert stat.S_IMODE(first.stat().st_mode) == 0o600
    assert all(values(first)[name] != values(second)[name] for name in values(first))
    assert all(len(value) >= 12 for value in values(first).values())


def test_a_second_time_changes_nothing(tmp_path: Path) -> None:
    target = tmp_path / "env"
    make_env(target)
    before = target.read_bytes()

    assert "nothing was changed" in make_env(target)
    assert target.read_bytes() == before


def test_what_is_there_stays_and_what_a_newer_version_added_is_appended(tmp_path: Path) -> None:
    target = tmp_path / "env"
    target.write_text("# mine\nPOSTGRES_PASSWORD=chosen\nGATEWAY_PORT=8100")
    make_env(target)

    lines = target.read_text().splitlines()
    assert lines[:3] == ["# mine", "POSTGRES_PASSWORD=chosen", "GATEWAY_PORT=8100"]
    assert names(target.read_text()) == {*names(EXAMPLE.read_text()), "GATEWAY_PORT"}
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_what_it_tells_people_holds_no_secret(tmp_path: Path) -> None:
    told = make_env(tmp_path / "env")
    assert not any(value in told for value in values(tmp_path / "env").values())
