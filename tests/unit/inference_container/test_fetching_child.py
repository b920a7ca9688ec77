"""One child process runs many rounds; a round that loads a bundle or fails is the process's last."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from flts.storage.filesystem import FilesystemStore
from flts.storage.run_store import RunStore
from inference_container.fetching_child import ChildFailedError, FetchingChild
from inference_container.protocol import Fact, Fetched, Listed, Order, Shipped
from inference_container.settings import FetchSettings
from tests.serving import named_store, promote, small_series, window_bundle

SILENCE_SECONDS = 20.0
LOOK = Order(ship_logs=True)
PARROT = """while input(): print('{"type":"done","lasts":true}', flush=True)"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FilesystemStore:
    return named_store(tmp_path, monkeypatch)


@contextmanager
def living(*command: str) -> Iterator[FetchingChild]:
    child = FetchingChild(command) if command else FetchingChild()
    try:
        yield child
    finally:
        child.close()


def script(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", text)


def facts_of(child: FetchingChild, order: Order = LOOK, silence_seconds: float = SILENCE_SECONDS) -> list[Fact]:
    with child.round(order, silence_seconds) as facts:
        return list(facts)


def pid(child: FetchingChild) -> int | None:
    return child._process.pid if child._process else None


def timers() -> set[threading.Timer]:
    running = (thread for thread in threading.enumerate() if isinstance(thread, threading.Timer))
    return {timer for timer in running if not timer.finished.is_set()}


@pytest.mark.usefixtures("store")
def test_rounds_that_find_nothing_new_share_a_process() -> None:
    with living() as child:
        assert facts_of(child) == [Listed([], []), Shipped(0)]
        first = pid(child)
        assert facts_of(child) == [Listed([], []), Shipped(0)]

        assert first is not None
        assert pid(child) == first


def test_a_round_that_brings_a_bundle_is_its_processs_last(store: FilesystemStore) -> None:
    with living() as child:
        facts_of(child)
        promote(store, RunStore(store, FetchSettings.load()), window_bundle(small_series()))

        brought = facts_of(child)
        assert [fact.identifier for fact in brought if isinstance(fact, Fetched)] == ["tiny"]
        assert pid(child) is None

        # The bundles are on disk by now, so the child downloads nothing and keeps running.
        assert facts_of(child) == brought
        assert pid(child) is not None


def test_a_round_that_fails_is_its_processs_last(store: FilesystemStore) -> None:
    store.put(FetchSettings.load().promotion_bucket, "broken/current.json", b"{not json")
    with living() as child:
        facts_of(child)

        assert pid(child) is None


@pytest.mark.usefixtures("store")
def test_a_process_that_was_ended_while_it_waited_is_replaced() -> None:
    with living() as child:
        facts_of(child)
        first = pid(child)
        assert first is not None
        os.kill(first, signal.SIGKILL)
        assert child._process is not None
        child._process.wait(SILENCE_SECONDS)

        assert facts_of(child) == [Listed([], []), Shipped(0)]
        assert pid(child) not in {first, None}


@pytest.mark.usefixtures("store")
def test_a_process_ends_after_its_most_rounds() -> None:
    with living(*script("from inference_container import fetch; fetch.MOST_ROUNDS = 2; fetch.main()")) as child:
        facts_of(child)
        assert pid(child) is not None
        facts_of(child)

        assert pid(child) is None


@pytest.mark.usefixtures("store")
def test_a_process_whose_server_is_gone_ends() -> None:
    with living() as child:
        facts_of(child)
        process = child._process
        assert process is not None
        assert process.stdin is not None
        process.stdin.close()

        assert process.wait(10) == 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import time; time.sleep(60)", "said nothing for 3 s"),
        ("import sys; sys.stdin.readline(); sys.exit(3)", "ended with code 3"),
    ],
)
def test_a_process_that_does_not_end_its_round_says_how(text: str, reason: str) -> None:
    with living(*script(text)) as child:
        with pytest.raises(ChildFailedError, match=reason):
            facts_of(child, silence_seconds=3 if "3 s" in reason else SILENCE_SECONDS)

        assert pid(child) is None


def test_a_process_that_talks_nonsense_is_ended() -> None:
    with living(*script("input(); print('hello', flush=True); input()")) as child:
        with pytest.raises(msgspec.MsgspecError):
            facts_of(child)

        assert pid(child) is None


def test_a_round_can_be_interrupted_and_a_process_that_waits_is_left_alone() -> None:
    with living(*script('input(); print(\'{"type":"shipped","objects":1}\', flush=True); input()')) as child:
        failures: list[str] = []
        seen = threading.Event()

        def have_a_round() -> None:
            try:
                with child.round(LOOK, SILENCE_SECONDS) as facts:
                    for _ in facts:
                        seen.set()
            except ChildFailedError as error:
                failures.append(str(error))

        thread = threading.Thread(target=have_a_round)
        thread.start()
        assert seen.wait(SILENCE_SECONDS)
        child.interrupt()
        thread.join(SILENCE_SECONDS)

        assert failures == ["ended with code -9"]

    with living(*script(PARROT)) as child:
        assert facts_of(child) == []
        before = pid(child)
        child.interrupt()
        time.sleep(0.1)

        assert facts_of(child) == []
        assert pid(child) == before


@pytest.mark.parametrize("by", ["the server", "the watchdog"])
def test_a_process_that_was_stopped_as_its_round_ended_has_no_other(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with living(*script(PARROT)) as child:
        facts_of(child)
        first = child._process
        assert first is not None
        # Simulates the moment after a kill at which poll() does not report the end yet.
        monkeypatch.setattr(first, "poll", lambda: None)
        if by == "the server":
            with child._at_work:
                child.interrupt()
        else:
            others = timers()
            with child.round(LOOK, SILENCE_SECONDS) as facts:
                assert list(facts) == []
                [watchdog] = timers() - others  # the timer that watches this round exists only inside the `with` block
                watchdog.function()

        assert facts_of(child) == []
        assert pid(child) not in {first.pid, None}


def test_between_two_rounds_nobody_expects_a_word() -> None:
    with living(*script(PARROT)) as child:
        others = timers()
        with child.round(LOOK, SILENCE_SECONDS) as facts:
            assert timers() - others
            assert list(facts) == []

        assert not timers() - others
