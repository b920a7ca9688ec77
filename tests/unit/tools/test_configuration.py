from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from pydantic import Field

from flts.settings import Settings
from tools import configuration


def loaded(reader: str) -> type[Settings]:
    module, _, name = dict(configuration.READERS)[reader].partition(":")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("reader", [name for name, _ in configuration.READERS])
def test_every_variable_of_every_reader_is_listed_with_it(reader: str) -> None:
    rows = [(row.variable, row.readers) for section in configuration.sections() for row in section.rows.values()]

    for field_name in loaded(reader).model_fields:
        assert any(f"`{field_name.upper()}`" in variable and reader in readers for variable, readers in rows), (
            field_name
        )


def test_a_row_says_type_bounds_default_and_whether_a_run_may_override_it() -> None:
    text = configuration.document()

    assert "| `EPOCHS` | whole number, at least 1, at most 10,000 | `10` | yes | train-gru, train-lstm |" in text
    assert "| `KAFKA_BOOTSTRAP_SERVERS` | text | **required** |  | every service |" in text
    assert "| `AWS_SECRET_ACCESS_KEY` | secret | unset |  |" in text


def test_the_check_notices_a_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration, "TARGET", tmp_path / "configuration.md")
    monkeypatch.setattr("sys.argv", ["configuration", "--check"])
    assert configuration.main() == 1

    monkeypatch.setattr("sys.argv", ["configuration"])
    assert configuration.main() == 0
    monkeypatch.setattr("sys.argv", ["configuration", "--check"])
    assert configuration.main() == 0

    (tmp_path / "configuration.md").write_text("something else")
    assert configuration.main() == 1


def test_a_setting_without_a_docstring_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Settings):
        loud: int = Field(default=1)

    monkeypatch.setattr(configuration, "READERS", (("x", "silent:Silent"),))
    monkeypatch.setattr(importlib, "import_module", lambda _: type("module", (), {"Silent": Silent}))

    with pytest.raises(SystemExit, match="loud"):
        configuration.sections()
