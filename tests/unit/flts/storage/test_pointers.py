"""Moves of champion pointers."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flts.contracts.ids import new_pipeline_run_id
from flts.errors import PreconditionFailedError
from flts.storage.filesystem import FilesystemStore
from flts.storage.pointers import Pointers
from flts.storage.ports import ObjectInfo
from flts.storage.records import Record, Records
from tests.stores import folder_store

BEFORE, OLD, NEW = (f"0197f000-0000-7000-8000-00000000000{number}" for number in (1, 2, 3))
CONFIG = "c" * 64


@pytest.fixture
def pointers(tmp_path: Path) -> Pointers:
    return Pointers(Records(folder_store(tmp_path), "model-promotion"))


def pointer(run: str, stage: str | None = None) -> dict[str, Any]:
    return {"pipeline_run_id": run, "run_id": "a" * 32, **({} if stage is None else {"stage": stage})}


def current(pointers: Pointers) -> Record:
    found = pointers.current("s")
    assert found is not None
    return found[0]


@pytest.mark.parametrize(
    ("stored", "moved", "answer"),
    [
        (None, (NEW, "provisional"), "moved"),
        ((OLD, "provisional"), (OLD, "provisional"), "same"),
        ((OLD, "provisional"), (NEW, "provisional"), "moved"),
        ((NEW, "provisional"), (OLD, "provisional"), "superseded"),
        ((OLD, "provisional"), (OLD, None), "moved"),
        ((OLD, "provisional"), (OLD, "refitted"), "moved"),
        ((NEW, "provisional"), (OLD, None), "moved"),
        ((NEW, "provisional"), (OLD, "refitted"), "moved"),
        ((OLD, None), (NEW, "provisional"), "superseded"),
        ((OLD, None), (OLD, "provisional"), "superseded"),
        ((OLD, None), (OLD, None), "same"),
        ((OLD, None), (OLD, "decided"), "same"),
        ((OLD, None), (OLD, "refitted"), "moved"),
        ((OLD, None), (NEW, None), "moved"),
        ((NEW, None), (OLD, "refitted"), "superseded"),
        ((OLD, "refitted"), (OLD, None), "superseded"),
        ((OLD, "refitted"), (OLD, "refitted"), "same"),
        ((OLD, "refitted"), (NEW, "provisional"), "superseded"),
        ((OLD, "refitted"), (NEW, None), "moved"),
    ],
)
def test_a_pointer_moves_forward_only(
    pointers: Pointers, stored: tuple[str, str | None] | None, moved: tuple[str, str | None], answer: str
) -> None:
    if stored is not None:
        pointers.move_current("s", pointer(*stored))
        pointers.move_current_of_config("s", CONFIG, pointer(*stored))

    assert pointers.move_current("s", pointer(*moved)) == answer
    assert pointers.move_current_of_config("s", CONFIG, pointer(*moved)) == answer

    named = {**current(pointers), "previous": None}
    stays = answer == "superseded" or (answer == "same" and stored is not None)
    assert named == {**pointer(*(stored if stays and stored else moved)), "previous": None}


def test_the_stages_of_a_run_keep_the_champion_before_the_run(pointers: Pointers) -> None:
    pointers.move_current("s", pointer(BEFORE))
    pointers.move_current("s", pointer(OLD))
    assert current(pointers)["previous"] == pointer(BEFORE)

    pointers.move_current("s", pointer(OLD, "refitted"))
    assert current(pointers) == {**pointer(OLD, "refitted"), "previous": pointer(BEFORE)}

    pointers.move_current("s", pointer(NEW))
    assert current(pointers) == {**pointer(NEW), "previous": pointer(OLD, "refitted")}


@pytest.mark.parametrize("run", [OLD, NEW, BEFORE])
def test_a_provisional_pointer_is_no_previous(pointers: Pointers, run: str) -> None:
    pointers.move_current("s", pointer(BEFORE, "provisional"))
    pointers.move_current("s", pointer(OLD, "provisional"))
    assert current(pointers)["previous"] is None

    pointers.move_current("s", pointer(run))

    assert current(pointers) == {**pointer(run), "previous": None}


@given(runs=st.lists(st.sampled_from([BEFORE, OLD, NEW]), min_size=1, max_size=6))
def test_pointers_without_a_stage_move_as_in_earlier_releases(
    tmp_path_factory: pytest.TempPathFactory, runs: list[str]
) -> None:
    pointers = Pointers(Records(folder_store(tmp_path_factory.mktemp("store")), "model-promotion"))
    stored: Record | None = None
    for run in runs:
        named = stored["pipeline_run_id"] if stored else ""
        answer = "same" if named == run else "superseded" if named > run else "moved"
        if answer == "moved":
            previous = {name: value for name, value in stored.items() if name != "previous"} if stored else None
            stored = {**pointer(run), "previous": previous}

        assert pointers.move_current("s", pointer(run)) == answer
        assert current(pointers) == stored


def test_of_all_stages_of_two_runs_at_once_the_highest_stays(pointers: Pointers) -> None:
    champion = pointer(new_pipeline_run_id())
    pointers.move_current("s", champion)
    runs = [new_pipeline_run_id() for _ in range(2)]
    moves = [(run, stage) for run in runs for stage in ("provisional", "decided", "refitted")] * 2
    barrier = threading.Barrier(len(moves))

    def move(of: tuple[str, str]) -> str:
        barrier.wait()
        return pointers.move_current("s", pointer(*of))

    with ThreadPoolExecutor(len(moves)) as pool:
        answers = list(zip(moves, pool.map(move, moves), strict=True))

    stored = current(pointers)
    assert {**stored, "previous": None} == {**pointer(runs[1], "refitted"), "previous": None}
    assert "moved" in [answer for of, answer in answers if of == (runs[1], "refitted")]
    assert {answer for (_, stage), answer in answers if stage == "provisional"} == {"superseded"}
    # The run before the newest may have been the champion for a moment, at either stage.
    assert stored["previous"] in [champion, pointer(runs[0], "decided"), pointer(runs[0], "refitted")]


def test_a_decided_and_a_refitted_pointer_at_once_keep_the_champion_before_the_run(pointers: Pointers) -> None:
    champion = pointer(new_pipeline_run_id())
    pointers.move_current("s", champion)
    for _ in range(10):
        run = new_pipeline_run_id()
        barrier = threading.Barrier(2)

        def move(stage: str, run: str = run, barrier: threading.Barrier = barrier) -> str:
            barrier.wait()
            return pointers.move_current("s", pointer(run, stage))

        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(move, ("decided", "refitted")))

        assert answers in [["moved", "moved"], ["superseded", "moved"]]
        assert current(pointers) == {**pointer(run, "refitted"), "previous": champion}
        champion = pointer(run, "refitted")


def test_a_move_to_a_later_stage_whose_answer_was_lost_counts_as_moved(tmp_path: Path) -> None:
    class LostAnswer(FilesystemStore):
        lost = 0

        def put(
            self, bucket: str, key: str, data: bytes, *, create_only: bool = False, if_match: str | None = None
        ) -> ObjectInfo:
            info = super().put(bucket, key, data, create_only=create_only, if_match=if_match)
            if if_match is not None and not self.lost:
                # Simulates a put that succeeded, whose answer was lost, and whose retry by the client is refused.
                self.lost += 1
                msg = "has another etag"
                raise PreconditionFailedError(msg)
            return info

    store = LostAnswer(tmp_path)
    store.ensure_bucket("model-promotion")
    pointers = Pointers(Records(store, "model-promotion"))
    pointers.move_current("s", pointer(BEFORE))
    pointers.move_current("s", pointer(OLD))
    store.lost = 0

    assert pointers.move_current("s", pointer(OLD, "refitted")) == "moved"

    assert store.lost == 1
    assert current(pointers) == {**pointer(OLD, "refitted"), "previous": pointer(BEFORE)}
