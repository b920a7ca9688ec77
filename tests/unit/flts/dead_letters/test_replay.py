from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flts.contracts.events import Event
from flts.dead_letters.replay import BATCH_SECONDS, KEEP_SECONDS, Replayer, ReplayMarks, Report
from flts.errors import BackendAwayError, ConflictError, NotFoundError, RejectedError, RetryableError
from flts.messaging.codec import ONLY_GROUP, REPLAY_OF, header
from flts.messaging.kafka import RawHeaders
from flts.settings import KafkaSettings
from flts.storage.run_store import RunStore
from tests.brokers import raw_data
from tests.dead_letters import LettersInMemory
from tests.stores import folder_settings, folder_store

GROUP = "preprocess"
Published = tuple[str, bytes | None, bytes | None, RawHeaders]


class Desk:
    """A replayer on a store in a folder, with a clock that advances only when the replayer sleeps."""

    def __init__(self, folder: Path, *, prefix: str = "") -> None:
        self.settings = KafkaSettings(kafka_bootstrap_servers="nowhere:9092", namespace_prefix=prefix)
        self.letters = LettersInMemory(self.settings)
        self.store = folder_store(folder)
        self.run_store = RunStore(self.store, folder_settings(folder))
        self.marks = ReplayMarks(self.store, "pipeline-runs")
        self.published: list[Published] = []
        self.publish_fails: Exception | None = None
        self.refuse: Callable[[str, Event], str | None] = lambda _group, _event: None
        self.now = 1_000.0
        self.replayer = self.another()

    def another(self) -> Replayer:
        return Replayer(
            self.settings,
            self.letters,
            self.marks,
            leases=self.run_store.leases,
            publish=self._publish,
            check=lambda *asked: self.refuse(*asked),  # noqa: PLW0108 - tests replace `refuse` later
            clock=lambda: self.now,
            sleep=self._sleep,
        )

    def replay(self, *ids: str, rate: float = 50, **more: Any) -> Report:
        chosen = ids or tuple(head.id for head in self.letters.heads(GROUP))
        return self.replayer.replay(GROUP, chosen, rate=rate, record={"by": "ada", "reason": "mended"}, **more)

    def _publish(self, topic: str, key: bytes | None, value: bytes | None, headers: RawHeaders) -> None:
        if self.publish_fails is not None:
            raise self.publish_fails
        self.published.append((topic, key, value, headers))

    def _sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def outcomes(report: Report) -> list[str]:
    return [result.outcome for result in report.results]


def test_a_letter_goes_back_as_it_was_for_its_group_alone(tmp_path: Path) -> None:
    desk = Desk(tmp_path, prefix="x-")
    event = raw_data()
    letter = desk.letters.give_up(GROUP, event, headers=[("traceparent", b"00-abc"), ("mine", b"\x00\xff")])

    report = desk.replay()

    assert outcomes(report) == ["replayed"]
    ((topic, key, value, headers),) = desk.published
    assert (topic, key, value) == ("x-raw-data", letter.key, letter.value)
    assert dict(headers) == {
        "event": b"raw-claim",
        "content-type": b"application/json",
        "traceparent": b"00-abc",
        "mine": b"\x00\xff",
        ONLY_GROUP: GROUP.encode(),
        REPLAY_OF: b"2-0",
    }


def test_the_same_replay_again_sends_nothing_unless_asked(desk: Desk) -> None:
    for _ in range(3):
        desk.letters.give_up(GROUP, raw_data())
    desk.replay("2-1")

    assert outcomes(desk.replay()) == ["replayed", "already_replayed", "replayed"]
    assert outcomes(desk.replay()) == ["already_replayed"] * 3
    assert len(desk.published) == 3

    assert outcomes(desk.replay("2-1", again=True)) == ["replayed"]
    assert len(desk.published) == 4


def test_two_letters_of_one_record_are_sent_once(desk: Desk) -> None:
    event = raw_data()
    desk.letters.give_up(GROUP, event, offset=7)
    desk.letters.give_up(GROUP, event, offset=7)

    assert outcomes(desk.replay()) == ["replayed", "same_record"]
    assert outcomes(desk.replay()) == ["already_replayed", "already_replayed"]
    assert len(desk.published) == 1


def test_a_mark_says_who_and_why_and_hides_no_letter_of_another_broker(desk: Desk) -> None:
    desk.letters.give_up(GROUP, raw_data())
    desk.replay()
    (head,) = desk.letters.heads(GROUP)
    mark = desk.marks.read(GROUP, head.uid)
    assert mark is not None
    assert (mark["by"], mark["reason"], mark["letter"]) == ("ada", "mended", "2-0")

    # A restart of the embedded broker loses all records, so a new letter gets the offset of the replayed letter. The
    # old mark must not hide the new letter.
    desk.letters.kept[GROUP].clear()
    desk.letters.give_up(GROUP, raw_data())

    assert outcomes(desk.replay()) == ["replayed"]


def test_a_crash_between_message_and_mark_costs_a_repeat_and_no_letter(desk: Desk) -> None:
    desk.letters.give_up(GROUP, raw_data())
    mark, desk.marks.mark = desk.marks.mark, crash  # type: ignore[method-assign] # crash before the mark
    with pytest.raises(KeyboardInterrupt):
        desk.replay()

    desk.marks.mark = mark  # type: ignore[method-assign]
    assert outcomes(desk.replay()) == ["replayed"]

    first, second = desk.published
    assert first == second  # the same event_id: a consumer that reads both does the work once


def test_a_broker_that_is_away_leaves_the_letter_unmarked(desk: Desk) -> None:
    desk.letters.give_up(GROUP, raw_data())
    desk.publish_fails = BackendAwayError("no acknowledgement")
    with pytest.raises(BackendAwayError):
        desk.replay()

    desk.publish_fails = None
    assert outcomes(desk.replay()) == ["replayed"]


def test_letters_are_sent_at_the_rate_and_what_one_call_has_no_time_for_is_named(desk: Desk) -> None:
    for _ in range(30):
        desk.letters.give_up(GROUP, raw_data())

    report = desk.replay(rate=2)

    sent = outcomes(report).count("replayed")
    assert sent == BATCH_SECONDS * 2 + 1
    assert desk.now == 1_000 + BATCH_SECONDS
    assert list(report.remaining) == [f"2-{number}" for number in range(sent, 30)]


def test_what_the_check_refuses_is_sent_only_by_force(desk: Desk) -> None:
    def refuse(_group: str, _event: Event) -> str | None:
        msg = "the run has ended"
        raise ConflictError(msg, code="run_ended")

    desk.refuse = refuse
    desk.letters.give_up(GROUP, raw_data())

    (result,) = desk.replay().results
    assert (result.outcome, result.code, result.message) == ("refused", "run_ended", "the run has ended")
    assert not desk.published

    (result,) = desk.replay(force=True).results
    assert (result.outcome, result.message) == ("replayed", "sent although the run has ended")


def test_what_cannot_be_read_here_is_sent_with_a_word_about_it(desk: Desk) -> None:
    desk.letters.give_up(GROUP, raw_data(), "not_json", value=b'{"v": 1, "even')

    (result,) = desk.replay().results

    assert result.outcome == "replayed"
    assert "cannot be read here either" in (result.message or "")
    assert desk.published[0][2] == b'{"v": 1, "even'


def test_a_letter_that_names_no_topic_of_the_pipeline_is_refused(desk: Desk) -> None:
    desk.letters.add(GROUP, "elsewhere", b"key", b"{}", [], "not_json")

    (result,) = desk.replay().results

    assert (result.outcome, result.code) == ("refused", "no_source_topic")


def test_a_record_that_the_broker_does_not_take_is_refused_and_the_others_go_on(desk: Desk) -> None:
    desk.letters.give_up(GROUP, raw_data())
    desk.publish_fails = RejectedError("too large", code="record_too_large")

    (result,) = desk.replay().results

    assert (result.outcome, result.code) == ("refused", "record_too_large")


def test_an_unknown_letter_is_named_and_nothing_is_sent(desk: Desk) -> None:
    desk.letters.give_up(GROUP, raw_data())

    with pytest.raises(NotFoundError) as error:
        desk.replay("2-0", "2-7")

    assert "2-7" in error.value.message
    assert not desk.published


def test_two_gateways_do_not_replay_a_group_at_the_same_time(desk: Desk) -> None:
    desk.letters.give_up(GROUP, raw_data())
    begun, go_on = threading.Event(), threading.Event()

    def slow(_group: str, _event: Event) -> str | None:
        begun.set()
        go_on.wait(10)
        return None

    desk.refuse = slow
    first = threading.Thread(target=desk.replay)
    first.start()
    begun.wait(10)
    for other in (desk.replayer, desk.another()):
        with pytest.raises(RetryableError) as error:
            other.replay(GROUP, ["2-0"], rate=50, record={})
        assert error.value.code == "replay_running"
    go_on.set()
    first.join()

    assert len(desk.published) == 1
    # "replay_running" would mean that the first replay still holds its lease.
    assert outcomes(desk.replay()) == ["already_replayed"]


def test_marks_are_forgotten_when_the_brokers_have_removed_the_letters(desk: Desk) -> None:
    desk.letters.give_up(GROUP, raw_data())
    desk.replay()
    assert desk.marks.forget_old() == 0

    (info,) = desk.store.list("pipeline-runs", "_dead-letters/")
    later = ReplayMarks(desk.store, "pipeline-runs", now=lambda: info.modified + KEEP_SECONDS + 1)

    assert later.forget_old() == 1
    assert desk.marks.replayed(GROUP) == frozenset()


def test_a_replayed_letter_that_dies_again_keeps_saying_which_it_was(desk: Desk) -> None:
    event = raw_data()
    letter = desk.letters.give_up(GROUP, event, headers=[(REPLAY_OF, b"2-9")])

    assert header(letter.headers, REPLAY_OF) == "2-9"
    desk.replay()
    assert [value for name, value in desk.published[0][3] if name == REPLAY_OF] == [b"2-0"]


def crash(*_: object) -> bool:
    raise KeyboardInterrupt
