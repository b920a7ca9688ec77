"""The consume loop on the embedded broker, run in the test's process to observe its internal states."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from confluent_kafka import Consumer, Message, TopicPartition
from prometheus_client import CollectorRegistry

from flts.contracts import topics
from flts.contracts.events import Event
from flts.errors import BackendAwayError
from flts.messaging import consumer, standstill
from flts.messaging.attempts import MemoryAttempts
from flts.messaging.consumer import ConsumeLoop
from flts.messaging.delivery import Delivery, Stopping
from flts.messaging.kafka import Publisher
from flts.observability.health import Health
from flts.observability.metrics import Metrics
from flts.observability.tracing import Trace
from flts.service import Progress, Subscription
from tests.brokers import Bus, embedded_bus, steady
from tests.bus_service import selected
from tests.eventually import eventually


class WatchedPublisher:
    """The real publisher, with a call of ``look`` before each publication."""

    def __init__(self, publisher: Publisher, look: Callable[[], None]) -> None:
        self._publisher = publisher
        self._look = look

    def publish_all(self, events: Iterable[Event], *, trace: Trace | None = None) -> None:
        self._look()
        self._publisher.publish_all(events, trace=trace)

    def publish_soon(self, event: Event) -> None:
        self._publisher.publish_soon(event)

    def publish_record(
        self, topic: str, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]]
    ) -> None:
        self._publisher.publish_record(topic, key, value, headers)


class Watched:
    """A Kafka client that records the messages that it returned."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self.polled: list[Message] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    def poll(self, timeout: float) -> Message | None:
        message = self._consumer.poll(timeout)
        if message is not None:
            self.polled.append(message)
        return message


class LoopOnStage:
    def __init__(
        self,
        bus: Bus,
        work: Callable[[Event], Sequence[Event]],
        look: Callable[[], None] = lambda: None,
        *,
        mode: Literal["group", "all"] = "group",
    ) -> None:
        self.stopping = Stopping()
        self.fatal: list[str] = []
        self.metrics = Metrics(CollectorRegistry())

        def handler(event: Event, _progress: Progress) -> Sequence[Event]:
            return work(event)

        subscription = Subscription((topics.RAW_DATA,), mode)
        delivery = Delivery(
            service="bus",
            subscription=subscription,
            work=handler,
            attempts=MemoryAttempts(3),
            publisher=WatchedPublisher(bus.publisher, look),
            metrics=self.metrics,
            stopping=self.stopping,
            max_attempts=3,
            backoff_seconds=0.01,
            dead_letters="bus.dead-letter",
            only_group="bus",
        )
        self.loop = ConsumeLoop(
            subscription,
            delivery,
            bus.settings(),
            client_id="bus",
            health=Health(),
            metrics=self.metrics,
            stopping=self.stopping,
            on_fatal=self.fatal.append,
        )
        self._errands: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        keep_house = self.loop._keep_house

        def keep_house_and_run_errands() -> None:
            keep_house()
            if not self._errands.empty():
                self._errands.get()()

        # The loop calls _keep_house in its own thread, so this function runs a test's errands in that thread.
        self.loop._keep_house = keep_house_and_run_errands  # type: ignore[method-assign] # see the line above
        self.thread = threading.Thread(target=self.loop.run, daemon=True)
        self.thread.start()

    def in_its_thread(self, errand: Callable[[], object]) -> None:
        """Run a function in the loop's own thread, where the client would call back."""
        done = threading.Event()

        def run() -> None:
            errand()
            done.set()

        self._errands.put(run)
        assert done.wait(20)

    def revoke(self, *places: tuple[str, int]) -> None:
        """Revoke partitions, as the broker does when a new replica joins."""
        parts = [TopicPartition(*place) for place in places]
        self.in_its_thread(lambda: self.loop._on_revoke(self.loop._consumer, parts))

    def assign(self, *places: tuple[str, int]) -> None:
        parts = [TopicPartition(*place) for place in places]
        self.in_its_thread(lambda: self.loop._on_assign(self.loop._consumer, parts))

    def stop(self) -> None:
        self.stopping.asked.set()
        self.stopping.over.set()
        self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    with embedded_bus(tmp_path) as (bus, _):
        yield bus


def test_nothing_is_committed_before_its_events_are_acknowledged(bus: Bus) -> None:
    committed_before: list[int] = []

    def look() -> None:
        committed_before.append(bus.committed("raw-data", "bus"))
        if len(committed_before) < 4:
            msg = "not acknowledged yet"
            raise BackendAwayError(msg)

    stage = LoopOnStage(bus, lambda event: [selected(event)], look)  # type: ignore[arg-type] # the event is RawData
    try:
        bus.publish()
        eventually(lambda: bus.committed("raw-data", "bus") == 1, "the commit")
    finally:
        stage.stop()

    assert committed_before == [0, 0, 0, 0]
    assert len(bus.read("model-selected")) == 1


def test_a_partition_that_is_taken_away_during_the_work_is_published_but_not_committed(bus: Bus) -> None:
    at_work, go_on = threading.Event(), threading.Event()

    def work(event: Event) -> Sequence[Event]:
        at_work.set()
        assert go_on.wait(20)
        return [selected(event)]  # type: ignore[arg-type] # the event is RawData

    stage = LoopOnStage(bus, work)
    try:
        bus.publish()
        job = eventually(lambda: stage.loop._job, "the job")
        assert at_work.wait(20)
        stage.revoke(job.place)
        go_on.set()
        eventually(lambda: bus.read("model-selected"), "what came of the work")
        eventually(lambda: stage.loop._job is None, "the end of the work")
    finally:
        stage.stop()

    assert bus.committed("raw-data", "bus") == 0
    assert not stage.fatal


def test_partitions_that_arrive_during_the_work_are_paused_too(bus: Bus) -> None:
    at_work, go_on, worked = threading.Event(), threading.Event(), []

    def work(event: Event) -> Sequence[Event]:
        worked.append(event.event_id)
        at_work.set()
        assert go_on.wait(20)
        return []

    stage = LoopOnStage(bus, work)
    try:
        bus.publish()
        assert at_work.wait(20)
        eventually(lambda: stage.loop._paused, "the pause")
        places = [("raw-data", number) for number in range(6)]
        stage.revoke(*places)
        stage.assign(*places)
        stage.loop._consumer = watched = Watched(stage.loop._consumer)  # type: ignore[assignment] # notes the polls
        behind = [bus.publish(f"series-{number}") for number in range(6)]
        steady(lambda: not watched.polled, 1.0, "nothing is read meanwhile, and put back")
        go_on.set()
        eventually(lambda: {event.event_id for event in behind} <= set(worked), "all that lay behind")
    finally:
        stage.stop()

    assert not stage.fatal


def test_a_loop_that_cannot_go_on_says_so(bus: Bus) -> None:
    stage = LoopOnStage(bus, lambda _event: [])
    eventually(lambda: stage.loop._owned, "its partitions")

    def broken() -> None:
        msg = "a bug in the loop"
        raise RuntimeError(msg)

    stage.loop._keep_house = broken  # type: ignore[method-assign] # simulates a bug in the loop

    stage.thread.join(20)
    assert stage.fatal == ["the consume loop of raw-data failed: RuntimeError: a bug in the loop"]


def test_lag_counts_what_is_not_committed(bus: Bus) -> None:
    go_on = threading.Event()

    def work(_event: Event) -> Sequence[Event]:
        assert go_on.wait(20)
        return []

    for number in range(5):
        bus.publish(f"series-{number}")
    stage = LoopOnStage(bus, work)
    try:
        stage.loop._next_lag = 0.0
        eventually(lambda: lag(stage) == 5, "a lag of 5")
        go_on.set()
        eventually(lambda: bus.committed("raw-data", "bus") == 5, "the commits")
        stage.loop._next_lag = 0.0
        eventually(lambda: lag(stage) == 0, "no lag")
    finally:
        stage.stop()


@pytest.mark.parametrize("mode", ["group", "all"])
def test_a_client_that_no_longer_reads_a_partition_is_replaced(
    bus: Bus, mode: Literal["group", "all"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "LAG_PERIOD_SECONDS", 0.1)
    worked: list[str] = []

    def work(event: Event) -> Sequence[Event]:
        worked.append(event.event_id)
        return []

    stage = LoopOnStage(bus, work, mode=mode)
    try:
        first = bus.publish()
        eventually(lambda: worked == [first.event_id], "the first message")
        stuck = stage.loop._consumer
        # The pause simulates a client that has no leader for its partitions and therefore no longer reads them.
        stage.in_its_thread(lambda: stuck.pause(stuck.assignment()))
        behind = [bus.publish(f"series-{number}") for number in range(6)]
        with monkeypatch.context() as impatient:
            impatient.setattr(standstill, "STUCK_SECONDS", 0.5)
            impatient.setattr(standstill, "STUCK_POLLS", 3)
            eventually(lambda: stage.loop._consumer is not stuck, "another client", every=0.001)
        eventually(lambda: len(worked) >= 7, "what the first client did not read")
        steady(lambda: len(worked) == 7, 0.8, "each of them once")
    finally:
        stage.stop()

    assert sorted(worked[1:]) == sorted(event.event_id for event in behind)
    assert stage.loop._consumer is not stuck
    assert not stage.fatal


def test_a_client_with_nothing_to_read_or_much_to_do_is_kept(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standstill, "STUCK_SECONDS", 0.3)
    monkeypatch.setattr(consumer, "LAG_PERIOD_SECONDS", 0.1)
    monkeypatch.setattr(standstill, "STUCK_POLLS", 2)

    def work(_event: Event) -> Sequence[Event]:
        time.sleep(0.9)  # seconds; three times STUCK_SECONDS, so the loop polls several times while the work runs
        return []

    stage = LoopOnStage(bus, work)
    try:
        eventually(lambda: stage.loop._owned, "its partitions")
        first = stage.loop._consumer
        steady(lambda: stage.loop._consumer is first, 1.0, "nothing to read")
        standstills = stage.loop._standstills
        count, counted_at_work = standstills.nothing_came, []

        def nothing_came() -> None:
            counted_at_work.extend([1] * (stage.loop._job is not None))
            count()

        monkeypatch.setattr(standstills, "nothing_came", nothing_came)
        # So high that the empty polls between two messages do not reach it.
        monkeypatch.setattr(standstill, "STUCK_POLLS", 10_000)
        for number in range(3):
            bus.publish(f"series-{number}")
        eventually(lambda: bus.committed("raw-data", "bus") == 3, "the work")
        assert stage.loop._consumer is first
        assert not counted_at_work
    finally:
        stage.stop()


def lag(stage: LoopOnStage) -> float | None:
    stage.loop._next_lag = 0.0
    return stage.metrics.registry.get_sample_value("flts_consumer_lag", {"topic": "raw-data", "group": "bus"})
