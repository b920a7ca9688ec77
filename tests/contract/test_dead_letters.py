"""Dead letters of every kind of poison, and their replay: one suite for the embedded broker and for a real Kafka."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from flts.dead_letters.letters import DeadLetters, Letter
from flts.errors import NotFoundError
from flts.messaging.codec import REPLAY_OF, header
from flts.messaging.kafka import MAX_DEAD_LETTER_BYTES, RawHeaders
from tests.brokers import Bus, EmbeddedBroker, raw_data
from tests.dead_letter_desk import GROUP, Desk
from tests.eventually import eventually
from tests.poison import CODES, UNREADABLE, poison

OTHER = "other"
PREFIXES = [f"d{number}-" for number in range(8)]


class DeadLetterContract:
    def test_every_kind_of_unreadable_message_is_kept_whole_with_its_reason(self, bus: Bus) -> None:
        desk = Desk(bus)
        service = bus.start().until_ready()
        made = {kind: poison(kind, raw_data()) for kind in UNREADABLE}

        for each in made.values():
            each.publish(bus.publisher, bus.prefix)
        good = bus.publish()

        eventually(lambda: service.journal("end", good), "the good message behind them", timeout=30)
        letters = {}
        for head in desk.letters.heads(GROUP):
            letter = desk.letters.read(GROUP, head.id)
            (kind,) = (name for name, each in made.items() if (each.value, each.headers) == as_it_was(letter))
            letters[kind] = (head, letter)
        assert set(letters) == set(UNREADABLE)
        for kind, (head, letter) in letters.items():
            each = made[kind]
            assert (head.error_code, head.attempts) == (CODES[kind], 0)
            assert letter.key == each.key
            assert head.source[0] == f"{bus.prefix}raw-data"
        assert (desk.account().done, desk.account().dead_letters) == (1, len(UNREADABLE))

    def test_the_largest_message_that_a_broker_takes_fits_into_a_letter(self, bus: Bus) -> None:
        desk = Desk(bus)
        bus.start().until_ready()
        largest = b"{" + b"x" * 1_048_400

        bus.publisher.publish_record(f"{bus.prefix}raw-data", b"key", largest, [("event", b"raw-claim")])

        (head,) = eventually(lambda: desk.letters.heads(GROUP), "the letter", timeout=20)
        letter = desk.letters.read(GROUP, head.id)
        assert letter.value == largest
        assert header(letter.headers, "error_code") == "not_json"
        assert len(largest) < MAX_DEAD_LETTER_BYTES

    def test_what_was_mended_is_replayed_to_the_last_one_and_none_twice(self, bus: Bus) -> None:
        desk = Desk(bus)
        service = bus.start(FAILURE_MAX_RETRIES="1").until_ready()
        broken = [bus.publish(f"series-{number}", do="fail", times=1) for number in range(20)]
        sound = [bus.publish(f"series-{number}") for number in range(20)]
        eventually(lambda: desk.account().dead_letters == 20, "20 dead letters", timeout=30)
        eventually(lambda: desk.account().in_flight == 0, "nothing in flight")

        report = desk.replay()  # each replay succeeds, because times=1 makes the handler fail only once
        again = desk.replay()

        assert Counter(result.outcome for result in report.results) == {"replayed": 20}
        assert Counter(result.outcome for result in again.results) == {"already_replayed": 20}
        eventually(lambda: desk.account().in_flight == 0, "nothing in flight", timeout=30)
        ended = Counter(line["event_id"] for line in service.journal("end"))
        assert ended == Counter(event.event_id for event in broken + sound)
        # When the service gives up a record, it publishes the decision "refused". When the replay succeeds, it
        # publishes "kept" with the same event id. So the test counts only "kept".
        values = [record["value"] for record in bus.read("model-selected")]
        told = Counter(value["event_id"] for value in values if value["decision"] == "kept")
        assert len(told) == 40
        assert set(told.values()) == {1}
        account = desk.account()
        assert (account.sent, account.done, account.dead_letters, account.replayed) == (60, 60, 0, 20)
        assert len(desk.letters.heads(GROUP)) == 20

    def test_a_replay_that_fails_again_is_a_letter_of_its_own_that_says_which_it_was(self, bus: Bus) -> None:
        desk = Desk(bus)
        bus.start().until_ready()
        bus.publish(do="reject")
        (first,) = eventually(lambda: desk.letters.heads(GROUP), "a letter", timeout=20)

        desk.replay()

        second = eventually(
            lambda: [head for head in desk.letters.heads(GROUP) if head.id != first.id], "a second letter", timeout=20
        )[0]
        assert header(desk.letters.read(GROUP, second.id).headers, REPLAY_OF) == first.id
        eventually(lambda: desk.account().in_flight == 0, "nothing in flight")
        account = desk.account()
        assert (account.sent, account.done, account.dead_letters, account.replayed) == (2, 1, 1, 1)

    def test_only_the_group_that_gave_it_up_reads_a_replay(self, bus: Bus) -> None:
        desk = Desk(bus)
        mine, other = bus.start(FAILURE_MAX_RETRIES="1").until_ready(), bus.start(OTHER).until_ready()
        event = bus.publish(do="fail", times=1)
        eventually(lambda: desk.letters.heads(GROUP), "a letter", timeout=20)
        eventually(lambda: other.journal("end", event), "the other group's end", timeout=20)

        desk.replay()
        after = bus.publish()

        eventually(lambda: mine.journal("end", event), "the replay's end", timeout=20)
        eventually(lambda: other.journal("end", after), "the next one's end", timeout=20)
        # `other` made two attempts at the first delivery and none at the replay.
        assert len(other.journal("begin", event)) == 2
        assert other.metric('flts_messages_total{outcome="skipped",topic="raw-data"}') == 1

    def test_an_unknown_group_is_named(self, bus: Bus) -> None:
        with pytest.raises(NotFoundError):
            DeadLetters(bus.settings(), "tests").heads("nobody")


def as_it_was(letter: Letter) -> tuple[bytes | None, RawHeaders]:
    return letter.value, letter.original_headers()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    broker = EmbeddedBroker(tmp_path_factory.mktemp("broker"), prefixes=PREFIXES, groups=f"{GROUP},{OTHER}")
    yield broker
    broker.kill()


@pytest.fixture(scope="module")
def prefixes() -> Iterator[str]:
    return iter(PREFIXES)


class TestEmbeddedBroker(DeadLetterContract):
    @pytest.fixture
    def bus(self, tmp_path: Path, broker: EmbeddedBroker, prefixes: Iterator[str]) -> Iterator[Bus]:
        with contextlib.closing(Bus(broker.address, tmp_path, prefix=next(prefixes))) as bus:
            yield bus


@pytest.mark.skipif(
    "FLTS_TEST_KAFKA" not in os.environ,
    reason="FLTS_TEST_KAFKA names no bootstrap servers of a real Kafka: the suite ran on the embedded broker only",
)
class TestApacheKafka(DeadLetterContract):
    @pytest.fixture(params=["consumer", "classic"])
    def bus(self, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bus]:
        address = os.environ["FLTS_TEST_KAFKA"]
        with contextlib.closing(Bus(address, tmp_path, request.param, f"t{uuid.uuid4().hex[:12]}-")) as bus:
            bus.prepare(GROUP, OTHER)
            yield bus
