"""`flts dlq`, against a gateway in the test's process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cli.__main__ import main
from cli.dead_letters import sums_table
from flts.contracts.events import RawData
from flts.contracts.ids import derived_event_id, new_pipeline_run_id
from flts.contracts.lifecycle import RunState
from flts.dead_letters.accounting import Account
from tests.gateway import KEY, GatewayUnderTest, claim, make_gateway, serve

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GatewayUnderTest]:
    for name in ("FLTS_URL", "GATEWAY_URL", "FLTS_API_KEY", "FLTS_API_KEY_FILE", "FLTS_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    gateway = make_gateway(tmp_path / "gateway")
    with serve(gateway.app) as (url, _):
        monkeypatch.setenv("FLTS_URL", url)
        monkeypatch.setenv("FLTS_API_KEY", KEY)
        yield gateway
        gateway.gateway.live.close()


def give_up(gateway: GatewayUnderTest, code: str = "hash_mismatch") -> RawData:
    event = RawData(
        event_id=derived_event_id(new_pipeline_run_id(), "test"),
        identifier="PobleSec",
        pipeline_run_id=new_pipeline_run_id(),
        created_at=datetime.now(UTC),
        train=claim(),
    )
    gateway.run_store.runs.create(event)
    gateway.letters.give_up("preprocess", event, code)
    return event


def test_list_without_a_group_counts_and_with_one_shows_its_letters(
    gateway: GatewayUnderTest, capsys: Captured
) -> None:
    give_up(gateway)
    give_up(gateway, "not_json")

    assert main(["dlq", "list"]) == 0
    counted = capsys.readouterr().out
    assert "preprocess        2        2  2026-01-01 12:00:01  hash_mismatch 1, not_json 1" in counted
    assert "in flight" in counted

    assert main(["dlq", "list", "preprocess", "--error-code", "not_json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[2].split() == (
        ["2-1", "2026-01-01", "12:00:01", "raw-data", "PobleSec", "not_json", "1", "no", "because", "of", "not_json"]
    )
    assert main(["dlq", "list", "preprocess", "--limit", "1"]) == 0
    assert "1 more: --limit 2" in capsys.readouterr().out


def test_show_has_the_message_and_why_it_was_given_up(gateway: GatewayUnderTest, capsys: Captured) -> None:
    event = give_up(gateway)

    assert main(["dlq", "show", "preprocess", "2-0"]) == 0

    shown = capsys.readouterr().out
    assert "reason    hash_mismatch, after 1 tries" in shown
    assert "from      raw-data, partition 2, offset 0" in shown
    assert "replayed  no" in shown
    assert event.event_id in shown
    assert "Traceback: here" in shown


def test_replay_sends_all_that_wait_once_and_shows_by_whom_and_why(gateway: GatewayUnderTest, capsys: Captured) -> None:
    for _ in range(3):
        give_up(gateway)

    assert main(["dlq", "replay", "preprocess", "--all", "--reason", "the file is back"]) == 0
    assert capsys.readouterr().out == "3 sent again\n"
    assert main(["dlq", "replay", "preprocess", "--all"]) == 0
    assert capsys.readouterr().out == "0 sent again\n"
    assert main(["dlq", "replay", "preprocess", "2-1"]) == 0
    assert "1 were sent again before" in capsys.readouterr().out
    assert len(gateway.broker.records) == 3

    assert main(["dlq", "show", "preprocess", "2-1"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("replayed")]
    assert line.startswith("replayed  yes, 20")
    assert line.endswith(", the file is back")
    assert ", by " in line


def test_a_replay_that_is_of_no_use_says_what_is_and_fails(gateway: GatewayUnderTest, capsys: Captured) -> None:
    event = give_up(gateway)
    gateway.run_store.runs.put_outcome("PobleSec", event.pipeline_run_id, RunState.REJECTED)

    assert main(["--json", "dlq", "replay", "preprocess", "--all"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert (answer["refused"], answer["results"][0]["code"]) == (1, "run_ended")

    assert main(["dlq", "replay", "preprocess", "--all"]) == 1
    assert "flts retrain PobleSec" in capsys.readouterr().out


@pytest.mark.parametrize("more", [[], ["2-0", "--all"], ["2-0", "--error-code", "not_json"]])
def test_a_replay_says_which_letters_once(gateway: GatewayUnderTest, capsys: Captured, more: list[str]) -> None:
    give_up(gateway)

    assert main(["dlq", "replay", "preprocess", *more]) == 2

    assert "--all" in capsys.readouterr().err
    assert not gateway.broker.records


def test_a_sum_that_does_not_hold_is_seen_at_once() -> None:
    good = Account("raw-data", "preprocess", 10, 7, 2, 1, 0, 0, 0)
    lost = Account("raw-data", "preprocess", 10, 10, 0, 0, 0, 3, 0)

    lines = sums_table([{"accounts": [good.as_dict(), lost.as_dict()]}])

    assert lines[2].split() == ["raw-data", "preprocess", "10", "7", "2", "1", "0", "yes"]
    assert lines[3].split() == ["raw-data", "preprocess", "10", "10", "0", "0", "3", "NO"]
