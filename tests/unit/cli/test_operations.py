"""`flts delete`, `flts janitor`, and the causes in `runs` and `why`, against a gateway in the test's process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.__main__ import main
from cli.causes import cause_lines, deleted_lines, held_lines, operation_lines, removal_lines, short_cause, size
from flts.contracts.lifecycle import RunState
from tests.gateway import KEY, GatewayUnderTest, csv_text, make_gateway, serve

Captured = pytest.CaptureFixture[str]


class Served:
    def __init__(self, gateway: GatewayUnderTest, url: str, folder: Path) -> None:
        self.gateway = gateway
        self.url = url
        self.train = folder / "train.csv"
        self.train.write_bytes(csv_text(300))

    def flts(self, *arguments: str) -> int:
        return main([*arguments, "--url", self.url, "--api-key", KEY])

    def upload(self, *arguments: str) -> str:
        assert self.flts("upload", "x", str(self.train), *arguments) == 0
        return self.gateway.run_store.runs.of("x")[0]


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    for name in ("FLTS_URL", "GATEWAY_URL", "FLTS_API_KEY", "FLTS_API_KEY_FILE", "FLTS_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    gateway = make_gateway(tmp_path / "gateway", retain_runs=1)
    with serve(gateway.app) as (url, _):
        yield Served(gateway, url, tmp_path)
        gateway.gateway.live.close()


def test_nothing_is_deleted_before_it_was_said_twice(served: Served, capsys: Captured) -> None:
    run = served.upload()

    code = served.flts("delete", "x")

    shown = capsys.readouterr()
    assert code == 2
    assert "nothing was deleted" in shown.err
    assert "flts delete x --yes" in shown.err
    assert f"under way, and in its way: {run}" in shown.out
    assert "uploads" in shown.out
    assert served.gateway.run_store.runs.of("x") == [run]


def test_delete_shows_what_went_and_why_shows_it_afterwards(served: Served, capsys: Captured) -> None:
    run = served.upload()
    refused = served.flts("delete", "x", "--yes")
    message = capsys.readouterr().err

    deleted = served.flts("delete", "x", "--yes", "--cancel", "--reason", "a trial")
    shown = capsys.readouterr().out
    why = served.flts("why", "x")

    assert (refused, deleted, why) == (1, 0, 0)
    assert run in message
    assert "deleted: x" in shown
    assert f"cancelled: {run}" in shown
    explained = capsys.readouterr().out
    assert "x was deleted" in explained
    assert "not in MLflow yet" in explained
    assert "because: a trial" in explained


def test_dry_runs_are_json_too(served: Served, capsys: Captured) -> None:
    served.upload()
    capsys.readouterr()

    served.flts("delete", "x", "--dry-run", "--json")
    plan = json.loads(capsys.readouterr().out)
    served.flts("janitor", "--dry-run", "--json")
    look = json.loads(capsys.readouterr().out)

    assert plan["dry_run"] is True
    assert plan["objects"] == sum(held["objects"] for held in plan["buckets"])
    assert look == {"dry_run": True, "removals": []}


def test_janitor_says_what_goes_and_why(served: Served, capsys: Captured) -> None:
    old, new = served.upload("--reason", "old"), served.upload("--reason", "new")
    for run in (old, new):
        served.gateway.run_store.runs.put_outcome("x", run, RunState.REFUSED)
    capsys.readouterr()

    look = served.flts("janitor", "--dry-run")
    looked = capsys.readouterr().out
    done = served.flts("janitor", "--reason", "room")

    assert (look, done) == (0, 0)
    assert "1 run(s) would go" in looked
    assert old in looked
    assert "RETAIN_RUNS" in looked
    assert "1 run(s) gone" in capsys.readouterr().out
    assert served.gateway.run_store.runs.of("x") == [new]


def test_runs_and_why_show_who_asked_and_what_was_done(served: Served, capsys: Captured) -> None:
    run = served.upload("--reason", "new data", "--set", "EPOCHS=3", "--force")
    served.flts("cancel", run, "--reason", "wrong file")
    capsys.readouterr()

    served.flts("runs")
    listed = capsys.readouterr().out
    served.flts("why", run)
    why = capsys.readouterr().out
    served.flts("why", run, "--json")
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)

    assert "upload: new data" in listed
    assert "cause: upload, forced, with EPOCHS=3; because: new data" in why
    assert f"cancel of run {run}; because: wrong file" in why
    assert "cancelled: a person cancelled it: wrong file" in why
    assert (answer["cause"], answer["reason"], answer["force"]) == ("upload", "new data", True)
    assert [one["cause"] for one in answer["operations"]] == ["cancel"]


def test_why_of_a_name_that_nobody_knows_says_how_to_begin(served: Served, capsys: Captured) -> None:
    assert served.flts("why", "nobody") == 1
    assert "flts upload nobody train.csv" in capsys.readouterr().err


def test_a_long_reason_is_cut_in_the_list() -> None:
    assert short_cause({"cause": "retrain"}) == "retrain"
    assert short_cause({"cause": "retrain", "reason": "x" * 80}) == f"retrain: {'x' * 36} ..."


def test_the_lines_of_causes_and_operations() -> None:
    view = {"cause": "rollback", "of_run": "r1", "settings": {"EXTRA_HASH_SALT": "s"}, "reason": "worse"}
    operation = {"begun": "2026-01-02T03:04:05.678Z", "cause": "janitor", "objects": 3, "ended": "x", "reason": None}
    begun = {"begun": "2026-01-02T03:04:05Z", "cause": "delete", "objects": 3, "bytes": 2500, "ended": None}

    assert cause_lines(view, []) == ["cause: rollback of run r1, with a new salt; because: worse"]
    assert operation_lines([operation, begun]) == [
        "  2026-01-02 03:04:05 UTC  janitor: 3 objects",
        "  2026-01-02 03:04:05 UTC  delete: 3 objects, 2.5 kB (not ended)",
    ]


def test_a_deletion_that_was_cut_off_says_how_it_is_ended() -> None:
    [line] = deleted_lines("x", [], {"unfinished": True, "recorded": False})

    assert line == "the deletion of x was cut off: `flts delete x --yes` ends it"
    assert deleted_lines("x", [], {"unfinished": False, "recorded": True}) == ["x was deleted"]


def test_bytes_are_shown_in_the_unit_that_suits_them() -> None:
    assert [size(number) for number in (0, 999, 1000, 2_500_000, 3e9, 5e12)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "2.5 MB",
        "3.0 GB",
        "5000.0 GB",
    ]


def test_nothing_to_remove_is_said() -> None:
    assert removal_lines({"dry_run": True, "removals": []}) == ["nothing to remove"]
    assert removal_lines({"dry_run": False, "removals": []}) == ["nothing was removed"]
    assert held_lines({"buckets": [], "objects": 0, "bytes": 0})[-1].split() == ["in", "all", "0", "0", "B"]
