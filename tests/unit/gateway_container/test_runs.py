"""Runs in the form that the API shows: built from the store, updated by messages."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flts.contracts.events import EvaluateRequest, ModelSelected, ModelTraining, RollbackRequest
from flts.contracts.ids import new_pipeline_run_id
from flts.contracts.lifecycle import RunState
from flts.storage.evaluations import Evaluations
from flts.storage.runs import Runs
from gateway_container import tail
from tests.eventually import eventually
from tests.gateway import GatewayUnderTest, claim, csv_text, following, make_gateway, progress, scoreboard


@pytest.fixture
def gateway(tmp_path: Path) -> GatewayUnderTest:
    return make_gateway(tmp_path)


def upload(gateway: GatewayUnderTest, identifier: str = "x", **data: str) -> str:
    answer = gateway.client().post(
        f"/datasets/{identifier}", files={"train": ("a", csv_text(300))}, data={"settings": '{"EPOCHS": 3}', **data}
    )
    return str(answer.json()["pipeline_run_id"])


def finish(gateway: GatewayUnderTest, run_id: str, identifier: str = "x") -> None:
    """Write the records that the services write."""
    run_store = gateway.run_store
    run_store.stages.put(identifier, run_id, "eval", "done", datetime.now(UTC), datetime.now(UTC))
    run_store.stages.put(identifier, run_id, "train-gru", "done", datetime.now(UTC), datetime.now(UTC), reused=True)
    run_store.stages.put(identifier, run_id, "preprocess", "done", datetime.now(UTC), datetime.now(UTC))
    run_store.stages.put(identifier, run_id, "forecast", "done", datetime.now(UTC), datetime.now(UTC))
    run_store.evaluations.put_expected(
        identifier, run_id, {"model_types": ["GRU", "LSTM"], "start": "2024-01-01T00:00:00Z"}
    )
    run_store.evaluations.put_trained(
        ModelTraining(
            event_id=new_pipeline_run_id(),
            identifier=identifier,
            pipeline_run_id=run_id,
            created_at=datetime.now(UTC),
            config_hash="c" * 64,
            model_type="GRU",
            status="SUCCESS",
            run_id="a" * 32,
            experiment_name=identifier,
            train=claim(),
            test=claim(),
            metrics={"val_loss": 0.5},
            duration_seconds=12.5,
        )
    )
    board = run_store.evaluations.put_scoreboard(
        identifier, run_id, json.dumps(scoreboard(identifier, run_id)).encode()
    )
    decision = {
        "decision": "promoted",
        "model_type": "GRU",
        "score": 0.02,
        "scoreboard": board.model_dump(mode="json"),
        "reasons": [],
    }
    run_store.evaluations.decide(identifier, run_id, decision)
    run_store.runs.put_outcome(identifier, run_id, RunState.PROMOTED)


def test_a_run_shows_everything_that_the_store_holds(gateway: GatewayUnderTest) -> None:
    run_id = upload(gateway)
    finish(gateway, run_id)

    view = gateway.client(key=None).get(f"/runs/{run_id}").json()

    assert view["cause"] == "upload"
    assert view["settings"] == {"EPOCHS": 3}
    assert view["announced"] is True
    assert [stage["stage"] for stage in view["stages"]] == ["upload", "preprocess", "train-gru", "eval", "forecast"]
    assert all(stage["seconds"] >= 0 and stage["status"] == "done" for stage in view["stages"])
    assert view["expected"] == ["GRU", "LSTM"]
    assert view["trained"]["GRU"]["metrics"] == {"val_loss": 0.5}
    assert view["trained"]["GRU"]["duration_seconds"] == 12.5
    assert view["config_hash"] == "c" * 64
    assert view["decision"]["decision"] == "promoted"
    assert view["scoreboard"] == scoreboard("x", run_id)
    assert (view["state"], view["lifecycle"], view["outcome"]) == ("finished", "promoted", "promoted")
    assert view["elapsed_seconds"] >= 0


def test_a_run_without_services_waits_and_then_runs(gateway: GatewayUnderTest) -> None:
    run_id = upload(gateway)
    assert gateway.client().get(f"/runs/{run_id}").json()["state"] == "waiting"

    gateway.hear(progress(run_id, "x", epoch=2, epochs=10, loss=0.25, elapsed=3.5))

    view = gateway.client().get(f"/runs/{run_id}").json()
    assert (view["state"], view["lifecycle"]) == ("running", "announced")
    assert view["progress"]["train-gru"]["epoch"] == 2
    assert view["progress"]["train-gru"]["loss"] == 0.25
    assert view["scoreboard"] is None


def test_runs_are_listed_newest_first_and_by_identifier(gateway: GatewayUnderTest) -> None:
    ids = [upload(gateway, name) for name in ("x", "y", "x")]
    finish(gateway, ids[0])
    client = gateway.client(key=None)

    assert [run["pipeline_run_id"] for run in client.get("/runs").json()["runs"]] == ids[::-1]
    assert [run["pipeline_run_id"] for run in client.get("/runs?identifier=x").json()["runs"]] == [ids[2], ids[0]]
    assert [run["pipeline_run_id"] for run in client.get("/runs?limit=1").json()["runs"]] == [ids[2]]
    first = client.get("/runs?identifier=x").json()["runs"][1]
    assert (first["outcome"], first["model_type"], first["score"]) == ("promoted", "GRU", 0.02)
    # The second answer comes from the cache, because a finished run does not change.
    assert client.get("/runs?identifier=x").json()["runs"][1] == first


def test_a_run_that_a_newer_release_ended_is_shown_with_that_outcome(gateway: GatewayUnderTest) -> None:
    run_id = upload(gateway)
    outcome = {"pipeline_run_id": run_id, "identifier": "x", "outcome": "archived"}
    gateway.store.put("pipeline-runs", f"x/{run_id}/outcome.json", json.dumps(outcome).encode())

    [listed] = gateway.client().get("/runs").json()["runs"]
    shown = gateway.client().get(f"/runs/{run_id}").json()

    assert (listed["state"], listed["outcome"]) == ("finished", "archived")
    assert (shown["lifecycle"], shown["outcome"]) == ("ended", "archived")


def test_a_scoreboard_that_is_not_the_one_claimed_is_not_shown(gateway: GatewayUnderTest) -> None:
    run_id = upload(gateway)
    finish(gateway, run_id)
    key = next(key for key in gateway.keys("pipeline-runs", f"x/{run_id}/") if "scoreboard" in key)
    gateway.store.put("pipeline-runs", key, b'{"forged": true}')

    view = gateway.client().get(f"/runs/{run_id}").json()

    assert view["scoreboard"] is None
    assert view["decision"]["decision"] == "promoted"


def test_numbers_that_json_cannot_carry_become_null(gateway: GatewayUnderTest) -> None:
    run_id = upload(gateway)
    gateway.hear(progress(run_id, "x", loss=float("nan"), elapsed=float("inf")))

    view = gateway.client().get(f"/runs/{run_id}").json()

    assert view["progress"]["train-gru"]["loss"] is None


def test_data_sets_show_newest_upload_last_run_and_champion(gateway: GatewayUnderTest) -> None:
    run_id = upload(gateway)
    gateway.client().post("/upload/raw-data/landed/train.csv", content=csv_text(300))
    gateway.run_store.pointers.move_current(
        "x", {"pipeline_run_id": run_id, "model_type": "GRU", "score": 0.02, "run_id": "a" * 32}
    )

    found = {one["identifier"]: one for one in gateway.client(key=None).get("/datasets").json()["datasets"]}

    assert set(found) == {"x", "landed"}
    assert found["x"]["last_run"]["pipeline_run_id"] == run_id
    assert found["x"]["champion"]["model_type"] == "GRU"
    assert found["x"]["newest_upload"]["train"]["size_bytes"] == len(csv_text(300))
    assert found["landed"]["runs"] == 0
    assert found["landed"]["last_run"] is None
    assert found["landed"]["champion"] is None


def test_a_champion_that_is_not_decided_is_shown_with_its_stage(gateway: GatewayUnderTest) -> None:
    run_id = upload(gateway)
    pointer = {"pipeline_run_id": run_id, "model_type": "GRU", "score": 0.5, "run_id": "a" * 32, "stage": "provisional"}
    gateway.run_store.pointers.move_current("x", pointer)
    gateway.run_store.evaluations.put_provisional("x", run_id, {"decision": "promoted", "model_type": "GRU"})
    client = gateway.client(key=None)

    [found] = client.get("/datasets").json()["datasets"]
    view = client.get(f"/runs/{run_id}").json()
    page = client.get("/").text

    assert found["champion"]["stage"] == "provisional"
    assert view["champion_stages"] == {"provisional": {"decision": "promoted", "model_type": "GRU"}}
    assert view["outcome"] is None
    assert "<td>GRU (provisional)</td>" in page


class TestRetrain:
    def test_a_run_starts_on_the_newest_upload_with_other_settings(self, gateway: GatewayUnderTest) -> None:
        upload(gateway)

        body = gateway.client().post(
            "/runs", json={"identifier": "x", "settings": {"EPOCHS": 7}, "force": True, "salt": "again"}
        )

        assert body.status_code == 202, body.text
        event: Any = gateway.broker.events[-1]
        assert (event.cause, event.force) == ("retrain", True)
        assert event.settings == {"EPOCHS": 7, "EXTRA_HASH_SALT": "again"}
        assert event.train.sha256 == gateway.broker.events[0].train.sha256  # type: ignore[attr-defined]

    def test_what_the_upload_said_of_its_columns_is_kept_and_how_it_was_trained_is_not(
        self, gateway: GatewayUnderTest
    ) -> None:
        said = {"TARGETS": "down", "FUTURE_COLUMNS": "up", "EPOCHS": 3}
        upload(gateway, settings=json.dumps(said))
        client = gateway.client()

        kept = client.post("/runs", json={"identifier": "x"}, headers={"idempotency-key": "one"})
        changed = client.post("/runs", json={"identifier": "x", "settings": {"FUTURE_COLUMNS": "", "TARGETS": ""}})
        repeated = client.post("/runs", json={"identifier": "x"}, headers={"idempotency-key": "one"})

        first, second, third = gateway.broker.events[-3:]
        assert first.settings == {"TARGETS": "down", "FUTURE_COLUMNS": "up"}, kept.text  # type: ignore[attr-defined]
        assert second.settings == {"TARGETS": "", "FUTURE_COLUMNS": ""}, changed.text  # type: ignore[attr-defined]
        assert third.pipeline_run_id == first.pipeline_run_id, repeated.text  # type: ignore[attr-defined]

    def test_settings_are_checked_on_the_data(self, gateway: GatewayUnderTest) -> None:
        upload(gateway)

        answer = gateway.client().post("/runs", json={"identifier": "x", "settings": {"TARGETS": "sideways"}})

        assert answer.status_code == 422
        assert answer.json()["error"]["field"] == "TARGETS"
        assert len(gateway.run_store.runs.of("x")) == 1

    def test_stored_files_that_were_changed_are_not_trained_on(self, gateway: GatewayUnderTest) -> None:
        upload(gateway)
        key = gateway.keys("raw-data")[0]
        gateway.store.put("raw-data", key, csv_text(300, seed=99))

        answer = gateway.client().post("/runs", json={"identifier": "x"})

        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "hash_mismatch"

    def test_the_same_key_starts_one_run(self, gateway: GatewayUnderTest) -> None:
        upload(gateway)
        headers = {"idempotency-key": "nightly-2024-01-01"}

        ids = {
            gateway.client().post("/runs", json={"identifier": "x"}, headers=headers).json()["pipeline_run_id"]
            for _ in range(2)
        }

        assert len(ids) == 1
        assert len(gateway.run_store.runs.of("x")) == 2


class TestResume:
    def test_unfinished_runs_are_announced_again_with_the_same_event_id(self, gateway: GatewayUnderTest) -> None:
        done, open_run = upload(gateway), upload(gateway)
        finish(gateway, done)
        before = list(gateway.broker.events)

        answer = gateway.client().post("/runs/resume?older_than_seconds=0")

        assert answer.json() == {"resumed": [open_run]}
        assert gateway.broker.events[2:] == [before[1]]

    def test_runs_that_move_are_left_alone(self, gateway: GatewayUnderTest) -> None:
        upload(gateway)

        assert gateway.client().post("/runs/resume?older_than_seconds=60").json() == {"resumed": []}
        assert gateway.client().post("/runs/resume").json() == {"resumed": []}

    def test_a_stage_or_a_message_counts_as_movement(self, tmp_path: Path) -> None:
        gateway = make_gateway(tmp_path)
        quiet, staged, heard = (upload(gateway) for _ in range(3))
        later = datetime.now(UTC).timestamp() + 1000
        outbox = gateway.gateway.outbox
        outbox._clock = lambda: later
        gateway.gateway.live._clock = lambda: later
        gateway.run_store.stages.put("x", staged, "preprocess", "started", later - 10)
        gateway.hear(progress(heard, "x"))

        assert outbox.resume(900) == [quiet]

    def test_one_run_is_resumed_by_name(self, gateway: GatewayUnderTest) -> None:
        first, _ = upload(gateway), upload(gateway)

        assert gateway.client().post(f"/runs/{first}/resume").json() == {"resumed": [first]}
        assert gateway.broker.events[-1].pipeline_run_id == first

    def test_a_run_that_has_ended_is_not_resumed(self, gateway: GatewayUnderTest) -> None:
        run_id = upload(gateway)
        finish(gateway, run_id)

        answer = gateway.client().post(f"/runs/{run_id}/resume")

        assert answer.status_code == 409
        assert "flts retrain x" in answer.json()["error"]["message"]

    def test_without_a_broker_it_says_so_and_the_outbox_goes_on(self, gateway: GatewayUnderTest) -> None:
        run_id = upload(gateway)
        gateway.broker.away = True
        assert gateway.client().post("/runs/resume?older_than_seconds=0").status_code == 503

        gateway.broker.away = False
        gateway.gateway.outbox.tick()

        assert [event.pipeline_run_id for event in gateway.broker.events] == [run_id, run_id]

    def test_a_broker_that_goes_away_makes_no_run_forgotten(self, gateway: GatewayUnderTest) -> None:
        runs = [upload(gateway) for _ in range(3)]
        gateway.broker.away = True
        assert gateway.client().post("/runs/resume?older_than_seconds=0").status_code == 503

        gateway.broker.away = False
        gateway.gateway.outbox.tick()

        assert [event.pipeline_run_id for event in gateway.broker.events] == runs * 2


class TestRequests:
    """Rollback and evaluate-again create new runs, which eval decides."""

    def test_a_run_is_judged_again_as_a_run_of_its_own(self, gateway: GatewayUnderTest) -> None:
        old = upload(gateway)

        answer = gateway.client().post(f"/runs/{old}/evaluate")

        event = gateway.broker.events[-1]
        assert answer.status_code == 202, answer.text
        assert isinstance(event, EvaluateRequest)
        assert (event.identifier, event.of_run) == ("x", old)
        assert event.pipeline_run_id == answer.json()["pipeline_run_id"] != old
        view = gateway.client().get(f"/runs/{event.pipeline_run_id}").json()
        assert (view["cause"], view["of_run"], view["announced"], view["train"]) == ("evaluate", old, True, None)

    def test_the_champion_before_the_current_one_returns(self, gateway: GatewayUnderTest) -> None:
        for _ in range(2):
            gateway.run_store.pointers.move_current("x", {"pipeline_run_id": upload(gateway), "model_type": "GRU"})

        answer = gateway.client().post("/datasets/x/rollback")

        event = gateway.broker.events[-1]
        assert answer.status_code == 202, answer.text
        assert isinstance(event, RollbackRequest)
        assert event.of_run is None

    def test_a_named_runs_champion_returns(self, gateway: GatewayUnderTest) -> None:
        old = upload(gateway)

        assert gateway.client().post(f"/datasets/x/rollback?of_run={old}").json()["of_run"] == old

    @pytest.mark.parametrize("query", ["", "?of_run=0199d3f4-0000-7000-8000-000000000000", "?of_run=..", "?of_run="])
    def test_what_there_is_not_cannot_return(self, gateway: GatewayUnderTest, query: str) -> None:
        upload(gateway)
        other = upload(gateway, "other")

        assert gateway.client().post(f"/datasets/x/rollback{query}").status_code == 404
        assert gateway.client().post(f"/datasets/x/rollback?of_run={other}").status_code == 404
        assert len(gateway.broker.events) == 2

    def test_a_request_survives_a_broker_that_is_away(self, tmp_path: Path) -> None:
        dead = make_gateway(tmp_path)
        old = upload(dead)
        dead.broker.away = True
        run_id = dead.client().post(f"/runs/{old}/evaluate").json()["pipeline_run_id"]

        gateway = make_gateway(tmp_path)
        gateway.gateway.outbox.tick()

        assert [type(event) for event in gateway.broker.events] == [EvaluateRequest]
        assert gateway.broker.events[0].pipeline_run_id == run_id


class TestCancel:
    def test_a_run_ends_without_a_decision(self, gateway: GatewayUnderTest) -> None:
        run_id = upload(gateway)

        assert gateway.client().post(f"/runs/{run_id}/cancel").json()["outcome"] == "cancelled"

        assert gateway.client().get(f"/runs/{run_id}").json()["outcome"] == "cancelled"
        assert gateway.client().post("/runs/resume?older_than_seconds=0").json() == {"resumed": []}

    def test_what_has_ended_stays_as_it_ended(self, gateway: GatewayUnderTest) -> None:
        run_id = upload(gateway)
        finish(gateway, run_id)

        assert gateway.client().post(f"/runs/{run_id}/cancel").status_code == 409
        assert gateway.client().get(f"/runs/{run_id}").json()["outcome"] == "promoted"

    def test_a_decision_that_is_just_being_carried_out_is_not_cancelled(self, gateway: GatewayUnderTest) -> None:
        run_id = upload(gateway)
        gateway.run_store.evaluations.decide("x", run_id, {"decision": "promoted"})

        answer = gateway.client().post(f"/runs/{run_id}/cancel")

        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "already_decided")
        assert gateway.run_store.runs.outcome("x", run_id) is None

    def test_it_claims_the_decision_so_that_eval_cannot_decide_otherwise(self, gateway: GatewayUnderTest) -> None:
        run_id = upload(gateway)
        assert gateway.client().post(f"/runs/{run_id}/cancel").status_code == 200

        stands, mine = gateway.run_store.evaluations.decide("x", run_id, {"decision": "promoted"})

        decision = ModelSelected.model_validate(stands)
        assert (mine, decision.decision, decision.cancelled) == (False, "refused", True)
        assert decision.reasons == ["cancelled: a person cancelled it"], "what readers of the previous release go by"
        view = gateway.client().get(f"/runs/{run_id}").json()
        assert (view["outcome"], view["decision"]) == ("cancelled", None)
        assert view["outcome_details"]["reason"] == "a person cancelled it"
        again = gateway.client().post(f"/runs/{run_id}/cancel")
        assert (again.status_code, again.json()["error"]["code"]) == (409, "run_has_ended")

    def test_eval_deciding_between_the_look_and_the_claim_was_first(
        self, gateway: GatewayUnderTest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run_id = upload(gateway)
        gateway.run_store.evaluations.decide("x", run_id, {"decision": "promoted"})
        # The gateway's check finds no decision, as if eval decided between the check and the cancellation.
        monkeypatch.setattr(Evaluations, "decision", lambda *_: None)

        answer = gateway.client().post(f"/runs/{run_id}/cancel")

        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "already_decided")
        assert gateway.run_store.runs.outcome("x", run_id) is None

    def test_killed_between_claim_and_outcome_it_may_be_repeated(
        self, gateway: GatewayUnderTest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run_id = upload(gateway)
        with monkeypatch.context() as patched:
            patched.setattr(Runs, "put_outcome", lambda *_, **__: False)
            gateway.client().post(f"/runs/{run_id}/cancel")
        assert gateway.run_store.runs.outcome("x", run_id) is None

        assert gateway.client().post(f"/runs/{run_id}/cancel").json()["outcome"] == "cancelled"


class TestOutbox:
    def test_a_run_that_another_gateway_recorded_and_never_announced_is_found(self, tmp_path: Path) -> None:
        dead = make_gateway(tmp_path)
        dead.broker.away = True
        run_id = upload(dead)

        gateway = make_gateway(tmp_path)
        gateway.gateway.outbox.tick()

        assert [event.pipeline_run_id for event in gateway.broker.events] == [run_id]
        assert gateway.run_store.runs.announced("x", run_id)
        gateway.gateway.outbox.tick()
        assert len(gateway.broker.events) == 1

    def test_a_young_run_is_left_to_whoever_recorded_it(self, tmp_path: Path) -> None:
        other = make_gateway(tmp_path)
        other.broker.away = True
        run_id = upload(other)
        gateway = make_gateway(tmp_path)
        outbox = gateway.gateway.outbox
        outbox._grace_seconds = 30

        outbox.tick()
        assert gateway.broker.events == []

        later = datetime.now(UTC).timestamp() + 60
        outbox._clock = lambda: later
        outbox.tick()
        assert [event.pipeline_run_id for event in gateway.broker.events] == [run_id]

    def test_a_run_is_not_announced_twice_while_the_broker_is_slow(self, tmp_path: Path) -> None:
        gateway = make_gateway(tmp_path)
        gateway.broker.away = True
        run_id = upload(gateway)
        gateway.broker.away = False
        gateway.broker.hold.clear()
        outbox = gateway.gateway.outbox
        slow = threading.Thread(target=outbox.tick)
        slow.start()
        eventually(lambda: run_id in outbox._announcing, "it is being announced")

        assert outbox.tick() == ()
        assert gateway.broker.events == []
        gateway.broker.hold.set()
        slow.join(20)

        outbox.tick()
        assert len(gateway.broker.events) == 1

    def test_a_run_that_was_cancelled_is_not_announced(self, tmp_path: Path) -> None:
        dead = make_gateway(tmp_path)
        dead.broker.away = True
        dead.run_store.runs.put_outcome("x", upload(dead), RunState.CANCELLED)

        gateway = make_gateway(tmp_path)
        gateway.gateway.outbox.tick()

        assert gateway.broker.events == []

    @pytest.mark.parametrize("record", [b'{"train": 1}', b"[]", b"no json", b"{}"])
    def test_an_unreadable_record_does_not_hold_up_the_others(self, tmp_path: Path, record: bytes) -> None:
        dead = make_gateway(tmp_path)
        dead.broker.away = True
        broken, good = upload(dead), upload(dead)
        dead.store.put("pipeline-runs", f"x/{broken}/run.json", record)

        gateway = make_gateway(tmp_path)
        gateway.gateway.outbox.tick()

        assert [event.pipeline_run_id for event in gateway.broker.events] == [good]


class TestTail:
    def test_the_last_rows_are_a_predict_body(self, gateway: GatewayUnderTest) -> None:
        upload(gateway)
        last = csv_text(300).decode().splitlines()[-3:]

        body = gateway.client(key=None).get("/datasets/x/tail?rows=3").json()

        assert body["identifier"] == "x"
        assert body["index_col"] == "time"
        assert list(body["data"]) == ["time", "down", "up"]
        assert body["data"]["time"] == [row.split(",")[0] for row in last]
        assert body["data"]["down"] == [float(row.split(",")[1]) for row in last]

    def test_it_goes_on_from_the_training_rows_into_the_test_rows(self, gateway: GatewayUnderTest) -> None:
        test = csv_text(40, start=following(300), seed=1)
        gateway.client().post("/datasets/x", files={"train": ("a", csv_text(300)), "test": ("b", test)})

        body = gateway.client().get("/datasets/x/tail?rows=60").json()

        assert len(body["data"]["time"]) == 60
        assert body["data"]["up"][-1] == float(test.decode().splitlines()[-1].split(",")[2])
        assert body["data"]["up"][19] == float(csv_text(300).decode().splitlines()[-1].split(",")[2])

    def test_a_short_gap_becomes_missing_cells_and_a_long_one_ends_the_tail(self, gateway: GatewayUnderTest) -> None:
        lines = csv_text(400).decode().splitlines()
        del lines[380:383]  # a short gap of three rows
        del lines[200:260]  # a long gap of sixty rows
        gateway.client().post("/datasets/x", files={"train": ("a", "\n".join(lines).encode())})

        data = gateway.client().get("/datasets/x/tail?rows=300").json()["data"]

        assert len(data["time"]) == 400 - 259
        assert data["down"].count(None) == 3

    def test_more_rows_than_there_are_give_all(self, gateway: GatewayUnderTest) -> None:
        upload(gateway)

        assert len(gateway.client().get("/datasets/x/tail?rows=10000").json()["data"]["time"]) == 300

    def test_a_column_that_the_run_ignored_is_left_out(self, gateway: GatewayUnderTest) -> None:
        train = csv_text(300, columns={"note": "hello"})
        answer = gateway.client().post(
            "/datasets/x", files={"train": ("a", train)}, data={"settings": '{"IGNORE_COLUMNS": "note"}'}
        )
        assert answer.status_code == 202

        assert list(gateway.client().get("/datasets/x/tail").json()["data"]) == ["time", "down", "up"]

    @pytest.mark.parametrize("lines", [1, 90])
    def test_a_file_of_lines_that_are_far_too_wide_is_not_read_into_memory(
        self, gateway: GatewayUnderTest, lines: int
    ) -> None:
        """Assert that a tail, which needs no key, does not read an unchecked file that was stored by bucket and key."""
        line = b"9" * (1_000_000 if lines > 1 else 90_000_000) + b"\n"
        gateway.store.put("raw-data", f"x/{'0' * 64}/train.csv", b"time,a\n" + line * lines)

        error = gateway.client(key=None).get("/datasets/x/tail?rows=10000").json()["error"]

        assert (error["code"], error["field"]) == ("too_many_cells", "rows")

    def test_a_tail_of_too_many_columns_says_to_ask_for_fewer_rows(
        self, gateway: GatewayUnderTest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        upload(gateway)
        monkeypatch.setattr(tail, "MOST_CELLS", 500)

        assert gateway.client().get("/datasets/x/tail?rows=10000").json()["error"]["code"] == "too_many_cells"
        assert len(gateway.client().get("/datasets/x/tail?rows=200").json()["data"]["time"]) == 200


def test_the_page_shows_runs_champions_and_routes_and_escapes_names(gateway: GatewayUnderTest) -> None:
    run_id = upload(gateway)
    finish(gateway, run_id)
    gateway.run_store.pointers.move_current(
        "x", {"pipeline_run_id": run_id, "model_type": "<script>alert(1)</script>", "score": 0.5}
    )

    answer = gateway.client(key=None).get("/")

    assert answer.headers["content-type"].startswith("text/html")
    assert run_id in answer.text
    assert "<code>POST /datasets/{identifier}</code>" in answer.text
    assert "<script" not in answer.text
    assert "&lt;script&gt;" in answer.text
    assert "//" not in answer.text.replace("<!doctype", "")  # the page loads nothing from another server
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_the_page_says_what_the_score_is_and_why_a_baseline_is_served(gateway: GatewayUnderTest) -> None:
    run_id = upload(gateway)
    finish(gateway, run_id)
    pointer = {"pipeline_run_id": run_id, "model_type": "MEAN", "score": 1.0, "baseline": "no model passes <b>"}
    gateway.run_store.pointers.move_current("x", pointer)

    page = gateway.client(key=None).get("/").text

    assert "<td>MEAN (no model passes &lt;b&gt;)</td><td>1.0000</td>" in page
    assert "1 is the best baseline, lower is better" in page
