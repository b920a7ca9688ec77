"""Find partitions that a client no longer reads although they have records.

After a broker lost and regained its partitions, librdkafka can treat a partition as without a leader for as long as the
client exists.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

STUCK_SECONDS = 30.0
STUCK_POLLS = 20
"""A partition with messages of which none comes, for so long and in so many looks that found nothing else either."""

Place = tuple[str, int]
"""Topic and partition."""


@dataclass(frozen=True, slots=True)
class _Still:
    offset: int
    since: float
    empty_polls: int


class Standstills:
    """Watches how far each partition is read."""

    def __init__(self) -> None:
        self._empty_polls = 0
        self._still: dict[Place, _Still] = {}

    def nothing_came(self) -> None:
        """Count a poll that found nothing, of a client that has not paused its partitions."""
        self._empty_polls += 1

    def forget(self) -> None:
        """Begin anew: the brokers were away, or the client is another one."""
        self._still.clear()

    def stands_still(self, place: Place, offset: int, end: int) -> bool:
        """Note how far a partition is read, and where it ends; return whether its client has stopped reading it."""
        known = self._still.get(place)
        if offset >= end:
            self._still.pop(place, None)
        elif known is None or known.offset != offset:
            self._still[place] = _Still(offset, time.monotonic(), self._empty_polls)
        else:
            waited = time.monotonic() - known.since >= STUCK_SECONDS
            return waited and self._empty_polls - known.empty_polls >= STUCK_POLLS
        return False
