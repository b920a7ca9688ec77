"""Champions on a disk: load, swap, keep the old one, evict, forget."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from flts.bundle.format import Bundle
from flts.contracts.claim_check import ClaimCheck
from flts.contracts.ids import new_pipeline_run_id
from flts.errors import NotFoundError, RejectedError, RetryableError
from flts.observability.metrics import Metrics
from inference_container.cache import ChampionCache
from inference_container.champions import FIRST_CHAMPIONS_SECONDS, Champions
from inference_container.domain.promotion import Promotion
from tests.serving import pointer_of, small_series, window_bundle

SERIES = small_series()


class Replica:
    """Champions on a cache folder, and bundles in the form in which a child process writes them."""

    def __init__(self, path: Path, *, identifier: str | None = None, max_loaded: int = 10) -> None:
        self.cache = ChampionCache(path)
        self.metrics = Metrics(CollectorRegistry())
        self.champions = Champions(
            self.cache, self.metrics, default_identifier=identifier, max_loaded=max_loaded, max_horizon_steps=100
        )

    def bring(self, made: tuple[Bundle, bytes]) -> str:
        """Write a bundle to disk as the child process does; return the name of its folder."""
        bundle, model = made
        data = bundle.to_json()
        claim = ClaimCheck(bucket="b", object_key="x/bundle.json", size=len(data), sha256=sha256(data))
        promotion = Promotion.read(bundle.identifier, pointer_of(bundle, claim, pipeline_run_id=new_pipeline_run_id()))
        return self.cache.put_bundle(promotion, data, model).name

    def promote(self, identifier: str, *, seed: int = 0) -> bool:
        made = window_bundle(SERIES, identifier=identifier, seed=seed)
        return self.champions.fetched(identifier, self.bring(made))

    def loads(self, outcome: str) -> float:
        return self.metrics.registry.get_sample_value("flts_model_load_total", {"outcome": outcome}) or 0.0


def sha256(data: bytes) -> str:
    import hashlib  # noqa: PLC0415

    return hashlib.sha256(data).hexdigest()


def damaged(made: tuple[Bundle, bytes]) -> tuple[Bundle, bytes]:
    """Return a bundle whose probe contains other answers than the model gives."""
    bundle, model = made
    outputs = [[[value + 1 for value in row] for row in rows] for rows in bundle.probe["outputs"]]
    return replace(bundle, probe={**bundle.probe, "outputs": outputs}), model


def test_before_anything_is_known_a_replica_is_not_ready_and_says_to_wait(tmp_path: Path) -> None:
    champions = Replica(tmp_path).champions
    champions.read_disk()
    champions.load_from_disk()

    assert not champions.ready()
    for identifier in (None, "tiny"):
        with pytest.raises(RetryableError) as caught:
            champions.resolve(identifier)
        assert caught.value.code == "no_champion"
        assert caught.value.retry_after_seconds > 0


def test_a_known_list_without_champions_is_ready_and_still_says_to_wait(tmp_path: Path) -> None:
    champions = Replica(tmp_path).champions

    champions.list_changed([], ["tiny"])

    assert champions.ready()
    with pytest.raises(RetryableError) as caught:
        champions.resolve("tiny")
    assert caught.value.code == "no_champion"


def test_a_fetched_champion_serves(tmp_path: Path) -> None:
    replica = Replica(tmp_path)
    replica.champions.list_changed(["tiny"], [])
    assert not replica.champions.ready()

    assert replica.promote("tiny")

    assert replica.champions.ready()
    assert replica.champions.resolve(None) == "tiny"
    assert replica.champions.load("tiny").identifier == "tiny"
    assert replica.loads("success") == 1


def test_a_new_replica_is_ready_once_it_has_tried_every_champion_of_its_first_list(tmp_path: Path) -> None:
    replica = Replica(tmp_path, identifier="first")
    champions = replica.champions
    champions.list_changed(["first", "second", "third", "fourth"], [])

    replica.promote("first")
    assert not champions.ready()
    replica.promote("second")
    champions.failed("third", "its bundle is damaged")
    assert not champions.ready()
    champions.removed("fourth", waiting=False)
    assert champions.ready()

    champions.list_changed(["first", "second", "third", "later"], [])
    assert champions.ready()


def test_a_new_replica_does_not_wait_for_a_champion_that_the_next_list_lacks(tmp_path: Path) -> None:
    replica = Replica(tmp_path, identifier="first")
    replica.champions.list_changed(["first", "deleted"], [])
    replica.promote("first")
    assert not replica.champions.ready()

    replica.champions.list_changed(["first"], [])

    assert replica.champions.ready()


def test_a_new_replica_waits_a_bounded_time_for_the_champions_after_the_default_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = Replica(tmp_path, identifier="first")
    replica.champions.list_changed(["first", "slow"], [])
    replica.promote("first")
    assert not replica.champions.ready()

    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + FIRST_CHAMPIONS_SECONDS)

    assert replica.champions.ready()


def test_a_restart_waits_for_listed_champions_that_the_disk_lacks(tmp_path: Path) -> None:
    before = Replica(tmp_path)
    before.champions.list_changed(["here", "lost"], [])
    before.promote("here")

    after = Replica(tmp_path)
    after.champions.read_disk()
    after.champions.load_from_disk()
    assert not after.champions.ready()

    assert after.promote("lost")
    assert after.champions.ready()


def test_the_specific_identifier_wins(tmp_path: Path) -> None:
    replica = Replica(tmp_path, identifier="mine")
    champions = replica.champions
    champions.list_changed(["a", "b"], ["coming"])
    with pytest.raises(RejectedError, match="name the identifier; there are a, b") as caught:
        champions.resolve(None)
    assert caught.value.field == "identifier"

    champions.list_changed(["a", "b", "global"], ["coming"])
    assert champions.resolve(None) == "global"
    champions.list_changed(["a", "b", "global", "mine"], ["coming"])
    assert champions.resolve(None) == "mine"
    assert champions.resolve("b") == "b"

    with pytest.raises(NotFoundError, match="there are a, b, global, mine") as unknown:
        champions.resolve("nobody")
    assert unknown.value.code == "unknown_identifier"
    with pytest.raises(RetryableError) as waiting:
        champions.resolve("coming")
    assert waiting.value.code == "no_champion"
    with pytest.raises(RejectedError) as wrong:
        champions.resolve("../etc")
    assert wrong.value.code == "bad_identifier"


def test_a_swap_is_seen_by_the_next_request_and_removes_the_old_bundle(tmp_path: Path) -> None:
    replica = Replica(tmp_path)
    replica.champions.list_changed(["tiny"], [])
    replica.promote("tiny", seed=1)
    old = replica.champions.load("tiny")

    replica.promote("tiny", seed=2)

    new = replica.champions.load("tiny")
    assert new is not old
    assert new.promotion.run_id != old.promotion.run_id
    assert len(replica.cache.folders("tiny")) == 1


def test_a_broken_bundle_leaves_the_old_champion_in_its_place_and_is_named(tmp_path: Path) -> None:
    replica = Replica(tmp_path)
    replica.champions.list_changed(["tiny"], [])
    replica.promote("tiny")
    old = replica.champions.load("tiny")

    good = replica.champions.fetched("tiny", replica.bring(damaged(window_bundle(SERIES, seed=5))))

    assert not good
    assert replica.champions.load("tiny") is old
    [described] = replica.champions.describe()
    assert described["run_id"] == old.promotion.run_id
    assert "away from the trainer's own answer" in described["problem"]
    assert replica.loads("failed") == 1
    # The replica removed the damaged bundle from its disk, so that it downloads the bundle again.
    assert len(replica.cache.folders("tiny")) == 1

    assert replica.promote("tiny", seed=6)
    assert replica.champions.describe()[0]["problem"] is None


def test_a_broken_champion_is_a_503_for_its_identifier_only(tmp_path: Path) -> None:
    replica = Replica(tmp_path)
    replica.champions.list_changed(["bad", "good"], [])
    replica.promote("good")
    replica.champions.fetched("bad", replica.bring(damaged(window_bundle(SERIES, identifier="bad"))))

    assert replica.champions.load("good").identifier == "good"
    with pytest.raises(RetryableError, match="trainer's own answer") as caught:
        replica.champions.load("bad")
    assert (caught.value.code, caught.value.field) == ("champion_unavailable", "identifier")


@pytest.mark.parametrize("file", ["model.onnx", "bundle.json", "pointer.json"])
def test_a_restart_serves_what_the_disk_holds_and_refuses_what_was_damaged_there(tmp_path: Path, file: str) -> None:
    before = Replica(tmp_path)
    before.champions.list_changed(["one", "two"], [])
    before.promote("one")
    before.promote("two")
    [folder] = before.cache.folders("two")
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[:-20] + bytes(20))

    after = Replica(tmp_path, identifier="one")
    after.champions.read_disk()
    after.champions.load_from_disk()

    assert after.champions.ready()
    assert after.champions.load("one").promotion.run_id == before.champions.load("one").promotion.run_id
    with pytest.raises(RetryableError):
        after.champions.load("two")


def test_a_champion_that_came_by_a_message_is_served_after_a_restart(tmp_path: Path) -> None:
    before = Replica(tmp_path)
    before.champions.list_changed([], ["first"])
    before.promote("first")

    after = Replica(tmp_path)
    after.champions.read_disk()

    assert after.champions.resolve(None) == "first"
    assert after.champions.load("first").promotion.run_id == before.champions.load("first").promotion.run_id


def test_a_restart_with_an_empty_list_on_disk_is_ready(tmp_path: Path) -> None:
    Replica(tmp_path).champions.list_changed([], ["coming"])

    after = Replica(tmp_path)
    after.champions.read_disk()
    after.champions.load_from_disk()

    assert after.champions.ready()


def test_a_restart_in_the_middle_of_a_swap_serves_the_newest_that_is_whole(tmp_path: Path) -> None:
    before = Replica(tmp_path)
    before.champions.list_changed(["tiny"], [])
    before.promote("tiny", seed=1)
    old = before.champions.load("tiny").promotion.run_id
    # The damaged bundle is on the disk, and the process is killed before it loads the bundle.
    before.bring(damaged(window_bundle(SERIES, seed=2)))
    (tmp_path / "_unfinished-x").mkdir()

    after = Replica(tmp_path)
    after.champions.read_disk()
    after.champions.load_from_disk()

    assert after.champions.load("tiny").promotion.run_id == old
    assert not (tmp_path / "_unfinished-x").exists()


def test_memory_holds_no_more_champions_than_it_may_and_others_load_on_demand(tmp_path: Path) -> None:
    replica = Replica(tmp_path, identifier="a", max_loaded=2)
    replica.champions.list_changed(["a", "b", "c"], [])
    for identifier in ("a", "b", "c"):
        replica.promote(identifier)
    assert loaded(replica) == {"a", "b"}

    assert replica.champions.load("c").identifier == "c"
    # Champion c replaces b, which was used least recently; a is the default champion and always stays loaded.
    assert loaded(replica) == {"a", "c"}

    assert replica.champions.load("b").identifier == "b"
    assert loaded(replica) == {"a", "b"}


def test_a_pointer_that_is_gone_takes_its_champion_along(tmp_path: Path) -> None:
    replica = Replica(tmp_path)
    replica.champions.list_changed(["one", "two"], [])
    replica.promote("one")
    replica.promote("two")

    replica.champions.list_changed(["two"], [])

    with pytest.raises(NotFoundError):
        replica.champions.resolve("one")
    assert list(replica.cache.identifiers()) == ["two"]


def test_a_bundle_of_another_identifier_is_refused(tmp_path: Path) -> None:
    replica = Replica(tmp_path)
    replica.champions.list_changed(["tiny"], [])
    bundle, model = window_bundle(SERIES, identifier="other")
    data = bundle.to_json()
    claim = ClaimCheck(bucket="b", object_key="x/bundle.json", size=len(data), sha256=sha256(data))
    promotion = Promotion.read("tiny", pointer_of(bundle, claim))

    assert not replica.champions.fetched("tiny", replica.cache.put_bundle(promotion, data, model).name)

    assert "identifier" in replica.champions.describe()[0]["problem"]


def loaded(replica: Replica) -> set[str]:
    return {each["identifier"] for each in replica.champions.describe() if each["loaded"]}


@pytest.mark.parametrize("change", [{"pipeline_run_id": "../../etc"}, {"bundle": None}, {"run_id": "absent"}])
def test_a_forged_pointer_is_refused_before_it_becomes_a_path(change: dict[str, object]) -> None:
    bundle, _ = window_bundle(SERIES)
    claim = ClaimCheck(bucket="b", object_key="x/bundle.json", size=1, sha256="0" * 64)
    document = {**pointer_of(bundle, claim), **change}
    document = {name: value for name, value in document.items() if value != "absent"}

    with pytest.raises(RejectedError) as caught:
        Promotion.read("tiny", document)

    assert caught.value.code == "bad_pointer"


def test_an_identifier_that_a_message_named_but_has_no_champion_is_waited_for(tmp_path: Path) -> None:
    replica = Replica(tmp_path)
    replica.champions.list_changed(["other"], [])

    replica.champions.removed("fresh", waiting=True)

    with pytest.raises(RetryableError) as caught:
        replica.champions.resolve("fresh")
    assert caught.value.code == "no_champion"


def test_a_deleted_identifier_is_unknown_though_nothing_else_is_left(tmp_path: Path) -> None:
    replica = Replica(tmp_path)
    replica.champions.list_changed(["tiny"], [])
    replica.promote("tiny")
    waiting_logs = replica.cache.spool / "tiny" / "date=2024-01-01"
    waiting_logs.mkdir(parents=True)
    (waiting_logs / "a.jsonl").write_text("{}")

    replica.champions.removed("tiny", waiting=False)

    with pytest.raises(NotFoundError) as caught:
        replica.champions.resolve("tiny")
    assert caught.value.code == "unknown_identifier"
    assert list(replica.cache.identifiers()) == []
    assert not list(replica.cache.spool.rglob("*.jsonl"))
    with pytest.raises(RetryableError):
        replica.champions.resolve("never-heard-of")


def test_a_deleted_identifier_that_is_uploaded_again_is_waited_for_and_then_served(tmp_path: Path) -> None:
    replica = Replica(tmp_path)
    replica.champions.list_changed(["tiny"], [])
    replica.promote("tiny")
    replica.champions.removed("tiny", waiting=False)

    replica.champions.list_changed([], ["tiny"])
    with pytest.raises(RetryableError) as caught:
        replica.champions.resolve("tiny")
    replica.promote("tiny", seed=3)

    assert caught.value.code == "no_champion"
    assert replica.champions.resolve("tiny") == "tiny"


class TestStages:
    """A later stage of the same run replaces an earlier one, whatever the names of their folders."""

    def _bring(self, replica: Replica, run: str, stage: str | None, made: tuple[Bundle, bytes]) -> Path:
        bundle, model = made
        data = bundle.to_json()
        claim = ClaimCheck(bucket="b", object_key="x/bundle.json", size=len(data), sha256=sha256(data))
        pointer = pointer_of(bundle, claim, pipeline_run_id=run)
        promotion = Promotion.read(bundle.identifier, {**pointer, **({} if stage is None else {"stage": stage})})
        if replica.cache.has_bundle(promotion):
            return replica.cache.put_pointer(promotion)
        return replica.cache.put_bundle(promotion, data, model)

    def _bundles(self) -> list[tuple[Bundle, bytes]]:
        """Return two bundles, ordered by their hashes."""
        made = [window_bundle(SERIES, seed=seed) for seed in range(2)]
        return sorted(made, key=lambda one: sha256(one[0].to_json()))

    @pytest.mark.parametrize("later", [0, 1], ids=["its hash sorts first", "its hash sorts last"])
    @pytest.mark.parametrize(("before", "after"), [("provisional", None), (None, "refitted")])
    def test_a_later_stage_of_the_run_takes_over(
        self, tmp_path: Path, before: str | None, after: str | None, later: int
    ) -> None:
        replica, run, bundles = Replica(tmp_path), new_pipeline_run_id(), self._bundles()
        replica.champions.list_changed(["tiny"], [])
        first = self._bring(replica, run, before, bundles[1 - later])
        assert replica.champions.fetched("tiny", first.name)

        second = self._bring(replica, run, after, bundles[later])
        assert replica.cache.folders("tiny") == [first, second]
        assert replica.champions.fetched("tiny", second.name)

        assert replica.champions.load("tiny").promotion.stage == (after or "decided")
        assert replica.cache.folders("tiny") == [second]

    @pytest.mark.parametrize("later", [0, 1], ids=["its hash sorts first", "its hash sorts last"])
    def test_a_replica_that_was_killed_before_the_swap_starts_with_the_later_stage(
        self, tmp_path: Path, later: int
    ) -> None:
        run, bundles = new_pipeline_run_id(), self._bundles()
        killed = Replica(tmp_path)
        self._bring(killed, run, "refitted", bundles[later])
        self._bring(killed, run, None, bundles[1 - later])
        restarted = Replica(tmp_path)

        restarted.champions.read_disk()
        restarted.champions.load_from_disk()

        assert restarted.champions.load("tiny").promotion.stage == "refitted"

    def test_a_decided_champion_of_an_older_run_replaces_a_provisional_one(self, tmp_path: Path) -> None:
        replica, bundles = Replica(tmp_path), self._bundles()
        older, newer = new_pipeline_run_id(), new_pipeline_run_id()
        replica.champions.fetched("tiny", self._bring(replica, newer, "provisional", bundles[0]).name)

        replica.champions.fetched("tiny", self._bring(replica, older, None, bundles[1]).name)

        assert replica.champions.load("tiny").promotion.pipeline_run_id == older
        assert len(replica.cache.folders("tiny")) == 1

    def test_a_later_stage_with_the_same_bundle_is_shown_and_serves_on(self, tmp_path: Path) -> None:
        replica, run, made = Replica(tmp_path), new_pipeline_run_id(), window_bundle(SERIES)
        replica.champions.list_changed(["tiny"], [])
        first = self._bring(replica, run, "provisional", made)
        replica.champions.fetched("tiny", first.name)
        assert replica.champions.describe()[0]["stage"] == "provisional"

        second = self._bring(replica, run, None, made)
        assert replica.champions.fetched("tiny", second.name)

        assert second == first
        [shown] = replica.champions.describe()
        assert "stage" not in shown
        assert (shown["loaded"], shown["problem"]) == (True, None)
        assert replica.loads("success") == 2
        assert replica.champions.fetched("tiny", second.name)
        assert replica.loads("success") == 2, "the same stage is not loaded again"

    def test_the_cache_of_the_last_release_is_read_and_its_names_are_kept(self, tmp_path: Path) -> None:
        replica, run, made = Replica(tmp_path), new_pipeline_run_id(), window_bundle(SERIES)

        folder = self._bring(replica, run, "refitted", made)

        assert folder.relative_to(tmp_path).as_posix() == f"tiny/{run}-{sha256(made[0].to_json())}"
        pointer = json.loads((folder / "pointer.json").read_text())
        assert (pointer.pop("stage"), pointer["pipeline_run_id"]) == ("refitted", run)
        (folder / "pointer.json").write_text(json.dumps(pointer))  # as the last release writes it
        assert replica.cache.read_promotion("tiny", folder).stage == "decided"
        assert replica.cache.holds(Promotion.read("tiny", pointer))
        assert not replica.cache.holds(Promotion.read("tiny", {**pointer, "stage": "refitted"}))
