"""Dead letters through the gateway: permissions, the lists, the replays, and the replays that have no effect."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flts.contracts.events import EvaluateRequest, Event, InferenceData, RawData, RefitRequest, TrainingData
from flts.contracts.ids import derived_event_id, new_pipeline_run_id
from flts.contracts.lifecycle import RunState
from tests.gateway import GatewayUnderTest, claim, make_gateway

NAME = "PobleSec"


@pytest.fixture
def gateway(tmp_path: Path) -> GatewayUnderTest:
    return make_gateway(tmp_path)


def started(gateway: GatewayUnderTest, identifier: str = NAME) -> RawData:
    """Return the event of a run that is recorded."""
    event = RawData(
        event_id=derived_event_id(new_pipeline_run_id(), "test"),
        identifier=identifier,
        pipeline_run_id=new_pipeline_run_id(),
        created_at=datetime.now(UTC),
        train=claim(),
    )
    assert gateway.run_store.runs.create(event)
    return event


def prepared(event: RawData, kind: type[TrainingData] = TrainingData) -> TrainingData:
    """Return the event that preprocess would make from it."""
    rows = claim("processed-data", "x/y/rows.parquet")
    return kind(
        **event.model_dump(include={"identifier", "pipeline_run_id", "created_at"}),
        event_id=derived_event_id(event.event_id, kind.__name__),
        **rows.model_dump(include={"bucket", "object_key", "size", "sha256"}),
        rows=1, columns=1, meta=rows, test=rows, raw_test=rows, raw_test_context_rows=0, step_seconds=60,
    )  # fmt: skip


def replay(gateway: GatewayUnderTest, group: str, **body: Any) -> dict[str, Any]:
    answer = gateway.client().post(f"/dead-letters/{group}/replay", json=body or {"all": True})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/dead-letters"),
        ("GET", "/dead-letters/eval"),
        ("GET", "/dead-letters/eval/2-0"),
        ("POST", "/dead-letters/eval/replay"),
    ],
)
def test_all_of_it_needs_the_key(gateway: GatewayUnderTest, method: str, path: str) -> None:
    answer = gateway.client(key=None).request(method, path)

    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "missing_api_key"


def test_groups_are_counted_by_record_and_reason(gateway: GatewayUnderTest) -> None:
    event = started(gateway)
    gateway.letters.give_up("preprocess", event, "hash_mismatch", offset=4)
    gateway.letters.give_up("preprocess", event, "hash_mismatch", offset=4)
    gateway.letters.give_up("preprocess", started(gateway), "not_json", offset=5)
    gateway.letters.give_up("train-gru", prepared(event))
    replay(gateway, "train-gru")

    groups = {group["group"]: group for group in gateway.client().get("/dead-letters").json()["groups"]}

    assert groups["preprocess"] | {"accounts": []} == {
        "group": "preprocess",
        "letters": 3,
        "waiting": 2,
        "newest": "2026-01-01T12:00:02.000Z",
        "error_codes": {"hash_mismatch": 1, "not_json": 1},
        "accounts": [],
    }
    assert (groups["train-gru"]["letters"], groups["train-gru"]["waiting"]) == (1, 0)


def test_letters_are_listed_newest_first_page_by_page_and_by_what_they_are(gateway: GatewayUnderTest) -> None:
    for number in range(5):
        code = "not_json" if number % 2 else "hash_mismatch"
        gateway.letters.give_up("preprocess", started(gateway, f"series-{number}"), code)
    client = gateway.client()

    first = client.get("/dead-letters/preprocess", params={"limit": 2}).json()
    second = client.get("/dead-letters/preprocess", params={"limit": 3, "after": first["next"]}).json()
    assert [letter["id"] for letter in first["letters"] + second["letters"]] == ["2-4", "2-3", "2-2", "2-1", "2-0"]
    assert (first["total"], second["next"]) == (5, None)

    def ids(**choice: str) -> list[str]:
        found = client.get("/dead-letters/preprocess", params=choice).json()["letters"]
        return [letter["id"] for letter in found]

    assert ids(error_code="not_json") == ["2-3", "2-1"]
    assert ids(identifier="series-4") == ["2-4"]
    assert ids(topic="raw-data", identifier="series-0") == ["2-0"]
    assert ids(topic="model-training") == []
    replay(gateway, "preprocess", ids=["2-3"])
    assert ids(waiting="true") == ["2-4", "2-2", "2-1", "2-0"]


def test_a_letter_is_shown_whole_with_bytes_that_are_no_text(gateway: GatewayUnderTest) -> None:
    gateway.letters.give_up(
        "preprocess", started(gateway), "not_json", value=b"\xff\x00", headers=[("big", b"x" * 2**20), ("odd", b"\xff")]
    )

    letter = gateway.client().get("/dead-letters/preprocess/2-0").json()

    assert (letter["error_code"], letter["attempts"], letter["replayed"]) == ("not_json", 1, False)
    assert letter["error"] == "because of not_json"
    assert letter["traceback"] == "Traceback: here"
    assert (letter["topic"], letter["partition"], letter["offset"]) == ("raw-data", 2, 0)
    assert letter["key"] == {"text": NAME}
    assert letter["value"] == {"base64": "/wA="}
    headers = {header["name"]: header for header in letter["headers"]}
    assert headers["event"]["text"] == "raw-claim"
    assert headers["odd"]["base64"] == "/w=="
    assert headers["big"]["size"] == 2**20
    assert len(headers["big"]["text"]) == 4096


@pytest.mark.parametrize("path", ["/dead-letters/nobody", "/dead-letters/preprocess/2-9", "/dead-letters/preprocess/x"])
def test_what_there_is_not_is_named(gateway: GatewayUnderTest, path: str) -> None:
    gateway.letters.give_up("preprocess", started(gateway))

    answer = gateway.client().get(path)

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] in {"unknown_group", "unknown_letter"}


def test_a_broker_that_is_away_is_a_503(gateway: GatewayUnderTest) -> None:
    gateway.letters.away = True

    assert gateway.client().get("/dead-letters/preprocess").status_code == 503


@pytest.mark.parametrize(
    "body", [{}, {"all": True, "ids": ["2-0"]}, {"ids": []}, {"all": True, "rate": 0}, {"everything": True}]
)
def test_a_request_says_which_letters_once(gateway: GatewayUnderTest, body: dict[str, Any]) -> None:
    gateway.letters.give_up("preprocess", started(gateway))

    answer = gateway.client().post("/dead-letters/preprocess/replay", json=body)

    assert answer.status_code == 422
    assert not gateway.broker.records


def test_a_replay_keeps_who_asked_and_why_with_the_letter_and_with_its_run(gateway: GatewayUnderTest) -> None:
    event = started(gateway)
    gateway.letters.give_up("preprocess", event)

    answer = replay(gateway, "preprocess", ids=["2-0"], by="ada", reason="the file is back")

    assert (answer["replayed"], answer["refused"], answer["remaining"]) == (1, 0, [])
    client = gateway.client()
    letter = client.get("/dead-letters/preprocess/2-0").json()
    assert letter["replayed"]
    assert (letter["replay"]["by"], letter["replay"]["reason"]) == ("ada", "the file is back")
    (overall,) = client.get("/operations").json()["operations"]
    assert (overall["operation_id"], overall["cause"]) == (answer["operation_id"], "replay")
    assert (overall["group"], overall["by"], overall["reason"]) == ("preprocess", "ada", "the file is back")
    assert (overall["replayed"], overall["ids"]) == (1, ["2-0"])
    of_run = {"identifier": NAME, "pipeline_run_id": event.pipeline_run_id}
    (on_run,) = client.get("/operations", params=of_run).json()["operations"]
    assert (on_run["cause"], on_run["ids"], on_run["part_of"]) == ("replay", ["2-0"], overall["operation_id"])
    assert gateway.gateway.metrics.dead_letters_replayed.labels("preprocess")._value.get() == 1


def test_all_means_what_waits_oldest_first_up_to_the_limit(gateway: GatewayUnderTest) -> None:
    events = [started(gateway) for _ in range(4)]
    for event in events:
        gateway.letters.give_up("preprocess", event)
    replay(gateway, "preprocess", ids=["2-1"])

    answer = replay(gateway, "preprocess", all=True, limit=2)

    assert [result["id"] for result in answer["results"]] == ["2-0", "2-2"]
    assert answer["remaining"] == ["2-3"]


def sent(gateway: GatewayUnderTest, group: str, event: Event, **more: Any) -> dict[str, Any]:
    """Replay the dead letter of an event; return its result."""
    gateway.letters.give_up(group, event)
    answer = replay(gateway, group, all=True, **more)
    return dict(answer["results"][-1])


@pytest.mark.parametrize("outcome", ["rejected", "cancelled", "promoted", "refused"])
def test_preprocess_is_given_nothing_of_a_run_that_has_ended(gateway: GatewayUnderTest, outcome: str) -> None:
    event = started(gateway)
    gateway.run_store.runs.put_outcome(NAME, event.pipeline_run_id, RunState(outcome))

    result = sent(gateway, "preprocess", event)

    assert (result["outcome"], result["code"]) == ("refused", "run_ended")
    assert f"has ended as {outcome}" in result["message"]
    assert f"flts retrain {NAME}" in result["message"]
    assert not gateway.broker.records
    assert sent(gateway, "preprocess", event, force=True)["outcome"] == "replayed"


@pytest.mark.parametrize("outcome", ["promoted", "kept", "refused", "superseded"])
def test_a_trainer_still_trains_for_a_run_that_is_decided(gateway: GatewayUnderTest, outcome: str) -> None:
    event = started(gateway)
    gateway.run_store.runs.put_outcome(NAME, event.pipeline_run_id, RunState(outcome))

    result = sent(gateway, "train-lstm", prepared(event))

    assert result["outcome"] == "replayed"
    assert f"the run is {outcome} and stays so: `flts retrain {NAME}`" in result["message"]


@pytest.mark.parametrize("outcome", ["rejected", "cancelled"])
def test_a_trainer_is_given_nothing_of_a_run_that_somebody_ended(gateway: GatewayUnderTest, outcome: str) -> None:
    event = started(gateway)
    gateway.run_store.runs.put_outcome(NAME, event.pipeline_run_id, RunState(outcome))

    assert sent(gateway, "nonml-prophet", prepared(event))["code"] == "run_ended"


def test_eval_is_given_nothing_of_a_run_that_is_decided(gateway: GatewayUnderTest) -> None:
    event = started(gateway)
    gateway.run_store.runs.put_outcome(NAME, event.pipeline_run_id, RunState.REFUSED)

    result = sent(gateway, "eval", prepared(event))

    assert result["code"] == "run_ended"
    assert f"flts evaluate {event.pipeline_run_id}" in result["message"]


def test_test_rows_are_forecast_after_the_decision_but_once(gateway: GatewayUnderTest) -> None:
    event = started(gateway)
    gateway.run_store.runs.put_outcome(NAME, event.pipeline_run_id, RunState.PROMOTED)
    rows = prepared(event, InferenceData)
    assert sent(gateway, "inference-worker", rows)["outcome"] == "replayed"

    gateway.run_store.forecasts.put(NAME, event.pipeline_run_id, "skipped", reason="missing rows")

    assert sent(gateway, "inference-worker", rows)["code"] == "run_ended"


def test_nothing_is_sent_for_a_run_that_nobody_recorded_or_that_was_deleted(gateway: GatewayUnderTest) -> None:
    event = started(gateway)
    request = EvaluateRequest(
        event_id=derived_event_id(event.event_id, "evaluate"),
        identifier=NAME,
        pipeline_run_id=new_pipeline_run_id(),
        created_at=datetime.now(UTC),
        of_run=event.pipeline_run_id,
    )
    assert sent(gateway, "eval", request)["code"] == "run_unknown"

    gateway.run_store.runs.put_outcome(NAME, event.pipeline_run_id, RunState.PROMOTED)
    assert gateway.client().delete(f"/datasets/{NAME}").status_code == 200

    result = sent(gateway, "train-gru", prepared(event))
    assert (result["outcome"], result["code"]) == ("refused", "run_unknown")


def test_a_refit_is_sent_again_until_its_result_is_recorded(gateway: GatewayUnderTest) -> None:
    event = started(gateway)
    data = prepared(event)
    request = RefitRequest(**data.model_dump(), model_type="GRU", judged=data.meta)
    gateway.run_store.runs.put_outcome(NAME, event.pipeline_run_id, RunState.PROMOTED)

    assert sent(gateway, "train-gru", request)["outcome"] == "replayed"
    gateway.run_store.evaluations.put_refit(NAME, event.pipeline_run_id, {"decision": "refused", "pointer": None})
    again = sent(gateway, "train-gru", request)

    assert (again["outcome"], again["code"]) == ("refused", "refit_ended")
