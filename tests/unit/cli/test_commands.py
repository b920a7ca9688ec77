"""Every command, against a gateway in the test's process."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.__main__ import main
from cli.client import ApiError, GatewayAwayError, GatewayClient, parse_events
from cli.settings import CliSettings, is_local
from flts.contracts.lifecycle import RunState
from tests.gateway import KEY, GatewayUnderTest, csv_text, following, make_gateway, progress, scoreboard, serve

NAME = "PobleSec"


class Inference:
    """Answers /predict with the requested number of rows."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.champion: dict[str, Any] = {"identifier": NAME, "model_type": "GRU"}
        self.warning: str | None = None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/models":
            return httpx.Response(200, json={"models": [self.champion], "default": NAME})
        body = json.loads(request.content)
        self.requests.append(body)
        if missing := set(self.champion.get("future_columns", ())) - set(body.get("future", ())):
            field = f"future.{missing.pop()}"
            error = {"code": "missing_future", "message": f"{field}: step 1 of 2 has no value", "field": field}
            return httpx.Response(422, json={"error": error})
        if body.get("inference_length", 1) > 100:
            error = {"code": "bad_horizon", "message": "at most 100 steps", "field": "inference_length"}
            return httpx.Response(422, json={"error": error})
        rows = [
            {"ts": f"2024-01-02T00:{at:02d}:00Z", "down": 1.5, "down_lower": 1, "down_upper": 2, "up": 3.0}
            for at in range(body["inference_length"])
        ]
        answer = {"identifier": body["identifier"], "model_type": "GRU", "run_id": "a" * 32, "predictions": rows}
        answer |= {"warning": self.warning} if self.warning else {}
        return httpx.Response(200, json=answer)


class Running:
    def __init__(self, gateway: GatewayUnderTest, url: str, inference: Inference, folder: Path) -> None:
        self.gateway = gateway
        self.url = url
        self.inference = inference
        self.folder = folder
        self.train = folder / "train.csv"
        self.train.write_bytes(csv_text(300))
        self.test = folder / "test.csv"
        self.test.write_bytes(csv_text(60, start=following(300)))

    def flts(self, *arguments: str) -> int:
        return main([*arguments, "--url", self.url, "--api-key", KEY])

    def upload(self) -> str:
        with GatewayClient(self.url, KEY) as client:
            return str(client.upload(NAME, self.train, self.test)["pipeline_run_id"])

    def decide(self, run_id: str, outcome: str = "promoted") -> None:
        run_store = self.gateway.run_store
        run_store.stages.put(NAME, run_id, "preprocess", "done", datetime.now(UTC))
        board = run_store.evaluations.put_scoreboard(NAME, run_id, json.dumps(scoreboard(NAME, run_id)).encode())
        run_store.evaluations.decide(
            NAME,
            run_id,
            {"decision": outcome, "model_type": "GRU", "score": 0.02, "scoreboard": board.model_dump(mode="json")},
        )
        run_store.runs.put_outcome(NAME, run_id, RunState(outcome))


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    for name in ("FLTS_URL", "GATEWAY_URL", "FLTS_API_KEY", "FLTS_API_KEY_FILE", "FLTS_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    inference = Inference()
    gateway = make_gateway(tmp_path / "gateway", inference=httpx.MockTransport(inference))
    with serve(gateway.app) as (url, _):
        yield Running(gateway, url, inference, tmp_path)
        gateway.gateway.live.close()


Captured = pytest.CaptureFixture[str]


def told_when_called(owner: object, name: str, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Return an event that is set when the method has returned for the first time."""
    called, method = threading.Event(), getattr(owner, name)

    def call(*arguments: Any) -> Any:
        try:
            return method(*arguments)
        finally:
            called.set()

    monkeypatch.setattr(owner, name, call)
    return called


def test_upload_sends_files_and_settings(running: Running, capsys: Captured) -> None:
    code = running.flts(
        "upload", NAME, str(running.train), "--test", str(running.test), "--set", "EPOCHS=5", "--set", "targets=down",
        "--set", "HANDLE_NANS=false", "--force",
    )  # fmt: skip

    event: Any = running.gateway.broker.events[0]
    assert code == 0
    assert event.settings == {"EPOCHS": 5, "TARGETS": "down", "HANDLE_NANS": False}
    assert event.force
    assert event.test is not None
    shown = capsys.readouterr().out
    assert f"run {event.pipeline_run_id} on {NAME}" in shown
    assert "300 rows" in shown
    assert f"flts follow {event.pipeline_run_id}" in shown


def test_upload_and_follow_in_plain_lines_to_the_decision(
    running: Running, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed = told_when_called(running.gateway.gateway.queries, "run", monkeypatch)

    def pipeline() -> None:
        assert followed.wait(20)
        [run_id] = running.gateway.run_store.runs.of(NAME)
        running.gateway.hear(progress(run_id, NAME, epoch=1, epochs=5, loss=0.5, elapsed=1.0))
        running.decide(run_id)

    work = threading.Thread(target=pipeline)
    work.start()
    code = running.flts("upload", NAME, str(running.train), "--follow")
    work.join()

    shown = capsys.readouterr().out
    assert code == 0
    assert "train-gru      training   epoch 1/5  loss 0.5  1.0 s" in shown
    assert "preprocess     done" in shown
    assert "persistence" in shown
    assert "promoted: GRU" in shown


@pytest.mark.parametrize(("outcome", "code"), [("promoted", 0), ("kept", 0), ("refused", 1), ("rejected", 1)])
def test_following_ends_as_the_run_did(running: Running, capsys: Captured, outcome: str, code: int) -> None:
    run_id = running.upload()
    running.decide(run_id, RunState(outcome))

    assert running.flts("follow", run_id) == code
    assert running.flts("follow", "--last", "--identifier", NAME) == code
    assert outcome in capsys.readouterr().out


def test_json_is_all_there_is_on_standard_output(running: Running, capsys: Captured) -> None:
    run_id = running.upload()
    running.decide(run_id)
    commands = [
        ["upload", NAME, str(running.train)],
        ["retrain", NAME],
        ["runs"],
        ["datasets"],
        ["models"],
        ["why", run_id],
        ["forecast", NAME, "--horizon", "2", "--plot", "picture.png"],
        ["resume"],
    ]
    for command in commands:
        assert running.flts("--json", *command) == 0
        assert isinstance(json.loads(capsys.readouterr().out), dict), command

    assert running.flts("follow", run_id, "--json") == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["state", "end"]


def test_runs_and_data_sets_and_models_are_listed(running: Running, capsys: Captured) -> None:
    assert running.flts("runs") == 0
    assert "no runs yet" in capsys.readouterr().out
    run_id = running.upload()

    for command in ("runs", "datasets", "models"):
        assert running.flts(command) == 0
        assert NAME in capsys.readouterr().out
    assert running.flts("runs", "--identifier", "other") == 0
    assert run_id not in capsys.readouterr().out


def test_why_takes_a_run_or_a_name(running: Running, capsys: Captured) -> None:
    run_id = running.upload()
    assert running.flts("why", NAME) == 1
    assert "no run on PobleSec has ended yet" in capsys.readouterr().err
    running.decide(run_id)
    running.upload()  # a newer run without a decision, which `flts why NAME` must pass over

    assert running.flts("why", NAME, "--targets") == 0
    by_name = capsys.readouterr().out
    assert running.flts("why", run_id, "--targets") == 0
    assert capsys.readouterr().out == by_name
    for word in ("ridge", "persistence", "no_skill", "RMSE per target", "promoted: GRU"):
        assert word in by_name


def test_a_forecast_goes_on_from_the_last_uploaded_rows(running: Running, capsys: Captured) -> None:
    running.upload()

    assert running.flts("forecast", NAME, "--horizon", "3", "--rows", "30", "--plot", "deep/picture.png") == 0

    request = running.inference.requests[0]
    assert (request["identifier"], request["inference_length"]) == (NAME, 3)
    assert len(request["data"]["time"]) == 30
    assert request["data"]["down"][-1] == float(running.test.read_text().splitlines()[-1].split(",")[1])
    assert (running.folder / "deep" / "picture.png").read_bytes().startswith(b"\x89PNG")
    captured = capsys.readouterr()
    assert "2024-01-02T00:02:00Z" in captured.out
    assert "wrote deep/picture.png" in captured.err


def test_a_forecast_has_the_quantiles_that_were_asked_for(running: Running, capsys: Captured) -> None:
    running.upload()

    assert running.flts("forecast", NAME, "--horizon", "1", "--quantiles", "0.1,0.9") == 0

    assert running.inference.requests[-1]["quantiles"] == [0.1, 0.9]
    for wrong in ("0.1,1", "half", ""):
        assert running.flts("forecast", NAME, "--quantiles", wrong) == 2
    assert "is not between 0 and 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("champion", "arguments", "steps"),
    [
        ({}, (), 60),
        ({"horizon_steps": None}, (), 60),
        ({"horizon_steps": 1}, (), 60),
        ({"horizon_steps": 24}, (), 24),
        ({"horizon_steps": 24}, ("--horizon", "2"), 2),
        ({"horizon_steps": 24, "identifier": "other"}, (), 60),
    ],
)
def test_a_forecast_has_the_champions_horizon_unless_another_is_given(
    running: Running, champion: dict[str, Any], arguments: tuple[str, ...], steps: int
) -> None:
    running.inference.champion |= champion
    running.upload()

    assert running.flts("forecast", NAME, *arguments) == 0

    assert running.inference.requests[0]["inference_length"] == steps


def test_a_forecast_needs_only_the_name_where_the_newest_rows_are_stored(running: Running, capsys: Captured) -> None:
    run_id = running.upload()
    running.gateway.run_store.evaluations.decide(NAME, run_id, {"decision": "promoted", "config_hash": "c" * 64})
    running.inference.champion |= {"history_until": "2024-01-02T00:00:00Z", "config_hash": "c" * 64}
    running.inference.warning = "the forecast is in the past"

    assert running.flts("forecast", NAME, "--horizon", "3", "--plot", "picture.png") == 0

    assert running.inference.requests == [{"identifier": NAME, "inference_length": 3}]
    assert (running.folder / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert "! the forecast is in the past" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("champion", "arguments"),
    [
        ({}, ()),
        ({"history_until": "2024-01-02T00:00:00Z", "config_hash": "d" * 64}, ()),
        ({"history_until": "2024-01-02T00:00:00Z", "config_hash": "c" * 64}, ("--rows", "30")),
    ],
    ids=["no stored rows", "a newer upload", "wanted rows"],
)
def test_a_forecast_sends_rows_otherwise(
    running: Running, champion: dict[str, Any], arguments: tuple[str, ...]
) -> None:
    run_id = running.upload()
    running.gateway.run_store.evaluations.decide(NAME, run_id, {"decision": "promoted", "config_hash": "c" * 64})
    running.inference.champion |= champion

    assert running.flts("forecast", NAME, *arguments) == 0

    assert len(running.inference.requests[0]["data"]["time"]) == (30 if arguments else 200)


def test_a_forecast_goes_on_from_a_file(running: Running, capsys: Captured) -> None:
    assert running.flts("forecast", NAME, "--csv", str(running.test), "--rows", "5", "--target", "up") == 0

    assert len(running.inference.requests[0]["data"]["time"]) == 5
    assert "down" not in capsys.readouterr().out


def test_a_forecast_sends_values_known_ahead_with_the_time_column_of_the_rows(running: Running) -> None:
    running.upload()
    file = running.folder / "next.csv"
    file.write_text("day;promotion\n2024-01-02;1\n2024-01-03;0,5\n")
    running.inference.champion["future_columns"] = ["promotion"]

    assert running.flts("forecast", NAME, "--horizon", "2", "--future", str(file)) == 0

    [request] = running.inference.requests
    assert request["index_col"] == "time"
    assert request["future"] == {"time": ["2024-01-02", "2024-01-03"], "promotion": [1, 0.5]}


def test_a_forecast_without_rows_names_the_time_column_of_the_values_known_ahead(running: Running) -> None:
    run_id = running.upload()
    running.gateway.run_store.evaluations.decide(NAME, run_id, {"decision": "promoted", "config_hash": "c" * 64})
    running.inference.champion |= {"history_until": "2024-01-02T00:00:00Z", "config_hash": "c" * 64}
    file = running.folder / "next.csv"
    file.write_text("day,promotion\n2024-01-02,1\n2024-01-03,0\n")

    assert running.flts("forecast", NAME, "--horizon", "2", "--future", str(file)) == 0

    [request] = running.inference.requests
    assert "data" not in request
    assert request["index_col"] == "day"
    assert request["future"] == {"day": ["2024-01-02", "2024-01-03"], "promotion": [1, 0]}


def test_a_refusal_of_a_missing_value_says_how_to_send_the_values(running: Running, capsys: Captured) -> None:
    running.upload()
    running.inference.champion["future_columns"] = ["promotion"]
    file = running.folder / "next.csv"
    file.write_text("day,price\n2024-01-02,1\n2024-01-03,0\n")

    assert running.flts("forecast", NAME) == 1
    assert running.flts("forecast", NAME, "--future", str(file)) == 1

    refused = "flts: future.promotion: step 1 of 2 has no value."
    assert capsys.readouterr().err.splitlines() == [
        f"{refused} --future FILE.csv sends the values of promotion, with a column of times",
        f"{refused} {file} must have a row for each step, with its time and the values of promotion",
    ]


def test_retrain_and_resume(running: Running, capsys: Captured) -> None:
    first = running.upload()

    assert running.flts("retrain", NAME, "--salt", "again", "--set", "EPOCHS=1") == 0
    event: Any = running.gateway.broker.events[-1]
    assert (event.cause, event.settings) == ("retrain", {"EPOCHS": 1, "EXTRA_HASH_SALT": "again"})
    assert running.flts("resume", first) == 0
    assert running.gateway.broker.events[-1].pipeline_run_id == first
    assert running.flts("resume", "--older-than-seconds", "0") == 0
    assert capsys.readouterr().out.count("announced again") == 3


def test_evaluate_and_rollback(running: Running, capsys: Captured) -> None:
    first = running.upload()

    assert running.flts("evaluate", first) == 0
    assert running.flts("rollback", NAME, "--to", first) == 0
    assert running.flts("rollback", NAME) == 1

    events = running.gateway.broker.events
    assert [event.header_event() for event in events] == ["raw-claim", "evaluate", "rollback"]
    captured = capsys.readouterr()
    assert f"flts follow {events[1].pipeline_run_id}" in captured.out
    assert "no champion before the current one" in captured.err


def test_a_run_is_cancelled(running: Running, capsys: Captured) -> None:
    run_id = running.upload()

    assert running.flts("cancel", run_id) == 0
    assert running.flts("cancel", run_id) == 1
    assert running.flts("follow", run_id) == 1

    captured = capsys.readouterr()
    assert f"cancelled: {run_id} on {NAME}" in captured.out
    assert "cancelled: a person cancelled it" in captured.out
    assert "has ended already" in captured.err


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "code", "words"),
        [
            (["upload", NAME, "missing.csv"], 1, "missing.csv: No such file"),
            (["upload", "../runs", "train.csv"], 1, ""),
            (["upload", NAME, "train.csv", "--set", "EPOCHS"], 2, "--set takes NAME=VALUE"),
            (["upload", NAME, "train.csv", "--set", "EPOCHS=0"], 1, "EPOCHS: "),
            (["upload", NAME, "train.csv", "--set", "EPOCH=1"], 1, "EPOCH is not a setting"),
            (["follow"], 2, "name a run or say --last"),
            (["follow", "--last"], 1, "there are no runs"),
            (["follow", "0199d3f4-0000-7000-8000-000000000000"], 1, "there is no run"),
            (["why", "nothing"], 1, "there are no runs on nothing yet: flts upload nothing"),
            (["retrain", "nothing"], 1, "flts upload nothing"),
            (["forecast", "nothing"], 1, "nothing was uploaded as nothing"),
            (["forecast", NAME, "--csv", "missing.csv"], 1, "missing.csv: No such file"),
            (["forecast", NAME, "--csv", "test.csv", "--horizon", "101"], 1, "inference_length: at most 100 steps"),
            (["forecast", NAME, "--csv", "test.csv", "--target", "sideways"], 1, "it has down, up"),
            (["runs", "--limit", "1000"], 1, "limit"),
        ],
    )
    def test_an_error_is_one_line_that_says_what_to_do(
        self, running: Running, capsys: Captured, arguments: list[str], code: int, words: str
    ) -> None:
        assert running.flts(*arguments) == code

        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        assert captured.err.startswith("flts: ")
        assert words in captured.err

    @pytest.mark.parametrize("arguments", [[], ["nonsense"], ["upload"], ["runs", "--limit", "x"]])
    def test_wrong_use_is_2(self, capsys: Captured, arguments: list[str]) -> None:
        assert main(arguments) == 2
        assert "usage: flts" in capsys.readouterr().err

    def test_help_is_0(self, capsys: Captured) -> None:
        assert main(["--help"]) == 0
        assert "forecast" in capsys.readouterr().out

    def test_without_a_key_it_says_how_to_give_one(self, running: Running, capsys: Captured) -> None:
        assert main(["upload", NAME, "train.csv", "--url", running.url]) == 1
        assert "--api-key-file" in capsys.readouterr().err

    def test_without_a_gateway_it_says_how_to_start_one(self, capsys: Captured) -> None:
        assert main(["runs", "--url", "http://127.0.0.1:9"]) == 1
        assert "make demo" in capsys.readouterr().err

    @pytest.mark.parametrize("url", ["nowhere", "ftp://x", "http://"])
    def test_what_is_no_address_is_said(self, capsys: Captured, url: str) -> None:
        assert main(["runs", "--url", url]) == 1
        assert "is not an address" in capsys.readouterr().err

    def test_something_else_that_answers_is_no_gateway(self) -> None:
        transport = httpx.MockTransport(lambda _: httpx.Response(200, html="<h1>It works!</h1>"))

        with GatewayClient("http://x", transport=transport) as client, pytest.raises(ApiError, match="is --url right"):
            client.runs()


class TestSettings:
    def test_the_running_embedded_mode_is_found(self, running: Running, capsys: Captured) -> None:
        home = running.folder / ".flts"
        home.mkdir()
        (home / "embedded.json").write_text(json.dumps({"gateway_url": running.url}))
        (home / "api-key").write_text(KEY + "\n")

        assert main(["upload", NAME, "train.csv"]) == 0
        assert NAME in capsys.readouterr().out

    def test_options_win_over_the_environment(
        self, running: Running, capsys: Captured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (running.folder / "key").write_text(KEY)
        monkeypatch.setenv("FLTS_URL", "http://127.0.0.1:9")
        monkeypatch.setenv("FLTS_API_KEY", "wrong")

        assert main(["upload", NAME, "train.csv", "--url", running.url, "--api-key-file", "key"]) == 0
        assert main(["upload", NAME, "train.csv", "--url", running.url]) == 1
        assert main(["--api-key", KEY, "--url", running.url, "upload", NAME, "train.csv"]) == 0
        assert "not valid" in capsys.readouterr().err

    def test_the_embedded_key_never_leaves_the_machine(self, tmp_path: Path) -> None:
        (tmp_path / "api-key").write_text(KEY)

        def key(url: str) -> str | None:
            return CliSettings(flts_home=tmp_path, flts_url=url).api_key()

        assert key("http://127.0.0.1:8000") == key("http://localhost:1") == key("http://[::1]:1") == KEY
        assert key("https://flts.example.com") is None
        assert key("http://127.0.0.1.example.com") is None
        assert not is_local("http://10.0.0.1")

    def test_gateway_url_is_known_too(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("GATEWAY_URL", "http://a/")
        assert CliSettings(flts_home=tmp_path).url() == "http://a"
        monkeypatch.setenv("FLTS_URL", "http://b")
        assert CliSettings(flts_home=tmp_path).url() == "http://b"


class TestFollow:
    """The client reopens a stream that breaks."""

    def client(self, streams: list[Any], waits: list[float], reconnect_seconds: float = 60) -> GatewayClient:
        def handle(request: httpx.Request) -> httpx.Response:
            stream = streams.pop(0)
            if isinstance(stream, Exception):
                raise stream
            return httpx.Response(200, text=stream, request=request)

        return GatewayClient(
            "http://x", transport=httpx.MockTransport(handle), sleep=waits.append, reconnect_seconds=reconnect_seconds
        )

    def test_it_goes_on_after_breaks_and_says_so_once_each(self) -> None:
        waits: list[float] = []
        breaks: list[str] = []
        streams = [
            'event: state\ndata: {"a": 1}\n\n',
            httpx.ConnectError("away"),
            'event: state\ndata: {"a": 2}\n\n: shutdown\n\n',
            'event: end\ndata: {"a": 3}\n\n',
        ]
        client = self.client(streams, waits)

        events = list(client.follow("run", on_break=breaks.append))

        assert [(event.kind, event.data) for event in events] == [
            ("state", {"a": 1}),
            ("state", {"a": 2}),
            ("end", {"a": 3}),
        ]
        assert len(breaks) == 2
        assert waits == [0.2, 0.5, 0.2]

    def test_a_gateway_that_stays_away_is_given_up(self) -> None:
        client = self.client([httpx.ConnectError("away") for _ in range(100_000)], [], reconnect_seconds=0.05)

        with pytest.raises(GatewayAwayError):
            list(client.follow("run"))

    def test_broken_events_are_passed_over(self) -> None:
        lines = iter(
            [
                "event: state",
                "data: {",
                "",
                "data: {}",
                "",
                "event: state",
                "data: [1]",
                "",
                "event: x",
                'data: {"a":1}',
                "",
            ]
        )

        assert [event.kind for event in parse_events(lines)] == ["x"]


def test_an_upload_whose_connection_breaks_is_sent_again_with_the_same_key(tmp_path: Path) -> None:
    keys: list[str] = []
    train = tmp_path / "train.csv"
    train.write_bytes(csv_text(20))

    def handle(request: httpx.Request) -> httpx.Response:
        body = request.read()
        assert csv_text(20) in body
        keys.append(request.headers["idempotency-key"])
        if len(keys) == 1:
            msg = "broken"
            raise httpx.ReadError(msg, request=request)
        return httpx.Response(202, json={"pipeline_run_id": "x"})

    with GatewayClient("http://x", transport=httpx.MockTransport(handle), sleep=lambda _: None) as client:
        client.upload(NAME, train)

    assert len(keys) == 2
    assert keys[0] == keys[1]
