"""How `make test` divides the tests between pytest-xdist's workers.

A file stays whole, because its tests share servers. `tests/e2e` is one unit: its files share a running pipeline and
measure memory and time, and they wait for processes while the other worker computes. It takes longest, so it is first.
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

JOURNEYS = "tests/e2e"


class WholeFilesAndJourneys(LoadFileScheduling):
    """Gives a worker a whole file, or all of `tests/e2e`, at a time."""

    def _split_scope(self, nodeid: str) -> str:
        return JOURNEYS if nodeid.startswith(f"{JOURNEYS}/") else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)  # there is none with `-p no:xdist`
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> WholeFilesAndJourneys:
    config.option.loadscopereorder = False  # else by the number of tests, which says nothing about their length
    return WholeFilesAndJourneys(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: not item.nodeid.startswith(f"{JOURNEYS}/"))
