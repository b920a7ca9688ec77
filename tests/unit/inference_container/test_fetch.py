"""One round of the child process that fetches champions, in the test's process."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest

from flts.contracts.ids import new_pipeline_run_id
from flts.storage.filesystem import FilesystemStore
from flts.storage.run_store import RunStore
from inference_container import fetch
from inference_container.cache import ChampionCache
from inference_container.fetch import fetch_champions
from inference_container.protocol import Fact, Failed, Fetched, Listed, Order, Removed, encode_order
from inference_container.settings import FetchSettings
from tests.serving import named_store, promote, small_series, window_bundle


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FilesystemStore:
    return named_store(tmp_path, monkeypatch)


@pytest.mark.parametrize("only", [None, ["broken", "tiny"]], ids=["a whole look", "a hint"])
def test_an_unreadable_pointer_fails_alone_and_its_old_champion_stays(
    store: FilesystemStore, tmp_path: Path, only: list[str] | None
) -> None:
    settings = FetchSettings.load()
    run_store = RunStore(store, settings)
    promote(store, run_store, window_bundle(small_series()))
    store.put(settings.promotion_bucket, "broken/current.json", b"{not json")
    facts: list[Fact] = []

    fetch_champions(
        store,
        run_store,
        settings.promotion_bucket,
        ChampionCache(tmp_path / "cache"),
        Order(only=only),
        say=facts.append,
    )

    [failed] = [fact for fact in facts if isinstance(fact, Failed)]
    assert (failed.identifier, failed.code) == ("broken", "corrupt_record")
    assert [fact.identifier for fact in facts if isinstance(fact, Fetched)] == ["tiny"]
    # One Failed, one Fetched and, without `only`, one Listed. So there is no Removed: fetch_champions removed no
    # champion.
    assert len(facts) == (3 if only is None else 2)
    if only is None:
        assert isinstance(facts[0], Listed)
        assert sorted(facts[0].champions) == ["broken", "tiny"]


def test_a_hint_tells_an_identifier_that_waits_for_its_first_champion_from_one_that_was_deleted(
    store: FilesystemStore, tmp_path: Path
) -> None:
    settings = FetchSettings.load()
    run_store = RunStore(store, settings)
    run_store.stages.put("fresh", new_pipeline_run_id(), "preprocess", "done")
    facts: list[Fact] = []

    fetch_champions(
        store,
        run_store,
        settings.promotion_bucket,
        ChampionCache(tmp_path / "cache"),
        Order(only=["deleted", "fresh"]),
        say=facts.append,
    )

    assert facts == [Removed("deleted", waiting=False), Removed("fresh", waiting=True)]


@pytest.mark.usefixtures("store")
def test_the_childs_log_lines_show_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_API_KEY", "very-secret-key-0123")
    order = SimpleNamespace(buffer=io.BytesIO(encode_order(Order(only=[]))))
    monkeypatch.setattr(sys, "stdin", order)
    monkeypatch.setattr(os, "nice", lambda _: 0)
    given: list[str] = []

    def configure(*_: object, secrets: Iterable[str] = (), **__: object) -> None:
        given.extend(secrets)

    monkeypatch.setattr(fetch, "configure_logs", configure)

    assert fetch.main() == 0
    assert "very-secret-key-0123" in given


def test_a_round_that_finds_nothing_new_costs_no_import_of_numpy() -> None:
    # Every replica regularly starts a child process. The autoscaler counts the child's CPU time as load, and an import
    # of numpy would add to it.
    code = "import sys, inference_container.fetch; sys.exit('numpy' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


@pytest.mark.parametrize(("stage", "rmse"), [("provisional", 1.0), (None, 2.0), ("refitted", 2.0)])
def test_a_promotion_of_any_stage_is_fetched_with_the_figures_of_its_record(
    store: FilesystemStore, tmp_path: Path, stage: str | None, rmse: float
) -> None:
    settings = FetchSettings.load()
    run_store, cache = RunStore(store, settings), ChampionCache(tmp_path / "cache")
    pointer = promote(store, run_store, window_bundle(small_series()))
    run = pointer["pipeline_run_id"]
    run_store.evaluations.put_provisional("tiny", run, {"rmse": 1.0})
    run_store.evaluations.decide("tiny", run, {"rmse": 2.0})
    document = pointer if stage is None else {**pointer, "stage": stage}
    store.put(settings.promotion_bucket, "tiny/current.json", json.dumps(document).encode())

    facts: list[Fact] = []
    fetch_champions(store, run_store, settings.promotion_bucket, cache, Order(only=["tiny"]), say=facts.append)

    [fetched] = facts
    assert isinstance(fetched, Fetched)
    promotion = cache.read_promotion("tiny", tmp_path / "cache" / "tiny" / fetched.folder)
    assert (promotion.stage, promotion.document["rmse"]) == (stage or "decided", rmse)


def test_a_later_stage_with_the_same_bundle_needs_no_download(store: FilesystemStore, tmp_path: Path) -> None:
    settings = FetchSettings.load()
    run_store, cache = RunStore(store, settings), ChampionCache(tmp_path / "cache")
    pointer = promote(store, run_store, window_bundle(small_series()))
    bucket = settings.promotion_bucket
    store.put(bucket, "tiny/current.json", json.dumps({**pointer, "stage": "provisional"}).encode())
    facts: list[Fact] = []
    assert not fetch_champions(store, run_store, bucket, cache, Order(only=["tiny"]), say=facts.append)
    store.delete(pointer["bundle"]["bucket"], pointer["bundle"]["object_key"])
    assert run_store.pointers.move_current("tiny", pointer) == "moved"

    for _ in range(2):
        assert fetch_champions(store, run_store, bucket, cache, Order(only=["tiny"]), say=facts.append)

    assert facts == [facts[0]] * 3
    [folder] = cache.folders("tiny")
    assert cache.stage(folder) == "decided"
