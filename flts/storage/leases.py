"""Leases: work that one replica at a time may do, held as a record that says by whom and until when."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from flts.storage import layout

if TYPE_CHECKING:
    from flts.storage.records import Record, Records


def acquire(records: Records, name: str, owner: str, seconds: float, *, now: float) -> bool:
    """Take or renew a lease; return whether the owner has it for the next ``seconds``.

    Clocks of different machines are assumed to agree to within a fraction of ``seconds``.

    Parameters
    ----------
    now : float
        Epoch seconds.
    """

    def change(stored: Record | None) -> Record | None:
        if stored is not None and stored.get("owner") != owner and float(stored.get("until", 0)) > now:
            return None
        # The nonce gives each lease bytes, and so an etag, of its own.
        return {"owner": owner, "until": now + seconds, "nonce": uuid.uuid4().hex}

    return records.change(layout.LEASE(name), change, tries=1)


def release(records: Records, name: str, owner: str) -> None:
    """Give a lease back, if the owner still has it."""

    def change(stored: Record | None) -> Record | None:
        if stored is None or stored.get("owner") != owner:
            return None
        return {"owner": owner, "until": 0, "nonce": uuid.uuid4().hex}

    records.change(layout.LEASE(name), change, tries=1)
