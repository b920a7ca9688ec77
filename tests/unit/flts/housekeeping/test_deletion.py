"""A deletion removes a data set from every bucket, even after an interruption, and no run of it returns."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from flts.contracts.events import Event, RawData
from flts.contracts.ids import derived_event_id, new_pipeline_run_id
from flts.contracts.lifecycle import RunState
from flts.errors import BackendAwayError, ConflictError, RejectedError, RunDeletedError
from flts.housekeeping.deletion import Deletion
from flts.housekeeping.guard import unless_deleted
from flts.settings import StoreSettings
from flts.storage.filesystem import FilesystemStore
from flts.storage.run_store import RunStore
from flts.storage.tombstones import Tombstones
from flts.tracking.record import ChampionDocument, ForgetDocument, document_from_json
from flts.tracking.spool import Spool
from tests.gateway import BUCKETS, claim

CREATED = "2024-01-01T00:00:00Z"
OURS = ("_deleted/", "_spool/forget-")
"""Prefixes of the objects that a deletion keeps on purpose."""


def silent() -> None:
    """Ignore the hint to the replicas."""


class Failing(FilesystemStore):
    """A store that becomes unavailable at the n-th deletion."""

    left: int | None = None

    def delete(self, bucket: str, key: str) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                msg = "the store is away"
                raise BackendAwayError(msg)
        super().delete(bucket, key)


class Installation:
    def __init__(self, home: Path) -> None:
        self.settings = StoreSettings(store="filesystem", store_path=home)
        self.store = Failing(home)
        for bucket in BUCKETS:
            self.store.ensure_bucket(bucket)
        self.run_store = RunStore(self.store, self.settings)
        self.deletion = Deletion(self.store, self.run_store.runs, self.settings)

    def start(self, identifier: str, *, run: str | None = None) -> RawData:
        """Create a run and all the objects of a finished run."""
        run = run or new_pipeline_run_id()
        event = RawData(
            event_id=derived_event_id(run, "raw"),
            identifier=identifier,
            pipeline_run_id=run,
            created_at=CREATED,
            train=claim(key=f"{identifier}/abc/train.csv"),
        )
        self.run_store.runs.create(event)
        for bucket, key in (
            ("raw-data", f"{identifier}/abc/train.csv"),
            ("raw-data", f"_incoming/{identifier}/train.csv"),
            ("processed-data", f"{identifier}/c/processed_data.parquet"),
            ("model-bundles", f"{identifier}/c/GRU/t/bundle.json"),
            ("inference-logs", f"{identifier}/date=2024-01-01/a.jsonl"),
        ):
            self.store.put(bucket, key, b"12345")
        self.run_store.runs.mark_announced(identifier, run)
        self.run_store.stages.put(identifier, run, "eval", "done")
        self.run_store.evaluations.put_provisional(identifier, run, {"stage": "provisional"})
        self.run_store.pointers.move_current(identifier, {"pipeline_run_id": run, "config_hash": "c"})
        self.run_store.pointers.move_current_of_config(identifier, "c", {"pipeline_run_id": run, "config_hash": "c"})
        self.run_store.runs.create_job(identifier, "j", {"pipeline_run_id": run})
        self.run_store.runs.put_outcome(identifier, run, RunState.PROMOTED)
        self.put(f"_idempotency/{run}.json", {"pipeline_run_id": run, "asked": "x"})
        Spool(self.store, "pipeline-runs").put(ChampionDocument(identifier, "a" * 32))
        return event

    def put(self, key: str, record: dict[str, Any]) -> None:
        self.store.put("pipeline-runs", key, json.dumps(record).encode())

    def everything(self) -> list[str]:
        keys = [f"{bucket}/{info.key}" for bucket in BUCKETS for info in self.store.list(bucket)]
        return [key for key in keys if not key.removeprefix("pipeline-runs/").startswith(OURS)]


@pytest.fixture
def flts(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


def test_everything_of_the_identifier_goes_and_nothing_of_another(flts: Installation) -> None:
    flts.start("other")
    before = flts.everything()
    flts.start("mine")
    flts.start("mine")
    pointers_gone: list[bool] = []

    removed = flts.deletion.carry_out(
        "mine", report=lambda: pointers_gone.append(flts.run_store.pointers.current("mine") is None)
    )

    assert flts.everything() == before
    assert pointers_gone == [True, True], "replicas hear of it once the champion is gone, and again at the end"
    counts = {held.what: len(held.keys) for held in removed}
    assert counts["pointers"] == 2
    assert counts["uploads"] == 2
    assert counts["idempotency keys"] == 2
    assert counts["records for MLflow"] == 1
    assert sum(held.size_bytes for held in removed) > 25


def test_a_plan_counts_what_a_deletion_removes_and_changes_nothing(flts: Installation) -> None:
    flts.start("mine")
    before = flts.everything()

    plan = [held.view() for held in flts.deletion.plan("mine")]

    assert flts.everything() == before
    assert plan == [held.view() for held in flts.deletion.carry_out("mine", report=silent)]


def test_a_deletion_that_was_cut_off_anywhere_is_ended_by_the_next_one(tmp_path: Path) -> None:
    for cut in (0, 1, 2, 4, 6, 8, 10, 13, 16):
        flts = Installation(tmp_path / str(cut))
        flts.start("mine")
        flts.start("other")
        flts.store.left = cut
        with pytest.raises(BackendAwayError):
            flts.deletion.carry_out("mine", report=silent)
        flts.store.left = None
        with pytest.raises(ConflictError, match="flts delete mine --yes"):
            flts.start("mine")

        remains = sum(len(held.keys) for held in flts.deletion.plan("mine"))
        flts.deletion.carry_out("mine", report=silent)

        assert remains > 0, cut
        assert not [key for key in flts.everything() if "mine" in key], cut
        assert [key for key in flts.everything() if "other" in key], cut
        assert flts.run_store.runs.read("mine", flts.start("mine").pipeline_run_id) is not None, (
            "the name is free again"
        )


def test_what_a_repeat_is_led_by_goes_last_and_what_is_looked_at_first(
    flts: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(12):
        flts.start("mine")
    order, delete, spans = itertools.count(), flts.store.delete, {}

    def slowly(bucket: str, key: str) -> None:
        began = next(order)
        if not key.startswith("_index/"):
            time.sleep(0.005)
        delete(bucket, key)
        spans[bucket, key] = (began, next(order))

    monkeypatch.setattr(flts.store, "delete", slowly)
    flts.deletion.carry_out("mine", report=silent)

    records = {key: span for (bucket, key), span in spans.items() if bucket == "pipeline-runs"}
    of_index = [began for key, (began, _) in records.items() if key.startswith("_index/")]
    marks = [ended for key, (_, ended) in records.items() if key.startswith(("_open/", "_forecasts/"))]
    runs = [ended for key, (_, ended) in records.items() if key.endswith("/run.json")]
    stages = [began for key, (began, _) in records.items() if "/stages/" in key]
    assert len(of_index) == len(runs) == len(stages) == 12
    assert max(marks) < min(of_index)
    assert max(runs) < min(stages)


def test_a_run_that_began_before_the_deletion_cannot_be_recorded_after_it(flts: Installation) -> None:
    early = new_pipeline_run_id()
    flts.start("mine")
    flts.deletion.carry_out("mine", report=silent)

    with pytest.raises(ConflictError) as caught:
        flts.start("mine", run=early)

    assert caught.value.code == "deleted"
    assert flts.everything() == []


def _work_that(flts: Installation, act: Any) -> Any:
    def work(event: Event, progress: Any) -> Sequence[Event]:
        del progress
        act(event)
        return [event]

    return unless_deleted(work, flts.deletion)


def test_work_on_a_run_that_was_deleted_is_not_begun(flts: Installation) -> None:
    event = flts.start("mine")
    flts.deletion.carry_out("mine", report=silent)
    done: list[Event] = []

    with pytest.raises(RunDeletedError):
        _work_that(flts, done.append)(event, None)

    assert done == []


@pytest.mark.parametrize("ends", ["well", "with an error"])
def test_what_work_writes_for_a_run_that_is_deleted_meanwhile_is_taken_back(flts: Installation, ends: str) -> None:
    event = flts.start("mine")

    def train(_: Event) -> None:
        flts.deletion.carry_out("mine", report=silent)
        flts.store.put("model-bundles", "mine/c/GRU/t/bundle.json", b"late")
        flts.store.put("pipeline-runs", f"mine/{event.pipeline_run_id}/attempts/train-gru/x-1.json", b"{}")
        flts.run_store.stages.put("mine", event.pipeline_run_id, "train-gru", "done")
        flts.run_store.pointers.move_current("mine", {"pipeline_run_id": event.pipeline_run_id})
        if ends != "well":
            msg = "its data are gone"
            raise RejectedError(msg)

    with pytest.raises(RunDeletedError):
        _work_that(flts, train)(event, None)

    assert flts.everything() == []
    forget = document_from_json(flts.store.get("pipeline-runs", "_spool/forget-mine.json")[0])
    assert isinstance(forget, ForgetDocument)
    assert forget.before > event.pipeline_run_id


def test_late_work_takes_nothing_from_a_new_upload_of_the_same_name(flts: Installation) -> None:
    old = flts.start("mine")
    new: list[RawData] = []

    def train(_: Event) -> None:
        flts.deletion.carry_out("mine", report=silent)
        new.append(flts.start("mine"))
        flts.run_store.stages.put("mine", old.pipeline_run_id, "train-gru", "done")

    with pytest.raises(RunDeletedError):
        _work_that(flts, train)(old, None)

    assert flts.run_store.runs.of("mine") == [new[0].pipeline_run_id]
    current = flts.run_store.pointers.current("mine")
    assert current is not None
    assert current[0]["pipeline_run_id"] == new[0].pipeline_run_id
    assert len([key for key in flts.everything() if key.startswith(("model-bundles", "processed", "raw"))]) == 4


def test_work_of_runs_that_were_never_deleted_is_left_alone(flts: Installation) -> None:
    event = flts.start("mine")

    assert _work_that(flts, lambda _: None)(event, None) == [event]


def test_a_second_tombstone_never_brings_back_what_the_first_buried(flts: Installation) -> None:
    tombstones = Tombstones(flts.store, flts.settings)
    early, late = new_pipeline_run_id(), new_pipeline_run_id()

    tombstones.bury("mine", late)
    tombstones.bury("mine", early)

    assert tombstones.before("mine") == late
    assert tombstones.covers("mine", early)
    assert not tombstones.covers("mine", new_pipeline_run_id())
    assert not tombstones.covers("other", early)
    assert tombstones.identifiers() == ["mine"]
