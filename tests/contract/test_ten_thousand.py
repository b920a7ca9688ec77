"""Ten thousand messages through one group, with killed members, repeated messages and poison; then a replay."""

from __future__ import annotations

import contextlib
import os
import random
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from flts.contracts import ids
from flts.contracts.events import RawData
from flts.messaging.codec import encode
from flts.messaging.kafka import RawHeaders
from flts.storage.claims import put_claimed
from flts.storage.connect import open_store
from flts.storage.ports import ObjectStore
from tests import fixed_reader
from tests.brokers import Bus, EmbeddedBroker, RunningService, raw_data
from tests.bus_service import EFFECTS
from tests.dead_letter_desk import GROUP, Desk
from tests.eventually import eventually
from tests.poison import CODES, Poison, poison
from tests.reports import report
from tests.stores import folder_settings

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

MESSAGES, TWICE, POISON = 10_000, 300, 500
MEMBERS, KILLS = 3, 7
SERIES = 200
HEADER_BYTES = 20 * 1024
"""Bytes; more than a consumer accepts, and few enough for the embedded broker to keep every record."""
AGAIN = 300
"""Largest number of redelivered messages: a killed member has one in work, and a commit may be on its way."""
TAKEN_SECONDS = 420
"""Seconds; in the newer protocol a real broker removes each killed member only after 45 s."""


@dataclass
class Crowd:
    """The messages to publish, and the members that consume them."""

    bus: Bus
    chance: random.Random
    store: ObjectStore = field(init=False)
    good: list[RawData] = field(init=False)
    poison: list[Poison] = field(init=False)
    members: list[RunningService] = field(default_factory=list)
    kills: int = 0

    def __post_init__(self) -> None:
        self.store = open_store(folder_settings(self.bus.folder / "store"), self.bus.prefix)
        for bucket in ("raw-data", "processed-data"):
            self.store.ensure_bucket(bucket)
        self.claim = put_claimed(self.store, "raw-data", "crowd/train.csv", b"time,down\n0,1\n")
        self.good = [self._event(number) for number in range(MESSAGES)]
        kinds = list(CODES)
        self.poison = [
            poison(kinds[number % len(kinds)], self._event(number), self.store, header_bytes=HEADER_BYTES)
            for number in range(POISON)
        ]

    def publish(self) -> int:
        """Publish all messages in one random order; return the number of records."""
        again = self.chance.sample(self.good, TWICE)
        records: list[tuple[bytes, bytes, RawHeaders]] = []
        for event in (*self.good, *again):
            key, value, headers = encode(event)
            records.append((key, value, list(headers)))
        records += [(each.key, each.value, each.headers) for each in self.poison]
        self.chance.shuffle(records)
        topic = f"{self.bus.prefix}raw-data"
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda record: self.bus.publisher.publish_record(topic, *record), records))
        return len(records)

    def join(self, **environment: str) -> None:
        # 5 retries, because an attempt that a kill ended counts as a retry.
        more = {"LOG_LEVEL": "WARNING", "FAILURE_MAX_RETRIES": "5"}
        self.members.append(self.bus.start(GROUP, **more, **environment))

    def kill_one(self, **environment: str) -> None:
        """Kill a random member at a random moment, and start a new one."""
        time.sleep(self.chance.uniform(0, 0.2))
        self.members.pop(self.chance.randrange(len(self.members))).kill()
        self.kills += 1
        self.join(**environment)

    def part_in_peace(self) -> None:
        for member in self.members:
            assert member.stop() == 0
        self.members.clear()

    def ended(self) -> int:
        """Return how often the handler finished, over all members, including the killed ones."""
        return sum(each.journal_path.read_bytes().count(b'"what": "end"') for each in self.bus.services)

    def lines(self, what: str) -> Counter[str]:
        """Return how often each event reached this step."""
        return Counter(line["event_id"] for each in self.bus.services for line in each.journal(what))

    def effects(self) -> set[str]:
        return {info.key.removeprefix(EFFECTS) for info in self.store.list("processed-data", EFFECTS)}

    def results(self) -> Counter[str]:
        values = [record["value"] for record in self.bus.read("model-selected")]
        return Counter(value["event_id"] for value in values if value["decision"] == "kept")

    def _event(self, number: int) -> RawData:
        return raw_data(f"series-{number % SERIES}", {"do": "take"}).model_copy(update={"train": self.claim})


class TenThousandContract:
    def test_none_is_lost_none_counts_twice_and_all_poison_is_replayed_once_it_can_be_read(self, bus: Bus) -> None:
        desk, crowd = Desk(bus), Crowd(bus, random.Random(20_260_101))
        for _ in range(MEMBERS):
            crowd.join()
        for member in crowd.members:
            member.until_ready(60)

        began = time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            publishing = pool.submit(crowd.publish)
            kill_members_on_the_way(crowd, desk)
            sent = publishing.result()
        settle(desk, sent, TAKEN_SECONDS)
        seconds = time.monotonic() - began

        good = {event.event_id for event in crowd.good}
        redelivered = crowd.lines("begin")
        assert crowd.effects() == good
        assert crowd.lines("effect").most_common(1)[0][1] == 1
        results = crowd.results()
        assert set(results) == {ids.derived_event_id(event_id, "selected") for event_id in good}
        letters = letters_by_kind(desk, crowd.poison)
        assert {kind: set(codes) for kind, codes in letters.items()} == {kind: {CODES[kind]} for kind in CODES}
        account = desk.account()
        assert (account.sent, account.done, account.dead_letters) == (sent, sent - POISON, POISON)

        crowd.part_in_peace()
        mended = {"BUS_FIXED_READER": str(mend(crowd))}
        for _ in range(MEMBERS):
            crowd.join(**mended)
        outcomes = replay_all(desk)
        crowd.kill_one(**mended)
        settle(desk, sent + POISON, 120)

        assert outcomes["replayed"] == POISON
        assert crowd.effects() == good | {each.event.event_id for each in crowd.poison}
        effects = crowd.lines("effect")
        assert effects.most_common(1)[0][1] == 1
        account = desk.account()
        assert (account.sent, account.done) == (sent + POISON, sent + POISON)
        assert (account.dead_letters, account.replayed, account.lost) == (0, POISON, 0)
        assert Counter(result.outcome for result in desk.replay().results)["replayed"] == 0
        figures: dict[str, Any] = {
            "broker": type(self).__name__.removeprefix("Test"),
            "protocol": bus.protocol,
            "records": sent,
            "seconds": seconds,
            "a second": sent / seconds,
            "kills": crowd.kills,
            "redelivered": sum(redelivered.values()) - len(redelivered) - TWICE,
            "results sent again": sum(results.values()) - len(results) - TWICE,
            "lost": len(good - crowd.effects()),
            "doubled effects": sum(effects.values()) - len(effects),
            "letters": sum(sum(codes.values()) for codes in letters.values()),
            "replayed": outcomes["replayed"],
        }
        reasons = Counter[str]()
        for codes in letters.values():
            reasons.update(codes)
        name = f"ten thousand messages, {figures['broker']}, {bus.protocol}"
        report(name, [figures])
        report(f"{name}: letters by reason", [dict(reasons)])
        assert crowd.kills == KILLS + 1
        # While a group of the classic protocol rebalances, the embedded broker refuses commits. It then delivers more
        # records that were already processed, so the limit AGAIN does not apply.
        assert figures["redelivered"] <= AGAIN or (figures["broker"], bus.protocol) == ("EmbeddedBroker", "classic")


def kill_members_on_the_way(crowd: Crowd, desk: Desk) -> None:
    """Kill a member at each of several random shares of the work; the sum of the account holds all the time."""
    shares = sorted(crowd.chance.uniform(0.05, 0.9) for _ in range(KILLS))
    for share in shares:

        def is_reached(share: float = share) -> bool:
            look = desk.look()
            if not look.holds or look.dead_letters > POISON:
                pytest.fail(f"at {crowd.ended()} ends: {look}")  # fails at once, because a wrong sum stays wrong
            return crowd.ended() >= share * MESSAGES

        eventually(is_reached, f"{share:.0%} of the work", timeout=TAKEN_SECONDS, every=0.2)
        crowd.kill_one()


def settle(desk: Desk, sent: int, timeout: float) -> None:
    def settled() -> bool:
        account = desk.account()
        assert account.sent == sent, account
        assert account.in_flight == 0, account
        return True

    eventually(settled, "nothing in flight", timeout=timeout, every=0.5)


def letters_by_kind(desk: Desk, made: Sequence[Poison]) -> dict[str, Counter[str]]:
    """Return the error codes of each kind's dead letters; assert that all poison, and only poison, has letters."""
    known = {fixed_reader.digest(each.value, each.headers): each for each in made}
    assert len(known) == len(made)
    letters = desk.letters.read_many(GROUP, [head.id for head in desk.letters.heads(GROUP)])
    codes: dict[str, Counter[str]] = {}
    found = set()
    for head in desk.letters.heads(GROUP):
        letter = letters[head.id]
        digest = fixed_reader.digest(letter.value, letter.original_headers())
        assert digest in known, f"{head.error_code}: {head.error}"
        found.add(digest)
        codes.setdefault(known[digest].kind, Counter())[head.error_code] += 1
    assert found == set(known)
    return codes


def mend(crowd: Crowd) -> Path:
    """Store the right objects and write all events for the repaired decoder; return the decoder's folder."""
    folder = crowd.bus.folder / "known"
    for each in crowd.poison:
        each.mend(crowd.store)
        fixed_reader.teach(folder, each)
    return folder


def replay_all(desk: Desk) -> Counter[str]:
    outcomes = Counter[str]()
    for _ in range(10):  # one call replays for a limited time, so several calls are needed
        answer = desk.replay(rate=500)
        outcomes.update(result.outcome for result in answer.results)
        if not answer.remaining:
            return outcomes
    msg = f"ten calls were not enough: {outcomes}"
    raise AssertionError(msg)


class TestEmbeddedBroker(TenThousandContract):
    @pytest.fixture(params=["consumer", "classic"])
    def bus(self, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bus]:
        broker = EmbeddedBroker(tmp_path, groups=GROUP)
        try:
            with contextlib.closing(Bus(broker.address, tmp_path, request.param)) as bus:
                yield bus
        finally:
            broker.kill()


@pytest.mark.skipif(
    "FLTS_TEST_KAFKA" not in os.environ,
    reason="FLTS_TEST_KAFKA names no bootstrap servers of a real Kafka: the suite ran on the embedded broker only",
)
class TestApacheKafka(TenThousandContract):
    @pytest.fixture(params=["consumer", "classic"])
    def bus(self, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bus]:
        address = os.environ["FLTS_TEST_KAFKA"]
        with contextlib.closing(Bus(address, tmp_path, request.param, f"t{uuid.uuid4().hex[:12]}-")) as bus:
            bus.prepare(GROUP)
            yield bus
