from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from flts.contracts import topics
from flts.contracts.events import Event, RawData
from flts.errors import BackendAwayError, FltsError, RejectedError
from flts.messaging.attempts import DIED, StoredAttempts
from flts.messaging.codec import encode
from flts.messaging.delivery import Delivery, Record, Stopping
from flts.observability.metrics import Metrics
from flts.observability.tracing import Trace
from flts.processes.replayed import is_replayed
from flts.processes.worker import WorkInterruptedError
from flts.service import Progress, Subscription
from flts.storage.filesystem import FilesystemStore
from tests.brokers import raw_data
from tests.bus_service import selected
from tests.eventually import eventually

BUCKET = "pipeline-runs"


class Outbox:
    """A publisher that keeps its events; ``refuse`` is called first and may raise an error."""

    def __init__(self) -> None:
        self.published: list[Event] = []
        self.records: list[tuple[str, bytes | None, bytes | None, dict[str, bytes | None]]] = []
        self.refuse: Callable[[], None] = lambda: None

    def publish_all(self, events: Iterable[Event], *, trace: Trace | None = None) -> None:
        assert trace is None
        self.refuse()
        self.published += events

    def publish_soon(self, event: Event) -> None:
        pass

    def publish_record(
        self, topic: str, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]]
    ) -> None:
        size = sum(len(name) + len(text or b"") for name, text in headers)
        if len(value or b"") + size > 2_000:
            msg = "too large"
            raise RejectedError(msg, code="record_too_large")
        self.records.append((topic, key, value, dict(headers)))


class DeafStore(FilesystemStore):
    """A store whose first answers to puts are lost: the object exists, but the caller gets an error."""

    def __init__(self, folder: Path, *, lost: int) -> None:
        super().__init__(folder)
        self.lost = lost

    def put(self, bucket: str, key: str, data: bytes, **conditions: Any) -> Any:
        info = super().put(bucket, key, data, **conditions)
        if self.lost:
            self.lost -= 1
            msg = "no answer"
            raise BackendAwayError(msg)
        return info


class Stage:
    """A delivery with a store, a publisher and a handler."""

    def __init__(self, folder: Path, work: Callable[[RawData], Sequence[Event]], **changes: Any) -> None:
        self.store = changes.pop("store", None) or FilesystemStore(folder)
        self.store.ensure_bucket(BUCKET)
        self.outbox = Outbox()
        self.stopping = Stopping()
        self.metrics = Metrics(CollectorRegistry())
        self.worked = 0

        def counted(event: Event, _progress: Progress) -> Sequence[Event]:
            assert isinstance(event, RawData)
            self.worked += 1
            return work(event)

        self.delivery = Delivery(
            service="bus",
            subscription=Subscription(
                (topics.RAW_DATA,),
                "group",
                child="a:b",
                wants=changes.pop("wants", lambda _event: True),
                on_exhausted=changes.pop("on_exhausted", None),
            ),
            work=counted,
            attempts=StoredAttempts(self.store, BUCKET, "bus", 3),
            publisher=self.outbox,
            metrics=self.metrics,
            stopping=self.stopping,
            max_attempts=3,
            backoff_seconds=changes.pop("backoff_seconds", 0.001),
            dead_letters="bus.dead-letter",
            only_group="bus",
        )

    def deliver(self, event: RawData, **extra: bytes) -> str:
        key, value, headers = encode(event)
        return self.delivery.deliver(Record(topics.RAW_DATA, "raw-data", 2, 7, key, value, [*headers, *extra.items()]))

    def tries(self) -> list[str]:
        return [info.key for info in self.store.list(BUCKET)]


def fail(_event: RawData) -> Sequence[Event]:
    msg = "a bug"
    raise RuntimeError(msg)


def succeed(event: RawData) -> Sequence[Event]:
    return [selected(event)]


def test_a_try_is_on_record_while_the_work_runs_and_gone_when_it_is_done(tmp_path: Path) -> None:
    seen: list[str] = []
    event = raw_data()

    def work(event: RawData) -> Sequence[Event]:
        seen.extend(stage.tries())
        return succeed(event)

    stage = Stage(tmp_path, work)

    assert stage.deliver(event) == "done"
    assert seen == [f"PobleSec/{event.pipeline_run_id}/attempts/bus/{event.event_id}-1.json"]
    assert stage.tries() == []
    assert [made.event_id for made in stage.outbox.published] == [selected(event).event_id]


def test_an_event_that_the_service_does_not_process_is_skipped_without_an_attempt(tmp_path: Path) -> None:
    stage = Stage(tmp_path, succeed, wants=lambda event: event.identifier != "PobleSec")

    assert stage.deliver(raw_data()) == "skipped"
    assert (stage.worked, stage.tries(), stage.outbox.published) == (0, [], [])


def test_work_knows_a_dead_letter_that_was_sent_again_from_a_message_delivered_twice(tmp_path: Path) -> None:
    seen: list[bool] = []
    event = raw_data()

    def work(event: RawData) -> Sequence[Event]:
        seen.append(is_replayed())
        return succeed(event)

    stage = Stage(tmp_path, work)

    assert stage.deliver(event) == "done"
    assert stage.deliver(event, **{"only-group": b"bus"}) == "done"
    assert stage.deliver(event, **{"only-group": b"another"}) == "skipped"
    assert seen == [False, True]
    assert not is_replayed()


def test_a_try_whose_recording_was_not_answered_is_recorded_once(tmp_path: Path) -> None:
    seen: list[list[str]] = []
    event = raw_data()

    def work(event: RawData) -> Sequence[Event]:
        seen.append(stage.tries())
        return fail(event) if len(seen) == 1 else succeed(event)

    stage = Stage(tmp_path, work, store=DeafStore(tmp_path, lost=1))

    assert stage.deliver(event) == "done"
    assert [len(keys) for keys in seen] == [1, 2]  # the retry finds two records: its own and that of the failed attempt
    assert stage.tries() == []


def test_answers_lost_at_every_beginning_use_up_no_tries(tmp_path: Path) -> None:
    store = DeafStore(tmp_path, lost=0)
    event = raw_data()

    def work(event: RawData) -> Sequence[Event]:
        if stage.worked <= 5:
            store.lost = 1
            msg = "the broker is away"
            raise BackendAwayError(msg, retry_after_seconds=0.01)
        return succeed(event)

    stage = Stage(tmp_path, work, store=store)
    store.lost = 1

    assert stage.deliver(event) == "done"
    assert stage.worked == 6
    assert stage.tries() == []


def test_tries_that_killed_the_process_count_without_it(tmp_path: Path) -> None:
    event = raw_data()
    stage = Stage(tmp_path, succeed)
    for _ in range(3):  # each pass simulates a process that began an attempt and was killed
        StoredAttempts(stage.store, BUCKET, "bus", 3).begin(event)

    assert stage.deliver(event) == "dead_letter"

    assert stage.worked == 0
    assert stage.outbox.records[0][3]["error"] == DIED.encode()
    assert stage.outbox.records[0][3]["attempts"] == b"3"
    assert stage.tries() == []


def test_another_groups_tries_are_its_own(tmp_path: Path) -> None:
    event = raw_data()
    stage = Stage(tmp_path, succeed)
    for _ in range(3):
        StoredAttempts(stage.store, BUCKET, "other", 3).begin(event)

    assert stage.deliver(event) == "done"


def test_work_that_is_done_is_not_done_again_while_its_events_wait_for_the_broker(tmp_path: Path) -> None:
    stage = Stage(tmp_path, succeed)
    away = iter([True, True, False])

    def refuse() -> None:
        if next(away):
            msg = "no broker"
            raise BackendAwayError(msg)

    stage.outbox.refuse = refuse

    assert stage.deliver(raw_data()) == "done"
    assert stage.worked == 1
    assert len(stage.outbox.published) == 1


def test_an_event_that_is_too_large_to_publish_is_given_up_with_the_reason(tmp_path: Path) -> None:
    stage = Stage(tmp_path, succeed)

    def refuse() -> None:
        msg = "20,000 bytes"
        raise RejectedError(msg, code="event_too_large")

    stage.outbox.refuse = refuse

    assert stage.deliver(raw_data()) == "dead_letter"
    assert stage.outbox.records[0][3]["error_code"] == b"event_too_large"


def test_a_dead_letter_loses_its_reasons_before_its_value(tmp_path: Path) -> None:
    stage = Stage(tmp_path, fail)
    event = raw_data(told={"note": "x" * 1_300})

    assert stage.deliver(event, cause=b"y" * 500) == "dead_letter"

    _, key, value, headers = stage.outbox.records[0]
    assert key == b"PobleSec"
    assert value == encode(event)[1]
    assert headers["source-offset"] == b"7"
    assert "cause" not in headers


def test_a_replayed_dead_letter_starts_with_all_its_tries(tmp_path: Path) -> None:
    event = raw_data()
    assert Stage(tmp_path, fail).deliver(event) == "dead_letter"
    healed = Stage(tmp_path, succeed)

    assert healed.deliver(event, **{"only-group": b"bus"}) == "done"
    assert "only-group" not in healed.outbox.published[0].model_dump()


def test_a_bug_in_what_is_told_at_the_end_does_not_repeat_the_dead_letter_for_ever(tmp_path: Path) -> None:
    def tell(_event: Event, _error: FltsError | None, _message: str) -> Sequence[Event]:
        msg = "another bug"
        raise KeyError(msg)

    stage = Stage(tmp_path, fail, on_exhausted=tell)

    assert stage.deliver(raw_data()) == "dead_letter"
    assert len(stage.outbox.records) == 1


def test_a_stop_during_the_back_off_keeps_the_failed_tries_and_interrupts(tmp_path: Path) -> None:
    stage = Stage(tmp_path, fail, backoff_seconds=30)
    outcome: list[str] = []
    thread = threading.Thread(target=lambda: outcome.append(stage.deliver(raw_data())))
    thread.start()
    eventually(lambda: stage.worked == 1, "the first try")

    stage.stopping.asked.set()

    thread.join(60)
    assert outcome == ["interrupted"]
    assert [key.endswith("-1.json") for key in stage.tries()] == [True]
    assert not stage.outbox.records


def test_a_stop_during_the_work_is_no_try(tmp_path: Path) -> None:
    def work(_event: RawData) -> Sequence[Event]:
        msg = "the service stops"
        raise WorkInterruptedError(msg)

    stage = Stage(tmp_path, work)

    assert stage.deliver(raw_data()) == "interrupted"
    assert stage.tries() == []


def test_a_partition_that_goes_elsewhere_takes_its_try_back(tmp_path: Path) -> None:
    at_work, go_on = threading.Event(), threading.Event()

    def work(event: RawData) -> Sequence[Event]:
        at_work.set()
        assert go_on.wait(10)
        return succeed(event)

    stage = Stage(tmp_path, work)
    outcome: list[str] = []
    thread = threading.Thread(target=lambda: outcome.append(stage.deliver(raw_data())))
    thread.start()
    assert at_work.wait(10)
    assert len(stage.tries()) == 1

    stage.delivery.release()

    assert stage.tries() == []
    go_on.set()
    thread.join(10)
    assert outcome == ["done"]


def test_only_work_that_failed_at_every_try_counts_as_exhausted(tmp_path: Path) -> None:
    def refuse(_event: RawData) -> Sequence[Event]:
        msg = "no rows"
        raise RejectedError(msg)

    refusing, failing = Stage(tmp_path / "refusing", refuse), Stage(tmp_path / "failing", fail)

    refusing.deliver(raw_data())
    failing.deliver(raw_data())

    def exhausted(stage: Stage) -> float | None:
        return stage.metrics.registry.get_sample_value("flts_training_retries_exhausted_total")

    assert (exhausted(refusing), exhausted(failing)) == (0, 1)


@pytest.mark.parametrize("value", [None, b"", b"[]", b"\xff", b'{"v": 2}'])
def test_what_is_no_event_is_given_up_with_its_bytes(tmp_path: Path, value: bytes | None) -> None:
    stage = Stage(tmp_path, succeed)
    record = Record(topics.RAW_DATA, "raw-data", 0, 0, None, value, [("event", b"raw-claim")])

    assert stage.delivery.deliver(record) == "dead_letter"
    assert stage.outbox.records[0][2] == value
    assert stage.worked == 0
