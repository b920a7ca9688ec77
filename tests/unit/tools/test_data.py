from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from cli.arguments import build_parser, parse_settings
from flts.ingest.cell import MISSING
from flts.ingest.columns import PERIOD_NAMES, TIME_NAMES
from flts.recipe_settings import ReadSettings
from flts.times.pattern import known_patterns, text_of
from gateway_container.checking import CheckSettings
from tools import data, data_errors
from tools.data_examples import EXAMPLES, answer

PAGE = data.TARGET.read_text(encoding="utf-8")


def block(name: str) -> str:
    begin, end = re.escape(data.BEGIN.format(name)), re.escape(data.END.format(name))
    return str(re.findall(rf"(?s){begin}(.*?){end}", PAGE)[0])


def commands() -> list[list[str]]:
    lines = re.findall(r"^\$ flts (.*)$", PAGE, flags=re.MULTILINE)
    return [shlex.split(line) for line in lines]


def test_the_tables_hold_every_constant_of_the_reader() -> None:
    assert all(f"`{name.upper()}`" in block("settings") for name in ReadSettings.model_fields)
    assert all(f"`{mark}`" in block("missing marks") for mark in MISSING if mark)
    assert all(f"`{name}`" in block("names of time columns") for name in TIME_NAMES + PERIOD_NAMES)
    assert all(f"`{text_of(pattern)}`" in block("time patterns") for pattern in known_patterns())


def test_the_table_of_errors_has_each_code_of_the_reader_with_its_messages() -> None:
    table = block("error codes")

    for path in (data.ROOT / "flts" / "ingest").glob("*.py"):
        for code in re.findall(r'code="(\w+)"', path.read_text(encoding="utf-8")):
            assert re.search(rf"^\| `{code}` \| 422 \| \S", table, flags=re.MULTILINE), code
    assert "| `other_data` | 409 |" in table


def test_a_message_is_that_of_the_branch_which_raises_it() -> None:
    source = """
def check(size, limit):
    if size == 0:
        msg = "nothing"
    elif size > limit:
        msg = f"more than {limit:,} bytes"
        raise RejectedError(msg, code="too_large")
    else:
        msg = "many: " + str(size)
    raise RejectedError(msg, code="odd")
"""

    assert data_errors.messages(source) == [("too_large", ("more than … bytes",)), ("odd", ("nothing", "many: …"))]


@pytest.mark.parametrize("command", commands(), ids=shlex.join)
def test_the_command_line_accepts_each_command_and_its_settings(command: list[str]) -> None:
    arguments = build_parser().parse_args(command)

    CheckSettings().with_overrides(parse_settings(getattr(arguments, "set", [])))


def test_an_upload_shows_what_the_check_of_the_gateway_answers() -> None:
    [unclear] = answer(EXAMPLES["order of day and month"], ())
    [short] = answer(EXAMPLES["order of day and month"], ("TIME_FORMAT=DD/MM/YYYY", "INPUT_SEQ_LEN=10"))
    accepted = answer(EXAMPLES["order of day and month"], ("TIME_FORMAT=DD/MM/YYYY",))

    assert unclear.endswith("set TIME_FORMAT=DD/MM/YYYY or TIME_FORMAT=MM/DD/YYYY")
    assert short.startswith("flts: 9 training rows; training needs at least")
    assert any("baseline is forecast: 9 training rows; training needs at least" in line for line in accepted)


def test_the_check_notices_a_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "data.md"
    page.write_text(PAGE.replace("`k.A.`", "`n.b.`"), encoding="utf-8")
    monkeypatch.setattr(data, "TARGET", page)
    monkeypatch.setattr(data, "document", lambda _: PAGE)
    monkeypatch.setattr("sys.argv", ["data", "--check"])
    assert data.main() == 1

    monkeypatch.setattr("sys.argv", ["data"])
    assert data.main() == 0
    assert page.read_text(encoding="utf-8") == PAGE


def test_a_block_that_the_page_lacks_is_an_error() -> None:
    with pytest.raises(LookupError, match="0 blocks called limits"):
        data.filled("# Data", "limits", [])
