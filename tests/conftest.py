"""Mark each test with its folder, and restore the loggers after each test."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = ("tests.costs", "tests.no_skips", "tests.workers")
FOLDERS = ("unit", "contract", "e2e", "deployment")

# By default Hypothesis fails an example that takes longer than 200 ms. Examples take longer on a busy machine, so the
# tests set no deadline.
settings.register_profile("flts", deadline=None)
settings.load_profile("flts")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    root = Path(__file__).parent
    for item in items:
        folder = item.path.relative_to(root).parts[0]
        if folder in FOLDERS:
            item.add_marker(folder)


@pytest.fixture(autouse=True)
def logs_stay_with_their_test() -> Iterator[None]:
    """Restore the loggers of this process after a test that configures them."""
    loggers = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
    before = [(logger, logger.level, list(logger.handlers), logger.propagate) for logger in loggers]
    known = set(logging.root.manager.loggerDict)
    yield
    logging.captureWarnings(capture=False)
    for logger, level, handlers, propagate in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
        logger.propagate = propagate
    for name in set(logging.root.manager.loggerDict) - known:
        logging.getLogger(name).setLevel(logging.NOTSET)
