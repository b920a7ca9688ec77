"""sent = done + in flight + dead letters, from offsets: one suite for the embedded broker and for a real Kafka."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from flts.contracts import topics
from flts.dead_letters.accounting import Account, Accounting
from flts.errors import BackendAwayError
from flts.messaging.codec import ONLY_GROUP, encode
from tests.brokers import Bus, EmbeddedBroker, raw_data
from tests.eventually import eventually
from tests.trainers import INSTALLED

GROUP = "bus"
PREFIXES = [f"a{number}-" for number in range(8)]


class AccountingContract:
    def test_all_that_was_sent_is_in_flight_before_anybody_reads(self, bus: Bus) -> None:
        for number in range(7):
            bus.publish(f"series-{number}")

        assert counts(account(bus)) == (7, 0, 7, 0)

    def test_every_message_is_done_in_flight_or_a_dead_letter_at_any_moment(self, bus: Bus) -> None:
        accounting = accounting_of(bus)
        bus.start().until_ready()

        for number in range(60):
            bus.publish(f"series-{number}", do="reject" if number % 10 == 0 else "ok")
            look = account(bus, accounting)
            assert look.holds, look
            assert look.sent == number + 1

        eventually(lambda: account(bus, accounting).in_flight == 0, "nothing in flight", timeout=30)
        assert counts(account(bus, accounting)) == (60, 54, 0, 6)

    def test_a_message_that_is_worked_on_is_in_flight(self, bus: Bus) -> None:
        service = bus.start().until_ready()
        done = bus.folder / "done"
        event = bus.publish(do="wait", until=str(done))

        eventually(lambda: service.journal("begin", event), "the work's begin")

        assert counts(account(bus)) == (1, 0, 1, 0)
        done.touch()
        eventually(lambda: counts(account(bus)) == (1, 1, 0, 0), "the work's end")

    def test_a_replay_is_a_message_and_answers_for_its_letter_and_other_groups_skip_it(self, bus: Bus) -> None:
        accounting = accounting_of(bus)
        bus.start().until_ready()
        events = [bus.publish(f"series-{number}", do="reject") for number in range(2)]
        eventually(lambda: account(bus, accounting).dead_letters == 2, "two dead letters")
        first, _ = accounting.letters.heads(GROUP)

        for group in (GROUP, "another"):
            again = raw_data(events[0].identifier)
            key, value, headers = encode(again)
            bus.publisher.publish_record(f"{bus.prefix}raw-data", key, value, [*headers, (ONLY_GROUP, group.encode())])

        def settled() -> bool:
            (look,) = accounting.accounts(lambda _: {first.uid})
            return counts(look) == (4, 3, 0, 1) and look.replayed == 1 and look.holds

        eventually(settled, "4 sent: a dead letter, and a replay, a skipped record and the replayed letter done")

    def test_two_letters_of_one_record_count_once_and_those_of_one_that_comes_again_not_yet(self, bus: Bus) -> None:
        service = bus.start().until_ready()
        bus.publish(do="reject")
        eventually(lambda: account(bus).dead_letters == 1, "a dead letter")
        (letter,) = bus.read(f"{GROUP}.dead-letter")
        service.stop()
        bus.publish()

        headers = list(letter["headers"].items())
        of_next = [(name, value if name != "source-offset" else b"1") for name, value in headers]
        # A consumer that is killed after it published a dead letter and before it committed the offset publishes the
        # same letter again after its restart. The test simulates this: it adds a second letter for offset 0, and a
        # letter for offset 1, which is not committed.
        for again in (headers, of_next):
            bus.publisher.publish_record(f"{bus.prefix}{GROUP}.dead-letter", letter["key"], letter["raw"], again)

        assert counts(account(bus)) == (2, 0, 1, 1)

    def test_finds_the_groups_of_the_pipeline_by_their_dead_letters(self, bus: Bus) -> None:
        bus.publish()

        found = {(each.topic, each.group): each for each in Accounting(bus.settings()).accounts()}

        assert {
            ("raw-data", "preprocess"),
            ("training-data", "eval"),
            ("model-training", "eval"),
            *(("training-data", trainer) for trainer in INSTALLED),
            ("inference-data", "inference-worker"),
        } <= set(found)
        assert counts(found["raw-data", "preprocess"]) == (1, 0, 1, 0)
        assert all(each.holds for each in found.values())


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    broker = EmbeddedBroker(tmp_path_factory.mktemp("broker"), prefixes=PREFIXES, groups=GROUP)
    yield broker
    broker.kill()


@pytest.fixture(scope="module")
def prefixes() -> Iterator[str]:
    return iter(PREFIXES)


class TestEmbeddedBroker(AccountingContract):
    @pytest.fixture
    def bus(self, tmp_path: Path, broker: EmbeddedBroker, prefixes: Iterator[str]) -> Iterator[Bus]:
        with contextlib.closing(Bus(broker.address, tmp_path, prefix=next(prefixes))) as bus:
            yield bus

    def test_letters_of_a_broker_that_is_gone_are_forgotten(self, tmp_path: Path) -> None:
        broker = EmbeddedBroker(tmp_path, groups=GROUP)
        with contextlib.closing(Bus(broker.address, tmp_path)) as bus:
            accounting = accounting_of(bus)
            service = bus.start().until_ready()
            bus.publish(do="reject")
            eventually(lambda: account(bus, accounting).dead_letters == 1, "a dead letter", timeout=20)
            service.stop()

            broker.restart()

            def is_empty() -> bool:
                try:
                    return counts(account(bus, accounting)) == (0, 0, 0, 0)
                except BackendAwayError as error:
                    raise AssertionError(error.message) from error

            eventually(is_empty, "an empty broker", timeout=30)
            assert accounting.letters.heads(GROUP) == []
        broker.kill()


real_kafka = pytest.mark.skipif(
    "FLTS_TEST_KAFKA" not in os.environ,
    reason="FLTS_TEST_KAFKA names no bootstrap servers of a real Kafka: the suite ran on the embedded broker only",
)


@real_kafka
class TestApacheKafka(AccountingContract):
    @pytest.fixture(params=["consumer", "classic"])
    def bus(self, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bus]:
        address = os.environ["FLTS_TEST_KAFKA"]
        with contextlib.closing(Bus(address, tmp_path, request.param, f"t{uuid.uuid4().hex[:12]}-")) as bus:
            bus.prepare(GROUP, "preprocess", *INSTALLED, "eval", "inference-worker")
            yield bus

    def test_says_what_retention_removed_before_it_was_read(self, bus: Bus) -> None:
        service = bus.start().until_ready()
        bus.publish("series")
        eventually(lambda: account(bus).done == 1, "the first one's end")
        service.stop()
        for _ in range(3):
            bus.publish("series")

        full = f"{bus.prefix}raw-data"
        admin = AdminClient({"bootstrap.servers": bus.address})
        everything = [TopicPartition(full, number, -1) for number in range(bus.settings().topic_partitions)]
        for answer in admin.delete_records(everything).values():
            answer.result()

        look = account(bus)
        assert counts(look) == (0, 0, 0, 0)
        assert look.lost == 3
        assert not look.holds


def accounting_of(bus: Bus) -> Accounting:
    return Accounting(bus.settings(), consumers={GROUP: (topics.RAW_DATA,)})


def account(bus: Bus, accounting: Accounting | None = None) -> Account:
    (found,) = (accounting or accounting_of(bus)).accounts()
    return found


def counts(account: Account) -> tuple[int, int, int, int]:
    return account.sent, account.done, account.in_flight, account.dead_letters
