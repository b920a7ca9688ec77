"""Finds partitions that a Kafka client has stopped reading although they have records.

After a broker has lost and regained its partitions, librdkafka can treat a partition as leaderless until the client is
replaced.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

STUCK_SECONDS = 30.0
STUCK_POLLS = 20
"""A partition with unread records is stuck if its offset has not moved for 30 s and 20 polls have returned nothing."""

Place = tuple[str, int]
"""Topic and partition."""


@dataclass(frozen=True, slots=True)
class _Still:
    offset: int
    since: float
    empty_polls: int


class Standstills:
    """Detects partitions whose offset no longer moves."""

    def __init__(self) -> None:
        self._empty_polls = 0
        self._still: dict[Place, _Still] = {}

    def nothing_came(self) -> None:
        """Count a poll that returned nothing while the partitions were not paused."""
        self._empty_polls += 1

    def forget(self) -> None:
        """Discard all observations, because the brokers were away or the client was replaced."""
        self._still.clear()

    def stands_still(self, place: Place, offset: int, end: int) -> bool:
        """Record a partition's offset and end offset; return whether the client has stopped reading it."""
        known = self._still.get(place)
        if offset >= end:
            self._still.pop(place, None)
        elif known is None or known.offset != offset:
            self._still[place] = _Still(offset, time.monotonic(), self._empty_polls)
        else:
            waited = time.monotonic() - known.since >= STUCK_SECONDS
            return waited and self._empty_polls - known.empty_polls >= STUCK_POLLS
        return False
