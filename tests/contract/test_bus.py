"""The behaviour of a broker on which the services rely: one suite for the embedded broker and for a real Kafka."""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from embedded.ports import free_port
from flts.contracts.events import RawData
from flts.errors import BackendAwayError
from flts.messaging.kafka import RawHeaders, check_broker, check_large_request
from tests.brokers import Bus, EmbeddedBroker, RunningService, embedded_bus, lives, steady
from tests.eventually import eventually
from tests.faulty_proxy import FaultyProxy, stall_after
from tests.files_below import files_below

GROUP = "bus"
PREFIXES = [f"t{number}-" for number in range(24)]
"""One prefix for each test, so that all tests can use the same broker."""
REBALANCE_SECONDS = 60
"""Seconds; by default a real broker removes a killed member after 45 s."""


class BusContract:
    def test_redelivers_a_message_whose_offset_was_never_committed(self, bus: Bus) -> None:
        journal = str(bus.folder / "shared.journal")
        first = bus.start(BUS_JOURNAL=journal).until_ready()

        event = bus.publish(do="die", times=1)  # the first attempt kills its own process with SIGKILL
        first.ended()
        assert bus.committed("raw-data", GROUP) == 0
        second = bus.start(BUS_JOURNAL=journal)

        eventually(lambda: second.journal("end", event), "the other try's end", timeout=REBALANCE_SECONDS)
        begun = second.journal("begin", event)
        assert [line["pid"] for line in begun] == [first.process.pid, second.process.pid]
        eventually(lambda: bus.committed("raw-data", GROUP) == 1, "the commit")
        assert len(bus.read("model-selected")) == 1

    def test_shares_the_partitions_among_replicas_so_that_each_message_is_worked_on_once(self, bus: Bus) -> None:
        one, other = bus.start(), bus.start()
        one.until_ready()
        other.until_ready()
        eventually(
            lambda: one.logged("partitions_assigned") and other.logged("partitions_assigned"),
            "both replicas' shares",
            timeout=REBALANCE_SECONDS,
        )
        steady_assignment(one, other)

        events = [bus.publish(f"series-{number}") for number in range(24)]

        all_ended(one, 24, REBALANCE_SECONDS, other)  # long timeout: a rebalance is slow on a busy machine
        done = [line["event_id"] for line in one.journal("end") + other.journal("end")]
        assert sorted(done) == sorted(event.event_id for event in events)
        assert one.journal("end")
        assert other.journal("end")

    def test_long_work_keeps_its_partitions_beyond_the_longest_poll_interval(self, bus: Bus) -> None:
        service = bus.start(BUS_MODE="child", KAFKA_MAX_POLL_INTERVAL_MS="10000").until_ready()

        event = bus.publish(do="work", seconds=11)
        behind = bus.publish()

        eventually(lambda: service.journal("end", behind), "the message behind the long one", timeout=40)
        assert len(service.journal("begin", event)) == 1
        assert not service.logged("partitions_revoked")
        assert service.journal("end", event)[0]["at"] <= service.journal("begin", behind)[0]["at"]
        eventually(lambda: bus.committed("raw-data", GROUP) == 2, "both commits")

    def test_gives_a_message_up_after_bounded_tries_with_its_payload_and_the_reason(self, bus: Bus) -> None:
        service = bus.start(FAILURE_MAX_RETRIES="3").until_ready()

        event = bus.publish(do="fail")

        eventually(lambda: bus.committed("raw-data", GROUP) == 1, "the commit of a message given up")
        assert len(service.journal("begin", event)) == 3
        (letter,) = bus.read(f"{GROUP}.dead-letter")
        assert letter["key"] == b"PobleSec"
        assert RawData.model_validate(letter["value"]) == event
        headers = letter["headers"]
        assert headers["error"] == b"RuntimeError: a bug"
        assert b"tests/bus_service.py" in headers["traceback"]
        assert headers["attempts"] == b"3"
        assert headers["source-topic"] == f"{bus.prefix}raw-data".encode()
        assert headers["source-offset"] == b"0"
        assert headers["event"] == b"raw-claim"
        (told,) = bus.read("model-selected")
        assert told["value"]["reasons"] == ["RuntimeError: a bug", "bug"]
        assert not tries_of(bus, event)
        assert service.metric('flts_messages_total{outcome="dead_letter",topic="raw-data"}') == 1

    def test_gives_up_at_once_what_can_never_succeed_or_be_understood(self, bus: Bus) -> None:
        service = bus.start().until_ready()

        event = bus.publish(do="reject")
        bus.publisher.publish_record(f"{bus.prefix}raw-data", b"PobleSec", b'{"v": 1, "even', [("event", b"raw-claim")])
        bus.publisher.publish_record(f"{bus.prefix}raw-data", b"PobleSec", b"{}", [("event", b"no-such-event")])
        after = bus.publish()

        eventually(lambda: service.journal("end", after), "the message behind those given up")
        assert len(service.journal("begin", event)) == 1
        letters = {letter["headers"]["error_code"]: letter for letter in bus.read(f"{GROUP}.dead-letter")}
        assert set(letters) == {b"no_column", b"not_json", b"unknown_event"}
        assert letters[b"not_json"]["raw"] == b'{"v": 1, "even'
        eventually(lambda: bus.committed("raw-data", GROUP) == 4, "commits of all four")

    def test_waits_for_a_backend_that_is_away_without_counting_tries(self, bus: Bus) -> None:
        service = bus.start(FAILURE_MAX_RETRIES="1").until_ready()

        event = bus.publish(do="away", times=3)

        eventually(lambda: service.journal("end", event), "the end after three waits")
        assert len(service.journal("begin", event)) == 4
        assert not bus.read(f"{GROUP}.dead-letter")
        eventually(lambda: not tries_of(bus, event), "no try left on record")

    def test_a_replay_meant_for_another_group_is_passed_over(self, bus: Bus) -> None:
        service = bus.start().until_ready()
        mine, not_mine = new_record(), new_record()

        for (_, value), group in ((not_mine, b"train-gru"), (mine, GROUP.encode())):
            headers: RawHeaders = [("event", b"raw-claim"), ("only-group", group)]
            bus.publisher.publish_record(f"{bus.prefix}raw-data", b"PobleSec", value, headers)

        eventually(lambda: bus.committed("raw-data", GROUP) == 2, "commits of both")
        assert [line["event_id"] for line in service.journal("begin")] == [mine[0]]

    def test_every_replica_that_reads_all_sees_every_later_message_and_no_earlier_one(self, bus: Bus) -> None:
        earlier = bus.publish()
        one, other = bus.start(BUS_MODE="all").until_ready(), bus.start(BUS_MODE="all").until_ready()

        events = [bus.publish(f"series-{number}") for number in range(8)]

        for replica in (one, other):
            # A replica starts at the end offsets of the topic. If the replica did not get them in time, it reads from
            # the beginning, so it also handles `earlier`.
            seen = [earlier, *events] if replica.logged("ends_unknown") else events
            all_ended(replica, len(seen))
            assert sorted(line["event_id"] for line in replica.journal("end")) == sorted(e.event_id for e in seen)
        assert bus.committed("raw-data", GROUP) == 0

    def test_a_message_carries_its_trace_on_to_what_is_made_of_it(self, bus: Bus) -> None:
        service = bus.start().until_ready()

        bus.publish()

        (selected,) = eventually(lambda: bus.read("model-selected"), "what was made of it")
        (raw,) = bus.read("raw-data")
        trace_id = raw["headers"]["traceparent"].split(b"-")[1]
        assert selected["headers"]["traceparent"].split(b"-")[1] == trace_id
        assert selected["headers"]["traceparent"] != raw["headers"]["traceparent"]
        assert service.logged("kafka_receive")[0]["trace_id"].encode() == trace_id
        eventually(lambda: bus.read("run-progress"), "its progress")

    def test_asking_for_much_at_start_makes_no_topic(self, bus: Bus) -> None:
        check_large_request(bus.settings(), "tests")

        known = AdminClient({"bootstrap.servers": bus.address}).list_topics(timeout=10).topics
        assert f"{bus.prefix}raw-data" in known
        assert not [name for name in known if "_probe" in name]

    def test_a_stopping_service_lets_work_in_hand_finish_and_commits_it(self, bus: Bus) -> None:
        service = bus.start(BUS_MODE="child").until_ready()
        event = bus.publish(do="work", seconds=1.5)
        eventually(lambda: service.journal("begin", event), "the work's begin")

        code = service.stop()

        assert code == 0
        assert service.journal("end", event)
        assert bus.committed("raw-data", GROUP) == 1
        assert service.logged("service_stopped")[0]["reason"] == "SIGTERM"

    def test_work_that_outlasts_the_drain_is_given_back_as_if_never_tried(self, bus: Bus) -> None:
        service = bus.start(BUS_MODE="child", DRAIN_SECONDS="0.5").until_ready()
        child = service.journal("child ready")[0]["pid"]
        event = bus.publish(do="work", seconds=60)
        eventually(lambda: service.journal("begin", event), "the work's begin")
        assert len(tries_of(bus, event)) == 1

        code = service.stop()

        assert code == 0
        assert not lives(child)
        assert bus.committed("raw-data", GROUP) == 0
        assert not tries_of(bus, event)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    broker = EmbeddedBroker(tmp_path_factory.mktemp("broker"), prefixes=PREFIXES, groups=GROUP)
    yield broker
    broker.kill()


@pytest.fixture(scope="module")
def prefixes() -> Iterator[str]:
    return iter(PREFIXES)


class TestEmbeddedBroker(BusContract):
    @pytest.fixture
    def bus(self, tmp_path: Path, broker: EmbeddedBroker, prefixes: Iterator[str]) -> Iterator[Bus]:
        with contextlib.closing(Bus(broker.address, tmp_path, prefix=next(prefixes))) as bus:
            yield bus

    def test_services_go_on_by_themselves_when_the_broker_returns_empty(self, tmp_path: Path) -> None:
        with embedded_bus(tmp_path) as (bus, broker):
            sharing, reading_all = bus.start().until_ready(), bus.start("all", BUS_MODE="all").until_ready()
            events = [bus.publish() for _ in range(3)]
            for service in (sharing, reading_all):
                all_ended(service, 3)

            broker.restart()
            events.append(bus.publish())

            for service in (sharing, reading_all):
                all_ended(service, 4, timeout=40)
                assert [line["event_id"] for line in service.journal("end")] == [event.event_id for event in events]

    def test_a_broker_that_is_away_makes_a_service_wait_and_does_not_hold_up_its_end(self, tmp_path: Path) -> None:
        with embedded_bus(tmp_path) as (bus, broker):
            service = bus.start().until_ready()

            broker.kill()

            eventually(lambda: "kafka" in service.get("/readyz")[1], "a service that waits for Kafka")
            assert service.get("/healthz")[0] == 200
            started = time.monotonic()
            assert service.stop() == 0
            # Seconds; half of the 30 s that Kubernetes waits after SIGTERM before it kills a pod.
            assert time.monotonic() - started < 15
            assert len(service.logged("brokers_away")) == 1

    def test_a_broker_that_stalls_after_64_kib_answers_small_requests_and_is_found_out_by_a_large_one(
        self, tmp_path: Path
    ) -> None:
        port = free_port()
        with FaultyProxy(port, mode=stall_after(64 * 1024)) as proxy:
            broker = EmbeddedBroker(tmp_path, port=port, advertised=proxy.address)
            settings = Bus(proxy.address, tmp_path).settings()
            try:
                check_broker(settings, "tests")

                with pytest.raises(BackendAwayError, match=f"{proxy.address} did not answer a request of 96 KiB"):
                    check_large_request(settings, "tests", timeout_seconds=2)
            finally:
                broker.kill()

    def test_names_the_topics_that_are_missing(self, tmp_path: Path) -> None:
        with embedded_bus(tmp_path) as (bus, _):
            service = bus.start("unheard-of", BACKEND_CHECK_SECONDS="0.5")

            code = service.ended(60)

            assert code == 1
            (stopped,) = service.logged("service_stopped")
            assert "unheard-of.dead-letter" in stopped["reason"]
            assert bus.address in stopped["reason"]

    def test_ends_when_it_is_told_to(self, tmp_path: Path) -> None:
        broker = EmbeddedBroker(tmp_path)

        assert broker.stop() == 0
        assert "embedded broker ready on 127.0.0.1" in (tmp_path / "broker.log").read_text()


class TestEmbeddedBrokerClassicProtocol:
    """The classic group protocol, for the tests in which it differs: membership."""

    @pytest.fixture
    def bus(self, tmp_path: Path, broker: EmbeddedBroker, prefixes: Iterator[str]) -> Iterator[Bus]:
        with contextlib.closing(Bus(broker.address, tmp_path, "classic", prefix=next(prefixes))) as bus:
            yield bus

    test_shares = BusContract.test_shares_the_partitions_among_replicas_so_that_each_message_is_worked_on_once
    test_bounded = BusContract.test_gives_a_message_up_after_bounded_tries_with_its_payload_and_the_reason


real_kafka = pytest.mark.skipif(
    "FLTS_TEST_KAFKA" not in os.environ,
    reason="FLTS_TEST_KAFKA names no bootstrap servers of a real Kafka: the suite ran on the embedded broker only",
)


@real_kafka
class TestApacheKafka(BusContract):
    @pytest.fixture(params=["consumer", "classic"])
    def bus(self, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bus]:
        address = os.environ["FLTS_TEST_KAFKA"]
        with contextlib.closing(Bus(address, tmp_path, request.param, f"t{uuid.uuid4().hex[:12]}-")) as bus:
            bus.prepare(GROUP)
            yield bus


def all_ended(service: RunningService, count: int, timeout: float = 10, *others: RunningService) -> None:
    def ended() -> bool:
        found = [len(each.journal("end")) for each in (service, *others)]
        assert sum(found) == count, f"{found} messages worked on"
        return True

    eventually(ended, f"{count} messages worked on", timeout=timeout)


def steady_assignment(*services: RunningService) -> None:
    """Wait until no partition is assigned or revoked for a second."""

    def changes() -> int:
        return sum(len(each.logged("partitions_assigned") + each.logged("partitions_revoked")) for each in services)

    def is_steady() -> bool:
        before = changes()
        steady(lambda: changes() == before, 1.0, "partitions still move")
        return True

    eventually(is_steady, "a steady assignment", timeout=30)


def tries_of(bus: Bus, event: RawData) -> list[Path]:
    tries = f"attempts/{GROUP}/{event.event_id}"
    return [path for path in files_below(bus.folder / "store") if tries in path.as_posix()]


def new_record() -> tuple[str, bytes]:
    event_id = str(uuid.uuid4())
    event = {
        "event_id": event_id,
        "identifier": "PobleSec",
        "pipeline_run_id": str(uuid.uuid4()),
        "created_at": datetime(2026, 1, 1).astimezone().isoformat(),
        "train": {"bucket": "raw-data", "object_key": "PobleSec/train.csv", "size": 1, "sha256": "0" * 64},
    }
    return event_id, json.dumps(event).encode()
