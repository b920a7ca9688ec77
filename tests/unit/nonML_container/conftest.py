from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nonML_container.settings import NonmlSettings
from tests.training_sets import ENVIRONMENT


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that reads the trainer's settings from an environment with these variables."""

    def load(**variables: str) -> NonmlSettings:
        for name, value in {**ENVIRONMENT, "STORE_PATH": str(tmp_path), "TRAIN_THREADS": "1", **variables}.items():
            monkeypatch.setenv(name, value)
        return NonmlSettings.load()

    return load
