"""The pointers of a store on disk become champions in memory, through the real child process."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry

from flts.contracts.ids import new_pipeline_run_id
from flts.observability.metrics import Metrics
from flts.storage.run_store import RunStore
from inference_container.cache import ChampionCache
from inference_container.champions import Champions
from inference_container.protocol import Away, Fact, Failed, Listed, Removed
from inference_container.refresher import Refresher
from inference_container.settings import FetchSettings
from tests.eventually import eventually
from tests.files_below import files_below
from tests.serving import named_store, promote, small_series, window_bundle

SERIES = small_series()


class Replica:
    def __init__(self, cache: Path) -> None:
        self.cache = ChampionCache(cache)
        self.metrics = Metrics(CollectorRegistry())
        self.champions = Champions(
            self.cache, self.metrics, default_identifier=None, max_loaded=10, max_horizon_steps=100
        )
        self.flushed = 0
        self.refresher = Refresher(
            self.champions,
            self.metrics,
            period_seconds=60,
            phase_seconds=time.monotonic(),
            silence_seconds=20,
            flush_logs=self.flush,
        )

    def flush(self) -> bool:
        self.flushed += 1
        return any(files_below(self.cache.spool, ".jsonl"))

    def run_id(self, identifier: str = "tiny") -> str | None:
        champion = self.champions.loaded(identifier)
        return champion.promotion.run_id if champion else None


class Installation:
    """A store, and replicas that read from it."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        self.store = named_store(home, monkeypatch)
        self.run_store = RunStore(self.store, FetchSettings.load())
        self.replicas: list[Replica] = []

    def start(self) -> Replica:
        replica = Replica(self.home / "cache")
        self.replicas.append(replica)
        replica.refresher.start()
        return replica


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    made = Installation(tmp_path, monkeypatch)
    yield made
    for replica in made.replicas:
        replica.refresher.stop()


def served(replica: Replica, pointer: dict[str, object]) -> Callable[[], bool]:
    return lambda: replica.run_id() == pointer["run_id"]


def test_a_replica_learns_of_champions_at_start_and_of_a_new_one_from_a_hint(installation: Installation) -> None:
    first = promote(installation.store, installation.run_store, window_bundle(SERIES, seed=1))
    replica = installation.start()
    eventually(served(replica, first), "the first champion", timeout=20)
    assert replica.champions.ready()

    second = promote(installation.store, installation.run_store, window_bundle(SERIES, seed=2))
    replica.refresher.hint("tiny")

    # The hint causes this load, because the next poll is a minute away.
    eventually(served(replica, second), "the second champion", timeout=20)


def test_a_replica_without_champions_is_ready_once_the_store_said_that_there_are_none(
    installation: Installation,
) -> None:
    replica = installation.start()

    eventually(lambda: replica.champions.known, "the empty list", timeout=20)

    assert replica.champions.ready()


def test_a_restart_without_the_store_serves_from_disk_and_an_empty_disk_is_not_ready(
    installation: Installation,
) -> None:
    pointer = promote(installation.store, installation.run_store, window_bundle(SERIES))
    replica = installation.start()
    eventually(served(replica, pointer), "the champion", timeout=20)
    replica.refresher.stop()
    shutil.rmtree(installation.home / "store")

    again = installation.start()
    eventually(served(again, pointer), "the champion from disk", timeout=20)
    away = {"backend": "store"}
    eventually(
        lambda: again.metrics.registry.get_sample_value("flts_backend_up", away) == 0, "store known away", timeout=20
    )
    assert served(again, pointer)()
    assert again.champions.ready()
    again.refresher.stop()

    shutil.rmtree(installation.home / "cache")
    empty = installation.start()
    eventually(
        lambda: empty.metrics.registry.get_sample_value("flts_backend_up", away) == 0, "store known away", timeout=20
    )
    assert not empty.champions.ready()


def test_a_bundle_damaged_in_the_store_keeps_the_old_champion_until_a_whole_one_is_there(
    installation: Installation,
) -> None:
    first = promote(installation.store, installation.run_store, window_bundle(SERIES, seed=1))
    replica = installation.start()
    eventually(served(replica, first), "the first champion", timeout=20)
    second = promote(installation.store, installation.run_store, window_bundle(SERIES, seed=2))
    model_key = str(second["bundle"]["object_key"]).replace("bundle.json", "model.onnx")
    whole, _ = installation.store.get("model-bundles", model_key)
    installation.store.put("model-bundles", model_key, whole[:-1])

    replica.refresher.hint("tiny")
    eventually(lambda: replica.champions.describe()[0]["problem"], "the problem is named", timeout=20)
    assert served(replica, first)()
    failures = {"outcome": "fetch_failed"}
    assert (replica.metrics.registry.get_sample_value("flts_model_load_total", failures) or 0) >= 1

    # The bundle is whole again; the refresher retries with back-off and now succeeds.
    installation.store.put("model-bundles", model_key, whole)
    eventually(served(replica, second), "the second champion", timeout=30)
    assert replica.champions.describe()[0]["problem"] is None


def test_forecast_logs_reach_the_store_as_whole_objects_even_as_the_server_stops(installation: Installation) -> None:
    replica = installation.start()
    eventually(lambda: replica.champions.known, "the first look", timeout=20)
    folder = replica.cache.spool / "tiny" / "date=2024-01-01"
    folder.mkdir(parents=True)
    (folder / "batch.part").write_text('{"a": 1}\n')
    # The file is complete now, so the refresher must store it at the latest when it stops.
    (folder / "batch.part").rename(folder / "batch.jsonl")

    replica.refresher.stop()

    assert installation.store.get("inference-logs", "tiny/date=2024-01-01/batch.jsonl")[0] == b'{"a": 1}\n'
    assert not (folder / "batch.jsonl").exists()
    assert replica.flushed >= 2


def test_scores_that_only_the_decision_has_are_listed_with_the_champion(installation: Installation) -> None:
    run = new_pipeline_run_id()
    installation.run_store.evaluations.decide("tiny", run, {"decision": "promoted", "rmse": 0.25, "mae": 0.125})
    pointer = promote(installation.store, installation.run_store, window_bundle(SERIES), pipeline_run_id=run)
    replica = installation.start()
    eventually(served(replica, pointer), "the champion", timeout=20)

    [described] = replica.champions.describe()

    assert (described["score"], described["rmse"], described["mae"]) == (0.1, 0.25, 0.125)
    assert described["promoted"] == pointer["timestamp"]


def test_an_error_within_a_round_does_not_end_the_thread(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse = OSError(28, "No space left on device")
    flush, tries = Replica.flush, 0

    def flush_after_one_error(replica: Replica) -> bool:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise refuse
        return flush(replica)

    monkeypatch.setattr(Replica, "flush", flush_after_one_error)
    replica = installation.start()
    eventually(lambda: replica.champions.known, "promotions are looked at all the same", timeout=20)
    eventually(lambda: replica.flushed, "the next round comes soon", timeout=20)

    pointer = promote(installation.store, installation.run_store, window_bundle(SERIES))
    replica.refresher.hint("tiny")

    eventually(served(replica, pointer), "the champion", timeout=20)


def test_while_the_store_is_away_no_back_off_that_ran_out_makes_the_wait_shorter(installation: Installation) -> None:
    refresher = Replica(installation.home / "cache").refresher
    refresher._take_in(Failed("tiny", "hash_mismatch", "damaged"))
    refresher._backoffs["tiny"].until = time.monotonic() - 1
    assert refresher._wait_seconds() == 0

    refresher._take_in(Away("pointers", "refused"))
    refresher._take_in(Away("pointers", "refused"))

    assert refresher._wait_seconds() == 2


@pytest.mark.parametrize("fact", [Listed(["other"], []), Removed("tiny", waiting=True)], ids=["not listed", "removed"])
def test_an_identifier_that_is_gone_is_not_waited_for(installation: Installation, fact: Fact) -> None:
    refresher = Replica(installation.home / "cache").refresher
    refresher._take_in(Failed("tiny", "hash_mismatch", "damaged"))

    refresher._take_in(fact)

    assert refresher._wait_seconds() == pytest.approx(60, abs=10)


def test_replicas_that_start_together_look_at_different_times(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr("inference_container.refresher.time", SimpleNamespace(monotonic=lambda: now))
    early, late = (Replica(installation.home / name).refresher for name in ("early", "late"))
    early._phase_seconds = now - 50
    late._phase_seconds = now - 20

    assert early._wait_seconds() == pytest.approx(10)
    assert late._wait_seconds() == pytest.approx(40)
