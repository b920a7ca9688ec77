"""Following a run ends with the run, with its timeout, or when no service continues the run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.__main__ import main
from cli.client import GatewayClient, RunEvent, StillRunningError
from cli.follow import follow_run

OPEN = {"pipeline_run_id": "r", "identifier": "x", "state": "running", "stages": []}


class Silent:
    def show(self, event: RunEvent, view: dict[str, Any]) -> None: ...

    def note(self, text: str) -> None: ...


def client_of(*events: tuple[str, dict[str, Any]], run: dict[str, Any] | None = None) -> GatewayClient:
    """Return a client of a gateway that streams these events and then comments, until the client closes the stream."""

    class Stream(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            for kind, data in events:
                yield f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()
            while True:
                yield b": still here\n\n"

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/events"):
            return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Stream())
        return httpx.Response(200, json=run or OPEN)

    return GatewayClient("http://127.0.0.1:1", transport=httpx.MockTransport(answer))


def test_a_run_that_outlasts_its_time_is_said_to_go_on() -> None:
    with client_of(("state", OPEN)) as client, pytest.raises(StillRunningError, match="flts follow r"):
        follow_run(client, "r", Silent(), timeout_seconds=0.2)


def test_a_run_whose_preprocessing_was_given_up_is_followed_no_further() -> None:
    failed = {"stage": "preprocess", "status": "failed", "error": "out of memory"}
    whole = {**OPEN, "stages": [failed]}

    with client_of(("state", OPEN), ("stage", failed), run=whole) as client:
        assert follow_run(client, "r", Silent()) == whole


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["forecast", "x", "--plot", "x.foo"], 2, ".png"),
        (["forecast", "x", "--rows", "-1"], 2, "positive"),
        (["forecast", "x", "--horizon", "0"], 2, "positive"),
        (["--url", "http://h:abc", "runs"], 1, "not an address"),
    ],
)
def test_a_wrong_argument_is_a_line_that_says_what_is_right(
    arguments: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert says in said
    assert "Traceback" not in said


def test_a_file_that_is_no_csv_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = tmp_path / "rows.parquet"
    wrong.write_bytes(b"PAR1" + bytes(20))

    assert main(["forecast", "x", "--csv", str(wrong)]) == 1

    assert "--csv reads CSV" in capsys.readouterr().err
