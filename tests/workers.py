"""How `make test` divides the tests between pytest-xdist's workers.

A file stays whole, because its tests share servers. The files of `tests/e2e` are two units, and they come first because
they take longest: one unit shares the session's pipeline, the other starts pipelines of its own, one after the other.
So at most two pipelines run at a time.
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

JOURNEYS = "tests/e2e/"
OWN_SERVERS = (
    "test_checks_at_start.py",
    "test_demo.py",
    "test_first_run.py",
    "test_fresh_replica.py",
    "test_kill_places.py",
    "test_s3_demo.py",
    "test_upgrade.py",
)
"""Files of `tests/e2e` in which no test of `make test` uses the fixture `stack`."""


class WholeFilesAndJourneys(LoadFileScheduling):
    """Gives a worker a whole file, or one of the two halves of `tests/e2e`, at a time."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        if not file.startswith(JOURNEYS):
            return file
        return f"{JOURNEYS} own servers" if file.endswith(OWN_SERVERS) else f"{JOURNEYS} session's pipeline"


@pytest.hookimpl(optionalhook=True)  # the hook is missing with `-p no:xdist`
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> WholeFilesAndJourneys:
    config.option.loadscopereorder = False  # a file with many tests may be short, so it need not start first
    return WholeFilesAndJourneys(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: not item.nodeid.startswith(JOURNEYS))
