"""Marks each test with its folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

FOLDERS = ("unit", "contract", "e2e", "deployment")

# A deadline per example measures how busy the machine is.
settings.register_profile("flts", deadline=None)
settings.load_profile("flts")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    root = Path(__file__).parent
    for item in items:
        folder = item.path.relative_to(root).parts[0]
        if folder in FOLDERS:
            item.add_marker(folder)
