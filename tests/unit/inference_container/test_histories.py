"""Histories: from the worker to the store, by the fetching child to the cache, and from there to a champion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from flts.bundle.format import Bundle
from flts.errors import BackendAwayError, HashMismatchError, RejectedError
from flts.forecasting.grid import FixedGrid
from flts.forecasting.recipe import RecipeSpec
from flts.forecasting.series import Series
from flts.observability.metrics import Metrics
from flts.storage import layout
from flts.storage.filesystem import FilesystemStore
from flts.storage.run_store import RunStore
from inference_container import histories, stored_histories
from inference_container.cache import HISTORY_FILE, ChampionCache
from inference_container.champions import Champions
from inference_container.domain.history import History
from inference_container.fetch import fetch_champions
from inference_container.histories import Histories
from inference_container.history_file import decode, encode
from inference_container.protocol import Fact, Fetched, Order
from inference_container.settings import FetchSettings, WorkerSettings
from inference_container.stored_histories import StoredHistories
from tests.direct_models import direct_bundle, hourly_series
from tests.serving import CONFIG_HASH, clock_bundle, named_store, promote, small_series, store_rows, window_bundle

SERIES = small_series(missing=0.1)
HEAD = FilesystemStore.head


class Replica:
    """A store, and a replica's cache with the champions that its fetching child and its server see."""

    def __init__(self, home: Path, store: FilesystemStore, *, enabled: bool = True) -> None:
        self.settings = FetchSettings.load()
        self.store = store
        self.run_store = RunStore(store, self.settings)
        self.cache = ChampionCache(home / "cache")
        self.written = StoredHistories(store, self.run_store.pointers, WorkerSettings.load())
        self.histories = Histories(store, self.settings.bucket_processed_data, self.cache)
        self.champions = Champions(
            self.cache,
            Metrics(CollectorRegistry()),
            default_identifier=None,
            max_loaded=3,
            max_horizon_steps=50,
            history_enable=enabled,
        )
        self.champions.list_changed(["tiny"], [])

    def promote(self, made: tuple[Bundle, bytes], series: Series | None = None) -> dict[str, Any]:
        """Promote a bundle and store the test rows of its data set, of which the worker writes the last ones."""
        if series is not None:
            store_rows(self.store, series)
        pointer = promote(self.store, self.run_store, made)
        self.written.tick()
        return pointer

    def round(self, *, histories: bool = True) -> list[Fact]:
        facts: list[Fact] = []
        fetch_champions(
            self.store,
            self.run_store,
            self.settings.promotion_bucket,
            self.cache,
            Order(only=["tiny"]),
            say=facts.append,
            histories=self.histories if histories else None,
        )
        return facts

    def load(self) -> History | str:
        [folder] = self.cache.folders("tiny")
        assert self.champions.fetched("tiny", folder.name)
        return self.champions.load("tiny").history


@pytest.fixture
def replica(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Replica:
    return Replica(tmp_path, named_store(tmp_path, monkeypatch))


def away(*_: object) -> Any:
    msg = "the store does not answer"
    raise BackendAwayError(msg)


def head_of_other_objects(store: FilesystemStore, bucket: str, key: str) -> Any:
    return away() if key.endswith("history.rows") else HEAD(store, bucket, key)


def rows_of(history: History | str) -> History:
    assert isinstance(history, History), history
    return history


def test_a_new_champion_is_reported_with_the_last_rows_of_its_data_set(replica: Replica) -> None:
    replica.promote(window_bundle(SERIES), SERIES)

    [fetched] = replica.round()

    assert isinstance(fetched, Fetched)
    history = rows_of(replica.load())
    count = 10 + 12 + histories.SPARE_ROWS
    np.testing.assert_array_equal(history.times, SERIES.times[-count:])
    np.testing.assert_array_equal(history.values, SERIES.values[-count:])
    assert replica.champions.describe()[0]["history_until"] == f"{np.datetime64(int(SERIES.times[-1]), 's')}Z"
    assert not list(replica.cache.path.glob("_unfinished-*"))


def test_a_bundle_of_format_2_gets_the_rows_of_20_horizons_and_intervals_widened_by_them(replica: Replica) -> None:
    series = hourly_series()
    made = direct_bundle(series, identifier="tiny", config_hash=CONFIG_HASH, fitted_until=int(series.times[-500]))
    replica.promote(made, series)
    replica.round()

    history = rows_of(replica.load())

    bundle = made[0]
    assert len(history.times) == bundle.rows_required + bundle.recipe.max_gap_steps + 20 * 24
    champion = replica.champions.load("tiny")
    assert champion.intervals is not champion.forecaster.intervals


def test_a_restarted_replica_reads_the_history_without_the_store(replica: Replica, tmp_path: Path) -> None:
    replica.promote(window_bundle(SERIES), SERIES)
    replica.round()
    before = rows_of(replica.load())

    again = Replica(tmp_path, replica.store)
    again.champions.read_disk()
    again.champions.load_from_disk()

    np.testing.assert_array_equal(rows_of(again.champions.load("tiny").history).values, before.values)


def test_the_cache_of_a_release_without_histories_gets_them_without_a_download_of_bundles(replica: Replica) -> None:
    pointer = replica.promote(window_bundle(SERIES), SERIES)
    replica.round(histories=False)
    assert "not read them yet" in str(replica.load())
    replica.store.delete(pointer["bundle"]["bucket"], pointer["bundle"]["object_key"])

    [folder] = replica.cache.folders("tiny")
    assert replica.histories.add_missing() == [("tiny", folder.name)]

    rows_of(replica.load())
    assert replica.histories.add_missing() == []


def test_a_replica_without_histories_serves_a_cache_that_has_them(replica: Replica, tmp_path: Path) -> None:
    replica.promote(window_bundle(SERIES), SERIES)
    replica.round()

    assert Replica(tmp_path, replica.store, enabled=False).load() == "HISTORY_ENABLE is false"


def damage_rows(replica: Replica) -> None:
    claim = store_rows(replica.store, SERIES)
    replica.store.put(claim.bucket, claim.object_key, b"x" * claim.size)


def shorten_rows(replica: Replica) -> None:
    claim = store_rows(replica.store, SERIES)
    replica.store.put(claim.bucket, claim.object_key, b"short")


def lose_rows(replica: Replica) -> None:
    claim = store_rows(replica.store, SERIES)
    replica.store.delete(claim.bucket, claim.object_key)


def other_grid(replica: Replica) -> None:
    store_rows(replica.store, Series(SERIES.times * 2, SERIES.columns, SERIES.values, FixedGrid(240)))


def other_columns(replica: Replica) -> None:
    store_rows(replica.store, SERIES.select(("down", "up")))


def end_after_a_gap(replica: Replica) -> None:
    times = SERIES.times.copy()
    times[-9:] += 120 * 500
    store_rows(replica.store, Series(times, SERIES.columns, SERIES.values, SERIES.grid))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lose_rows, "the store has them no longer"),
        (damage_rows, "damaged in the store"),
        (shorten_rows, "damaged in the store"),
        (other_grid, "at steps of 4 min"),
        (other_columns, "no column load"),
        (end_after_a_gap, "9 stored rows follow the last long gap, and the champion needs 10"),
    ],
    ids=["missing", "damaged", "shortened", "grid", "columns", "gap"],
)
def test_rows_that_cannot_be_used_leave_a_champion_without_history_and_are_not_read_again(
    replica: Replica, spoil: Any, reason: str
) -> None:
    spoil(replica)
    replica.promote(window_bundle(SERIES))

    [fetched] = replica.round()

    assert isinstance(fetched, Fetched)
    assert reason in str(replica.load())
    assert "history_until" not in replica.champions.describe()[0]
    assert replica.histories.add_missing() == []


def test_after_an_error_of_the_store_the_next_round_tries_again(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica.promote(window_bundle(SERIES), SERIES)

    with monkeypatch.context() as patched:
        patched.setattr(FilesystemStore, "head", head_of_other_objects)
        [fetched] = replica.round()
    assert isinstance(fetched, Fetched)
    assert isinstance(replica.load(), str)

    assert len(replica.histories.add_missing()) == 1
    rows_of(replica.load())


def test_a_damaged_history_is_removed_and_written_again(replica: Replica, tmp_path: Path) -> None:
    replica.promote(window_bundle(SERIES), SERIES)
    replica.round()
    [folder] = replica.cache.folders("tiny")
    data = bytearray((folder / HISTORY_FILE).read_bytes())
    data[-1] ^= 1
    (folder / HISTORY_FILE).write_bytes(bytes(data))

    fresh = Replica(tmp_path, replica.store)
    assert "SHA-256" in str(fresh.load())

    assert fresh.histories.add_missing() == [("tiny", folder.name)]
    rows_of(fresh.load())


def test_only_the_rows_after_the_last_long_gap_are_kept(replica: Replica) -> None:
    times = SERIES.times.copy()
    times[-30:] += 120 * 500
    replica.promote(window_bundle(SERIES), Series(times, SERIES.columns, SERIES.values, SERIES.grid))

    replica.round()

    np.testing.assert_array_equal(rows_of(replica.load()).times, times[-30:])


def test_a_recipe_that_leaves_out_rows_gets_its_last_complete_rows(replica: Replica) -> None:
    whole = small_series()
    values = whole.values.copy()
    values[-3, 1] = np.nan  # the last two complete rows are too few for a window of 10
    values[-20, 0] = np.nan
    series = Series(whole.times, whole.columns, values, whole.grid)
    replica.promote(window_bundle(series, spec=RecipeSpec(nans_drop_rows=True)), series)

    replica.round()

    history = rows_of(replica.load())
    np.testing.assert_array_equal(history.times, series.times[-19:-3])
    assert np.isfinite(history.values).all()


def test_a_model_of_the_clock_keeps_no_values(replica: Replica) -> None:
    replica.promote(clock_bundle(SERIES), SERIES)

    replica.round()

    history = rows_of(replica.load())
    assert (history.until, history.values.shape[1]) == (int(SERIES.times[-1]), 0)


@pytest.mark.parametrize(("cells", "rows"), [(36, 12), (29, 0)])
def test_few_rows_of_a_wide_data_set_are_kept_and_only_if_they_are_enough(
    replica: Replica, monkeypatch: pytest.MonkeyPatch, cells: int, rows: int
) -> None:
    monkeypatch.setattr(stored_histories, "MOST_CELLS", cells)
    replica.promote(window_bundle(SERIES), SERIES)
    replica.round()

    history = replica.load()

    if rows:
        assert len(rows_of(history).times) == rows
    else:
        assert history == "9 stored rows follow the last long gap, and the champion needs 10"


def test_too_large_a_file_of_test_rows_is_not_read(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_histories, "MOST_OBJECT_BYTES", 100)
    replica.promote(window_bundle(SERIES), SERIES)
    replica.round()

    assert "more than 100" in str(replica.load())


def test_too_large_a_history_is_not_downloaded(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "MOST_BYTES", 100)
    replica.promote(window_bundle(SERIES), SERIES)
    replica.round()

    assert "more than 100" in str(replica.load())


def test_the_file_gives_the_rows_back_to_the_bit() -> None:
    values = np.array([[0.1, np.nan], [1e300, -0.0]])
    content = Series(np.array([1, 61]), ("a", "b"), values, FixedGrid(60, "Europe/Berlin"))

    found = decode(encode(content))

    assert isinstance(found, Series)
    assert (found.columns, found.grid) == (content.columns, content.grid)
    assert found.times.tobytes() == content.times.tobytes()
    assert found.values.tobytes() == content.values.tobytes()
    assert decode(encode("a reason")) == "a reason"


def test_every_damaged_byte_of_the_file_is_found() -> None:
    data = encode(Series(np.array([1]), ("a",), np.array([[2.0]]), FixedGrid(60)))

    for at in range(len(data)):
        damaged = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(HashMismatchError):
            decode(damaged)
    for size in range(len(data)):
        with pytest.raises(HashMismatchError):
            decode(data[:size])


def test_a_file_of_another_form_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as later:
        later.setattr("inference_container.history_file.VERSION", 2)
        data = encode("a reason")

    with pytest.raises(RejectedError) as refused:
        decode(data)
    assert refused.value.code == "bad_history"


def test_a_history_that_lacks_a_column_is_no_history(replica: Replica) -> None:
    replica.promote(window_bundle(SERIES))
    replica.round(histories=False)
    [folder] = replica.cache.folders("tiny")
    rows = SERIES.select(("down",)).rows(-20)
    replica.cache.put_history("tiny", folder, encode(rows))

    assert "not those that its champion needs" in str(replica.load())


def test_a_history_of_a_removed_bundle_is_not_written(replica: Replica) -> None:
    replica.promote(window_bundle(SERIES), SERIES)
    replica.round(histories=False)
    [folder] = replica.cache.folders("tiny")
    replica.cache.drop("tiny")

    with pytest.raises(OSError, match="No such file"):
        replica.cache.put_history("tiny", folder, b"rows")
    assert not list(replica.cache.path.glob("_unfinished-*"))


def no_meta(_: Replica) -> None:
    pass


def damaged_meta(replica: Replica) -> None:
    replica.store.put("processed-data", layout.TEST_META("tiny", CONFIG_HASH), b"{not json")


def meta_without_claim(replica: Replica) -> None:
    replica.store.put("processed-data", layout.TEST_META("tiny", CONFIG_HASH), b"{}")


@pytest.mark.parametrize("spoil", [no_meta, damaged_meta, meta_without_claim])
def test_without_a_history_in_the_store_a_champion_is_served_and_every_round_looks_again(
    replica: Replica, spoil: Any
) -> None:
    spoil(replica)
    replica.promote(window_bundle(SERIES))

    assert len(replica.round()) == 1
    assert replica.load() == "this replica has not read them yet"
    assert replica.histories.add_missing() == []

    store_rows(replica.store, SERIES)
    replica.written.hint("tiny")
    replica.written.tick()
    assert len(replica.histories.add_missing()) == 1
    rows_of(replica.load())


def test_the_worker_reads_all_pointers_once_and_then_those_that_moved(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = layout.HISTORY("tiny", CONFIG_HASH)

    def stored() -> list[str]:
        return [info.key for info in replica.store.list("processed-data")]

    replica.promote(window_bundle(SERIES))
    store_rows(replica.store, SERIES)
    replica.written.tick()
    assert key not in stored()

    replica.written.hint("tiny")
    with monkeypatch.context() as patched:
        patched.setattr(FilesystemStore, "get", away)
        replica.written.tick()
    replica.written.tick()

    assert key in stored()


def test_the_history_of_a_data_set_is_written_once(replica: Replica) -> None:
    replica.promote(window_bundle(SERIES), SERIES)
    key = layout.HISTORY("tiny", CONFIG_HASH)
    before = replica.store.head("processed-data", key)

    replica.written.add("tiny", CONFIG_HASH, store_rows(replica.store, small_series()))

    assert replica.store.head("processed-data", key) == before
