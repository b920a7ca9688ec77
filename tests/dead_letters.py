"""Dead letters without a broker."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

from flts.contracts.events import Event
from flts.contracts.topics import topic_of
from flts.dead_letters.letters import DeadLetters, Head, Letter, head_of
from flts.errors import BackendAwayError, NotFoundError
from flts.messaging.codec import ONLY_GROUP, dead_letter_headers, encode
from flts.messaging.kafka import RawHeaders, full_name
from flts.settings import KafkaSettings


class LettersInMemory(DeadLetters):
    """Dead letters in memory; a test adds letters in the form that a service writes."""

    def __init__(self, settings: KafkaSettings) -> None:
        super().__init__(settings, "tests")
        self._full = lambda name: full_name(settings, name)
        self.kept: dict[str, list[Letter]] = {}
        self.away = False

    def give_up(
        self,
        group: str,
        event: Event,
        code: str = "hash_mismatch",
        *,
        value: bytes | None = None,
        headers: RawHeaders = (),  # type: ignore[assignment] # only read, so a tuple is enough
        offset: int | None = None,
    ) -> Letter:
        """Add the dead letter of an event; ``value`` replaces the event's bytes."""
        key, encoded, own = encode(event)
        return self.add(
            group,
            self._full(topic_of(event).name),
            key,
            encoded if value is None else value,
            [*own, *headers, (ONLY_GROUP, b"earlier")],
            code,
            offset=offset,
        )

    def add(  # noqa: PLR0917 - the parts of a Kafka record
        self,
        group: str,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: RawHeaders,
        code: str,
        *,
        offset: int | None = None,
    ) -> Letter:
        """Add a letter."""
        letters = self.kept.setdefault(group, [])
        number = len(letters)
        reasons = {
            "source-topic": topic,
            "source-partition": "2",
            "source-offset": str(number if offset is None else offset),
            "attempts": "1",
            "error_code": code,
            "error": f"because of {code}",
            "traceback": "Traceback: here",
        }
        letter = Letter(
            group=group,
            partition=2,
            offset=number,
            at=datetime(2026, 1, 1, 12, 0, number, tzinfo=UTC),
            key=key,
            value=value,
            headers=dead_letter_headers(headers, reasons, limit_bytes=2**21),
        )
        letters.append(letter)
        return letter

    def groups(self) -> list[str]:
        self._look()
        return sorted(self.kept)

    def heads(self, group: str) -> list[Head]:
        self._look()
        if group not in self.kept:
            msg = f"{group} is not a group with dead letters"
            raise NotFoundError(msg, code="unknown_group", field="group")
        return [head_of(letter) for letter in self.kept[group]]

    def read_many(self, group: str, letter_ids: Collection[str]) -> dict[str, Letter]:
        self._look()
        return {letter.id: letter for letter in self.kept[group] if letter.id in letter_ids}

    def _look(self) -> None:
        if self.away:
            msg = "the brokers do not answer"
            raise BackendAwayError(msg, code="kafka_away")
