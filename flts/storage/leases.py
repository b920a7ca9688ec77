"""Leases: records with an owner and an expiry, which let only one replica at a time do some work."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from flts.storage import layout
from flts.storage.records import Record, Records


class Leases:
    """Acquires and releases leases.

    The clocks of the machines must differ by much less than the duration of a lease.

    Parameters
    ----------
    records : Records
        The records of the bucket of runs.
    clock : callable
        Returns epoch seconds.
    """

    def __init__(self, records: Records, clock: Callable[[], float]) -> None:
        self._records = records
        self._clock = clock

    def acquire(self, name: str, owner: str, seconds: float) -> bool:
        """Acquire or renew a lease; return whether the owner has it for the next ``seconds``."""
        now = self._clock()

        def change(stored: Record | None) -> Record | None:
            if stored is not None and stored.get("owner") != owner and float(stored.get("until", 0)) > now:
                return None
            # The nonce makes the bytes, and so the etag, of each record unique. Otherwise a conditional write could
            # succeed on a record that another process had removed and written again with equal bytes.
            return {"owner": owner, "until": now + seconds, "nonce": uuid.uuid4().hex}

        return self._records.change(layout.LEASE(name), change, tries=1)

    def release(self, name: str, owner: str) -> None:
        """Release a lease, if the owner still has it."""

        def change(stored: Record | None) -> Record | None:
            if stored is None or stored.get("owner") != owner:
                return None
            return {"owner": owner, "until": 0, "nonce": uuid.uuid4().hex}

        self._records.change(layout.LEASE(name), change, tries=1)
