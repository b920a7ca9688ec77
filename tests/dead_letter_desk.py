"""The gateway's operations on dead letters, without a gateway."""

from __future__ import annotations

from typing import Any

from flts.contracts import topics
from flts.dead_letters.accounting import Account, Accounting
from flts.dead_letters.letters import DeadLetters
from flts.dead_letters.replay import Replayer, ReplayMarks, Report
from flts.storage.run_store import RunStore
from tests.brokers import Bus
from tests.stores import folder_settings, folder_store

GROUP = "bus"


class Desk:
    """Lists, counts and replays the dead letters of a group."""

    def __init__(self, bus: Bus) -> None:
        self.letters = DeadLetters(bus.settings(), "tests")
        folder = bus.folder / "desk"
        store = folder_store(folder)
        self.marks = ReplayMarks(store, "pipeline-runs")
        self.accounting = Accounting(bus.settings(), consumers={GROUP: (topics.RAW_DATA,)}, letters=self.letters)
        self._replayer = Replayer(
            bus.settings(),
            self.letters,
            self.marks,
            leases=RunStore(store, folder_settings(folder)).leases,
            publish=bus.publisher.publish_record,
            check=lambda _group, _event: None,
        )

    def replay(self, group: str = GROUP, *, rate: float = 200, **more: Any) -> Report:
        ids = [head.id for head in self.letters.heads(group)]
        return self._replayer.replay(group, ids, rate=rate, record={}, **more)

    def look(self) -> Account:
        (found,) = self.accounting.accounts(self.marks.replayed)
        return found

    def account(self) -> Account:
        """Return the account, and assert that its sum holds."""
        found = self.look()
        assert found.holds, found
        return found
