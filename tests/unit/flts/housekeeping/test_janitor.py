"""A round of the janitor keeps every bundle that a stage of a champion names."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from flts.contracts.claim_check import ClaimCheck
from flts.contracts.events import RawData
from flts.contracts.ids import derived_event_id, new_pipeline_run_id
from flts.contracts.lifecycle import RunState
from flts.housekeeping.janitor import Janitor
from flts.observability.metrics import Metrics
from flts.settings import RetentionSettings
from flts.storage.run_store import RunStore
from tests.stores import folder_store

CONFIG = "c" * 64
CLAIM = ClaimCheck(bucket="raw-data", object_key="x/train.csv", size=3, sha256="0" * 64)


class Installation:
    """A store with bundles, and a janitor that keeps one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder_store(folder)
        settings = RetentionSettings(store="filesystem", store_path=folder, retain_runs=1)
        self.run_store = RunStore(self.store, settings)
        self.janitor = Janitor(
            self.store, self.run_store, settings, Metrics(CollectorRegistry()), now=lambda: time.time() + 90_000
        )

    def finished_run(self) -> str:
        run = self.unfinished_run()
        self.run_store.runs.put_outcome("x", run, RunState.PROMOTED)
        return run

    def unfinished_run(self) -> str:
        run = new_pipeline_run_id()
        self.run_store.runs.create(
            RawData(
                event_id=derived_event_id(run, "raw"),
                identifier="x",
                pipeline_run_id=run,
                created_at="2026-01-01T00:00:00Z",
                train=CLAIM,
            )
        )
        return run

    def bundle(self, name: str) -> dict[str, Any]:
        """Store a bundle and return its claim."""
        key = f"x/{CONFIG}/GRU/{name}/bundle.json"
        info = self.store.put("model-bundles", key, name.encode())
        return {"bucket": "model-bundles", "object_key": key, "size": info.size, "sha256": "0" * 64}

    def pointer(self, run: str, name: str, **more: Any) -> dict[str, Any]:
        return {"pipeline_run_id": run, "config_hash": CONFIG, "bundle": self.bundle(name), **more}

    def bundles(self) -> set[str]:
        """Return the names of the bundles after a round."""
        self.janitor.round()
        return {info.key.split("/")[-2] for info in self.store.list("model-bundles", "x/")}


@pytest.fixture
def flts(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


def test_bundles_of_the_records_of_all_stages_of_a_kept_run_stay(flts: Installation) -> None:
    run, evaluations = flts.finished_run(), flts.run_store.evaluations
    flts.bundle("of nothing")
    evaluations.put_provisional("x", run, {"bundle": flts.bundle("provisional")})
    evaluations.decide("x", run, {"bundle": None, "pointer": {"bundle": flts.bundle("decided")}})
    evaluations.put_refit("x", run, {"bundle": flts.bundle("refitted"), "pointer": None})

    assert flts.bundles() == {"provisional", "decided", "refitted"}


def test_bundles_of_removed_runs_go_with_all_records_of_stages(flts: Installation) -> None:
    run, evaluations = flts.finished_run(), flts.run_store.evaluations
    evaluations.put_provisional("x", run, {"bundle": flts.bundle("provisional")})
    evaluations.decide("x", run, {"bundle": flts.bundle("decided")})
    evaluations.put_refit("x", run, {"bundle": flts.bundle("refitted")})
    flts.finished_run()

    assert flts.bundles() == set()
    assert list(flts.store.list("pipeline-runs", f"x/{run}/")) == []


def test_the_run_of_a_provisional_pointer_stays_beyond_the_newest_runs(flts: Installation) -> None:
    run = flts.finished_run()
    pointer = flts.pointer(run, "provisional", stage="provisional")
    flts.run_store.evaluations.put_provisional("x", run, {"bundle": pointer["bundle"], "pointer": pointer})
    flts.run_store.pointers.move_current("x", pointer)
    for _ in range(2):
        flts.finished_run()

    assert flts.bundles() == {"provisional"}
    assert flts.run_store.evaluations.provisional("x", run) is not None


def test_bundles_of_pointers_and_their_predecessors_stay_with_those_of_the_runs_stages(flts: Installation) -> None:
    before, run, pointers = flts.finished_run(), flts.finished_run(), flts.run_store.pointers
    for _ in range(2):
        flts.finished_run()
    flts.run_store.evaluations.decide("x", run, {"pointer": flts.pointer(run, "decided")})
    pointers.move_current("x", flts.pointer(before, "before"))
    pointers.move_current("x", flts.pointer(run, "refitted", stage="refitted"))
    pointers.move_current_of_config("x", CONFIG, flts.pointer(before, "before of config"))
    pointers.move_current_of_config("x", CONFIG, flts.pointer(run, "of config"))

    assert flts.bundles() == {"before", "decided", "refitted", "before of config", "of config"}


@pytest.mark.parametrize("preprocessed", [True, False])
def test_the_data_of_a_run_that_eval_has_not_seen_for_a_day_stay_once_preprocess_is_done(
    flts: Installation, *, preprocessed: bool
) -> None:
    run = flts.unfinished_run()
    if preprocessed:
        flts.run_store.stages.put("x", run, "preprocess", "done", config_hash=CONFIG)
    flts.store.put("processed-data", f"x/{CONFIG}/processed_data.parquet", b"rows")
    flts.bundle("of nothing")

    assert flts.bundles() == ({"of nothing"} if preprocessed else set())
    assert len(list(flts.store.list("processed-data", "x/"))) == preprocessed
