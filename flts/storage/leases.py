"""Leases: a record that lets one replica at a time do some work, with owner and expiry."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from flts.storage import layout
from flts.storage.records import Record, Records


class Leases:
    """Takes leases and gives them back.

    Clocks of different machines are assumed to agree to within a fraction of a lease's time.

    Parameters
    ----------
    records : Records
        Of the bucket of runs.
    clock : callable
        Epoch seconds.
    """

    def __init__(self, records: Records, clock: Callable[[], float]) -> None:
        self._records = records
        self._clock = clock

    def acquire(self, name: str, owner: str, seconds: float) -> bool:
        """Take or renew a lease; return whether the owner has it for the next ``seconds``."""
        now = self._clock()

        def change(stored: Record | None) -> Record | None:
            if stored is not None and stored.get("owner") != owner and float(stored.get("until", 0)) > now:
                return None
            # The nonce makes each lease's bytes, and thereby its etag, unique.
            return {"owner": owner, "until": now + seconds, "nonce": uuid.uuid4().hex}

        return self._records.change(layout.LEASE(name), change, tries=1)

    def release(self, name: str, owner: str) -> None:
        """Give a lease back, if the owner still has it."""

        def change(stored: Record | None) -> Record | None:
            if stored is None or stored.get("owner") != owner:
                return None
            return {"owner": owner, "until": 0, "nonce": uuid.uuid4().hex}

        self._records.change(layout.LEASE(name), change, tries=1)
