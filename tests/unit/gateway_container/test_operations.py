"""Operations through the gateway: deletion, the janitor, and the record of who asked for what and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from flts.contracts.events import DatasetDeleted, EvaluateRequest, RawData
from flts.contracts.ids import new_pipeline_run_id
from flts.contracts.lifecycle import RunState
from gateway_container.intake import CANCEL_REASON
from tests.gateway import BUCKETS, GatewayUnderTest, csv_text, make_gateway

HEADERS = {"idempotency-key": "once"}


@pytest.fixture
def gateway(tmp_path: Path) -> GatewayUnderTest:
    return make_gateway(tmp_path)


def upload(gateway: GatewayUnderTest, identifier: str = "x", **data: str) -> str:
    answer = gateway.client().post(
        f"/datasets/{identifier}", files={"train": ("a", csv_text(300))}, data=data, headers=HEADERS if not data else {}
    )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["pipeline_run_id"])


def finish(gateway: GatewayUnderTest, run_id: str, identifier: str = "x", outcome: str = "promoted") -> None:
    gateway.run_store.evaluations.decide(identifier, run_id, {"decision": outcome, "reasons": []})
    gateway.run_store.pointers.move_current(
        identifier, {"pipeline_run_id": run_id, "config_hash": "c", "run_id": "a" * 32}
    )
    gateway.run_store.runs.put_outcome(identifier, run_id, RunState(outcome))


def everything(gateway: GatewayUnderTest) -> list[str]:
    keys = [f"{bucket}/{key}" for bucket in BUCKETS for key in gateway.keys(bucket)]
    ours = (
        "pipeline-runs/_leases/",
        "pipeline-runs/_deleted/",
        "pipeline-runs/_operations/",
        "pipeline-runs/_spool/forget-",
    )
    return [key for key in keys if not key.startswith(ours)]


class TestDelete:
    def test_everything_goes_and_the_name_is_free_at_once(self, gateway: GatewayUnderTest) -> None:
        finish(gateway, upload(gateway))
        client = gateway.client()

        answer = client.delete("/datasets/x", params={"reason": "a trial"})

        assert answer.status_code == 200, answer.text
        assert answer.json()["objects"] > 5
        assert answer.json()["bytes"] > 1000
        assert everything(gateway) == []
        assert client.get("/datasets").json()["datasets"] == []
        assert client.get("/runs", params={"identifier": "x"}).json()["runs"] == []
        assert client.get("/datasets/x/tail").status_code == 404
        again = upload(gateway)
        assert client.get(f"/runs/{again}").json()["state"] == "waiting"

    def test_replicas_are_told_when_the_champion_is_gone_and_when_all_is(self, gateway: GatewayUnderTest) -> None:
        finish(gateway, upload(gateway))

        operation = gateway.client().delete("/datasets/x").json()["operation_id"]

        told = [event for event in gateway.broker.events if isinstance(event, DatasetDeleted)]
        assert [event.pipeline_run_id for event in told] == [operation, operation]

    def test_a_broker_that_is_away_holds_no_deletion_up(self, gateway: GatewayUnderTest) -> None:
        finish(gateway, upload(gateway))
        gateway.broker.away = True

        assert gateway.client().delete("/datasets/x").status_code == 200
        assert everything(gateway) == []

    def test_runs_under_way_forbid_it_by_name_unless_they_are_cancelled(self, gateway: GatewayUnderTest) -> None:
        run_id = upload(gateway)
        client = gateway.client()

        refused = client.delete("/datasets/x")
        deleted = client.delete("/datasets/x", params={"cancel": True})

        assert refused.status_code == 409
        assert refused.json()["error"]["code"] == "runs_under_way"
        assert run_id in refused.json()["error"]["message"]
        assert deleted.json()["cancelled"] == [run_id]
        assert everything(gateway) == []

    def test_a_look_changes_nothing_and_needs_no_cancelling(self, gateway: GatewayUnderTest) -> None:
        run_id = upload(gateway)
        before = everything(gateway)

        plan = gateway.client().delete("/datasets/x", params={"dry_run": True}).json()

        assert everything(gateway) == before
        assert plan["open_runs"] == [run_id]
        assert {held["what"]: held["objects"] for held in plan["buckets"]}["uploads"] == 1
        assert {held["what"]: held["objects"] for held in plan["buckets"]}["idempotency keys"] == 1

    def test_what_never_was_is_not_found_and_what_was_may_be_deleted_again(self, gateway: GatewayUnderTest) -> None:
        finish(gateway, upload(gateway))
        client = gateway.client()

        assert client.delete("/datasets/nobody").status_code == 404
        assert client.delete("/datasets/x").status_code == 200
        assert client.delete("/datasets/x").json()["objects"] == 0

    def test_it_needs_the_key(self, gateway: GatewayUnderTest) -> None:
        upload(gateway)

        assert gateway.client(key=None).delete("/datasets/x").status_code == 401
        assert gateway.client(key=None).post("/janitor").status_code == 401

    def test_an_event_that_waited_for_the_broker_is_not_announced_after_its_run_was_deleted(
        self, gateway: GatewayUnderTest
    ) -> None:
        gateway.broker.away = True
        upload(gateway)
        gateway.client().delete("/datasets/x", params={"cancel": True})
        gateway.broker.away = False

        gateway.gateway.outbox.tick()

        assert not [event for event in gateway.broker.events if isinstance(event, RawData)]
        assert everything(gateway) == []

    def test_an_upload_that_began_before_the_deletion_is_refused_and_leaves_nothing(
        self, gateway: GatewayUnderTest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        finish(gateway, upload(gateway))
        create = gateway.run_store.runs.create

        def deleted_just_before(event: RawData) -> bool:
            gateway.gateway.deleting.delete("x", cancel=True, reason=None)
            return create(event)

        monkeypatch.setattr(gateway.run_store.runs, "create", deleted_just_before)
        answer = gateway.client().post("/datasets/x", files={"train": ("a", csv_text(310))})

        assert answer.status_code == 409
        assert answer.json()["error"]["code"] == "deleted"
        assert everything(gateway) == []


class TestCauses:
    def test_every_run_says_who_started_it_and_why(self, gateway: GatewayUnderTest) -> None:
        client = gateway.client()
        first = upload(gateway, reason="the first   data")
        finish(gateway, first)
        retrain = client.post("/runs", json={"identifier": "x", "salt": "1", "reason": "new weather"}).json()
        evaluate = client.post(f"/runs/{first}/evaluate", params={"reason": "a better score"}).json()
        rollback = client.post("/datasets/x/rollback", params={"of_run": first, "reason": "worse at night"}).json()

        listed = {run["pipeline_run_id"]: run for run in client.get("/runs").json()["runs"]}

        shown = {
            run_id: (listed[run_id]["cause"], listed[run_id]["of_run"], listed[run_id]["reason"])
            for run_id in (first, *(answer["pipeline_run_id"] for answer in (retrain, evaluate, rollback)))
        }
        assert list(shown.values()) == [
            ("upload", None, "the first data"),
            ("retrain", None, "new weather"),
            ("evaluate", first, "a better score"),
            ("rollback", first, "worse at night"),
        ]
        assert client.get(f"/runs/{rollback['pipeline_run_id']}").json()["reason"] == "worse at night"
        asked = [event for event in gateway.broker.events if isinstance(event, EvaluateRequest)]
        assert asked[0].reason == "a better score"

    def test_what_starts_no_run_is_recorded_with_its_reason(self, gateway: GatewayUnderTest) -> None:
        client = gateway.client()
        run_id = upload(gateway)
        client.post(f"/runs/{run_id}/resume", params={"reason": "the broker was new"})
        client.post(f"/runs/{run_id}/cancel", params={"reason": "wrong file"})
        other = upload(gateway, "y", reason="another")
        finish(gateway, other, "y")
        client.delete("/datasets/y", params={"reason": "a trial"})
        client.post("/janitor", params={"reason": "the disk is full"})

        of_x = client.get("/operations", params={"identifier": "x"}).json()
        of_y = client.get("/operations", params={"identifier": "y"}).json()
        of_all = client.get("/operations").json()["operations"]

        assert [(one["cause"], one["pipeline_run_id"], one["reason"]) for one in of_x["operations"]] == [
            ("cancel", run_id, "wrong file"),
            ("resume", run_id, "the broker was new"),
        ]
        assert of_x["deletion"] is None
        assert [(one["cause"], one["reason"]) for one in of_y["operations"]] == [("delete", "a trial")]
        assert of_y["operations"][0]["ended"] is not None
        assert of_y["deletion"] == {"unfinished": False, "recorded": False}
        assert [(one["cause"], one["reason"]) for one in of_all] == [("janitor", "the disk is full")]
        outcome = client.get(f"/runs/{run_id}").json()["outcome_details"]
        assert outcome["reason"] == f"{CANCEL_REASON}: wrong file"

    def test_a_resume_that_found_nothing_is_not_recorded(self, gateway: GatewayUnderTest) -> None:
        finish(gateway, upload(gateway))

        gateway.client().post("/runs/resume", params={"older_than_seconds": 0})

        assert gateway.keys("pipeline-runs", "_operations/") == []

    def test_a_reason_has_a_length(self, gateway: GatewayUnderTest) -> None:
        run_id = upload(gateway)

        answer = gateway.client().post(f"/runs/{run_id}/cancel", params={"reason": "x" * 501})

        assert answer.status_code == 422
        assert answer.json()["error"]["field"] == "reason"
        assert gateway.run_store.runs.outcome("x", run_id) is None


class TestJanitor:
    def test_a_look_names_runs_objects_and_bytes_and_a_round_removes_them(self, tmp_path: Path) -> None:
        gateway = make_gateway(tmp_path, retain_runs=1)
        old, new = (upload(gateway, reason=text) for text in ("old", "new"))
        finish(gateway, old, outcome="refused")
        finish(gateway, new)
        gateway.store.put("pipeline-runs", "x/not-a-run.json", b"{}")
        gateway.store.put("inference-logs", "x/date=2020-01-01/a.jsonl", b"12345")
        gateway.store.delete("model-promotion", "x/current.json")
        before = everything(gateway)
        client = gateway.client()

        plan = client.get("/janitor").json()
        unchanged = everything(gateway) == before
        done = client.post("/janitor").json()

        [removal] = plan["removals"]
        assert unchanged
        assert removal["runs"] == [old]
        assert "RETAIN_RUNS" in removal["why_runs"]
        assert removal["run_bytes"] > 100
        assert removal["objects"] == [
            {
                "bucket": "inference-logs",
                "why": "older than 30 days (RETAIN_LOG_DAYS)",
                "objects": 1,
                "bytes": 5,
                "keys": ["x/date=2020-01-01/a.jsonl"],
            }
        ]
        assert done["removals"] == plan["removals"]
        assert gateway.run_store.runs.of("x") == [new]
        assert client.get("/janitor").json()["removals"] == []

    def test_two_rounds_do_not_overlap(self, gateway: GatewayUnderTest) -> None:
        gateway.run_store.leases.acquire("janitor-round", "eval", 60)

        answer = gateway.client().post("/janitor")

        assert answer.status_code == 409
        assert answer.json()["error"]["code"] == "janitor_busy"

    def test_what_a_late_service_left_of_a_deleted_data_set_goes(self, gateway: GatewayUnderTest) -> None:
        finish(gateway, upload(gateway))
        gateway.client().delete("/datasets/x")
        late = "00000000-0000-7000-8000-000000000000"
        gateway.run_store.stages.put("x", late, "train-gru", "done")
        gateway.store.put("model-bundles", "x/c/GRU/t/bundle.json", b"late")

        [removal] = gateway.client().post("/janitor").json()["removals"]

        assert {group["why"] for group in removal["objects"]} == {"left by a run of a deleted data set"}
        assert everything(gateway) == []


def test_a_new_run_after_a_deletion_is_newer_than_it(gateway: GatewayUnderTest) -> None:
    finish(gateway, upload(gateway))
    gateway.client().delete("/datasets/x")

    assert not gateway.run_store.runs.deleted("x", new_pipeline_run_id())
