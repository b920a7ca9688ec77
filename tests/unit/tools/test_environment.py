"""One environment serves several make targets; it is installed again only if it does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import environment


@pytest.fixture
def stamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(environment, "VENV", tmp_path)
    return tmp_path / "flts-installed"


@pytest.mark.parametrize(
    ("installed", "wanted", "current"),
    [
        ("dev", "load", True),
        ("dev", "embedded", True),
        ("embedded", "load", False),
        ("load", "embedded", False),
        ("embedded,load", "load", True),
        ("embedded,load", "embedded", True),
        ("embedded,load", "dev", False),
    ],
)
def test_what_is_installed_serves_what_it_holds(stamp: Path, installed: str, wanted: str, *, current: bool) -> None:
    stamp.write_text(f"{installed} {environment.fingerprint()}")

    assert environment.is_current(wanted) is current


def test_another_version_of_the_pins_is_installed_again(stamp: Path) -> None:
    stamp.write_text("dev 0123")

    assert not environment.is_current("load")
    assert environment.installed() == []


def test_an_environment_that_is_not_there_holds_nothing(stamp: Path) -> None:
    assert not stamp.exists()
    assert not environment.is_current("load")
