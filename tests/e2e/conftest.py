"""One running pipeline for the journeys that can share it, and the data they upload."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flts.ingest.sample import write_sample
from tests.seasonal import seasonal_csv
from tests.stack import LIMITS, SMALL, RunningStack, running_stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """All three trainers with small networks; journeys use identifiers of their own."""
    home = tmp_path_factory.mktemp("pipeline") / "home"
    with running_stack(home, **SMALL, **LIMITS) as running:
        yield running


@pytest.fixture(scope="session")
def seasonal(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A decided run whose champion is Prophet."""
    file = seasonal_csv(tmp_path_factory.mktemp("seasonal") / "train.csv")
    return stack.wait_decided(stack.upload("seasonal", file, settings={"EPOCHS": 1}))


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The shipped sample's train and test file."""
    train, test = write_sample(tmp_path_factory.mktemp("sample"))
    return train, test


@pytest.fixture(scope="session")
def poblesec() -> tuple[Path, Path]:
    """The LTE measurements beside the project, read where they lie."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "data"
    if not (folder / "PobleSec.csv").exists():
        pytest.skip("no ../shared/data: the PobleSec measurements are not beside the project")
    return folder / "PobleSec.csv", folder / "PobleSec_test.csv"
