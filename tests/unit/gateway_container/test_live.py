"""The event stream of a run: the state first, then the changes, then the end."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from flts.contracts.events import ModelSelected
from flts.contracts.ids import new_pipeline_run_id
from flts.contracts.lifecycle import RunState
from flts.errors import BackendAwayError
from gateway_container.live import MOST_RUNS, LiveRuns, Note
from tests.eventually import eventually
from tests.gateway import KEY, GatewayUnderTest, csv_text, make_gateway, progress, serve, sse

NAME = "x"


def upload(gateway: GatewayUnderTest) -> str:
    answer = gateway.client().post(f"/datasets/{NAME}", files={"train": ("a", csv_text(300))})
    return str(answer.json()["pipeline_run_id"])


def decided(run_id: str) -> ModelSelected:
    return ModelSelected(
        event_id=new_pipeline_run_id(),
        identifier=NAME,
        pipeline_run_id=run_id,
        created_at=datetime.now(UTC),
        decision="promoted",
    )


class Reader:
    """Reads a stream in a thread of its own."""

    def __init__(self, url: str, run_id: str) -> None:
        self.text = ""
        self.error: httpx.HTTPError | None = None
        self.ended = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(f"{url}/runs/{run_id}/events",), daemon=True)
        self._thread.start()

    def events(self) -> list[tuple[str, Any]]:
        complete = self.text.rpartition("\n\n")[0]
        return [(kind, json.loads(data)) for kind, data in sse(complete)]

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.events()]

    def _read(self, url: str) -> None:
        try:
            with httpx.stream("GET", url, timeout=20, trust_env=False) as answer:
                for text in answer.iter_text():
                    self.text += text
        except httpx.HTTPError as error:
            self.error = error
        finally:
            self.ended.set()


@pytest.fixture
def gateway(tmp_path: Path) -> GatewayUnderTest:
    return make_gateway(tmp_path, sse_poll_seconds=30)


@pytest.fixture
def url(gateway: GatewayUnderTest) -> Iterator[str]:
    with serve(gateway.app) as (address, _):
        yield address
        gateway.gateway.live.close()


def test_a_stream_begins_with_the_state_and_ends_with_the_outcome(gateway: GatewayUnderTest, url: str) -> None:
    run_id = upload(gateway)
    reader = Reader(url, run_id)
    eventually(lambda: reader.kinds() == ["state"], "the state comes first")

    gateway.hear(progress(run_id, NAME, epoch=1, epochs=10, loss=0.5))
    eventually(lambda: reader.kinds() == ["state", "progress"], "progress comes as it is heard")

    gateway.run_store.stages.put(NAME, run_id, "preprocess", "done", datetime.now(UTC))
    gateway.run_store.runs.put_outcome(NAME, run_id, RunState.PROMOTED)
    gateway.hear(decided(run_id))

    assert reader.ended.wait(10)
    assert reader.kinds() == ["state", "progress", "stage", "end"]
    events = dict(reader.events())
    assert events["state"]["pipeline_run_id"] == run_id
    assert events["progress"]["epoch"] == 1
    assert (events["stage"]["stage"], events["stage"]["status"]) == ("preprocess", "done")
    assert events["end"]["outcome"] == "promoted"


def test_the_store_is_looked_at_though_no_message_comes(tmp_path: Path) -> None:
    gateway = make_gateway(tmp_path, sse_poll_seconds=0.05)
    run_id = upload(gateway)
    with serve(gateway.app) as (url, _):
        reader = Reader(url, run_id)
        eventually(lambda: reader.kinds() == ["state"], "the state comes first")

        gateway.run_store.runs.put_outcome(NAME, run_id, RunState.REJECTED, reason="bad data")

        assert reader.ended.wait(10)
    assert reader.kinds()[-1] == "end"
    assert reader.events()[-1][1]["outcome_details"]["reason"] == "bad data"


def test_a_run_that_has_ended_is_told_at_once(gateway: GatewayUnderTest, url: str) -> None:
    run_id = upload(gateway)
    gateway.run_store.runs.put_outcome(NAME, run_id, RunState.REFUSED)

    reader = Reader(url, run_id)

    assert reader.ended.wait(10)
    assert reader.kinds() == ["state", "end"]


def test_another_runs_progress_is_not_told(gateway: GatewayUnderTest, url: str) -> None:
    mine, other = upload(gateway), upload(gateway)
    reader = Reader(url, mine)
    eventually(lambda: reader.kinds() == ["state"], "the state comes first")

    gateway.hear(progress(other, NAME, detail="not mine"))
    gateway.hear(progress(mine, NAME, detail="mine"))

    eventually(lambda: len(reader.kinds()) > 1, "progress")
    assert [data.get("detail") for kind, data in reader.events() if kind == "progress"] == ["mine"]


def test_a_stream_ends_cleanly_while_the_store_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = make_gateway(tmp_path, sse_poll_seconds=0.05)
    run_id = upload(gateway)
    with serve(gateway.app) as (url, _):
        reader = Reader(url, run_id)
        eventually(lambda: reader.kinds() == ["state"], "the state comes first")

        def away(*_: object) -> None:
            msg = "the store does not answer"
            raise BackendAwayError(msg)

        monkeypatch.setattr(type(gateway.run_store.runs), "outcome", away)

        assert reader.ended.wait(10)
    assert reader.kinds() == ["state"]
    assert reader.text.endswith(": backend_away\n\n")
    assert reader.error is None


def test_a_download_that_breaks_off_does_not_look_complete(
    gateway: GatewayUnderTest, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.store.put("raw-data", "x/y/train.csv", b"1" * 100)

    def broken(*_: object, **__: object) -> Iterator[bytes]:
        yield b"1" * 50
        msg = "the disk is gone"
        raise OSError(msg)

    monkeypatch.setattr(type(gateway.store), "stream", broken)

    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{url}/download/raw-data/x/y/train.csv", headers={"x-api-key": KEY}, timeout=30, trust_env=False)


def test_a_quiet_stream_gives_signs_of_life(tmp_path: Path) -> None:
    gateway = make_gateway(tmp_path, sse_poll_seconds=0.05, sse_keep_alive_seconds=0.1)
    with serve(gateway.app) as (url, _):
        reader = Reader(url, upload(gateway))
        eventually(lambda: reader.text.count(": still here") >= 2, "signs of life")
        gateway.gateway.live.close()


def test_open_streams_end_at_once_when_the_service_begins_to_stop(tmp_path: Path) -> None:
    gateway = make_gateway(tmp_path, sse_poll_seconds=30)
    run_id = upload(gateway)
    with serve(gateway.app, grace_seconds=60) as (url, server):
        readers = [Reader(url, run_id) for _ in range(3)]
        eventually(lambda: all(reader.kinds() == ["state"] for reader in readers), "all read")
        gateway.gateway.live.close()
        server.should_exit = True
        assert all(reader.ended.wait(10) for reader in readers)
    assert "end" not in readers[0].kinds()


def test_a_reader_that_goes_away_is_forgotten(gateway: GatewayUnderTest, url: str) -> None:
    run_id = upload(gateway)
    live = gateway.gateway.live
    with httpx.stream("GET", f"{url}/runs/{run_id}/events", timeout=30, trust_env=False) as answer:
        # The variable keeps the iterator alive; without it the connection would be closed at once.
        texts = answer.iter_text()
        next(texts)
        eventually(lambda: live.watchers() == 1, "the reader is known")
    gateway.hear(progress(run_id, NAME))
    eventually(lambda: live.watchers() == 0, "the reader is forgotten")


class TestLiveRuns:
    def test_a_slow_watcher_is_cut_and_the_others_go_on(self) -> None:
        async def check() -> tuple[str, list[Note | None]]:
            live = LiveRuns(queue_size=4)
            with live.watching("run") as slow, live.watching("run") as quick:
                heard = []
                for at in range(10):
                    live.progressed("run", "stage", {"at": at})
                    heard.append(await quick.next(1))
                assert slow.ended
                assert await slow.next(1) is None
                return slow.reason, heard

        reason, heard = asyncio.run(check())

        assert reason == "too_slow"
        assert [note.data["at"] for note in heard if note] == list(range(10))

    def test_notes_come_from_any_thread(self) -> None:
        async def check() -> Note | None:
            live = LiveRuns(queue_size=4)
            with live.watching("run") as watcher:
                threading.Thread(target=live.changed, args=("run",)).start()
                return await watcher.next(5)

        assert asyncio.run(check()) == Note("changed")

    def test_a_watcher_that_comes_while_the_service_stops_ends_at_once(self) -> None:
        async def check() -> str:
            live = LiveRuns(queue_size=4)
            live.close()
            with live.watching("run") as watcher:
                assert await watcher.next(5) is None
                return watcher.reason

        assert asyncio.run(check()) == "shutdown"

    def test_telling_a_watcher_whose_loop_is_gone_is_harmless(self) -> None:
        live = LiveRuns(queue_size=4)

        async def leave_open() -> None:
            live.watching("run").__enter__()

        asyncio.run(leave_open())
        live.progressed("run", "stage", {})
        live.close()

    def test_only_so_many_runs_are_remembered(self) -> None:
        now: Callable[[], float] = lambda: 1.0  # noqa: E731 - a clock that always returns 1
        live = LiveRuns(queue_size=4, clock=now)
        for at in range(MOST_RUNS + 10):
            live.progressed(str(at), "stage", {"at": at})

        assert live.progress("0") == {}
        assert live.moved("0") is None
        assert live.progress(str(MOST_RUNS + 9)) == {"stage": {"at": MOST_RUNS + 9}}
