"""The pipeline that the end-to-end tests share, and the data sets that they upload."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compose_pipeline import running_compose
from tests.helm_pipeline import running_helm
from tests.pipeline import Pipeline
from tests.seasonal import seasonal_csv
from tests.stack import LIMITS, SMALL, running_stack
from tests.swinging import write_swinging
from tests.targets import TARGET


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """Yield a pipeline with the default trainers and small networks; each test uses its own identifiers.

    It ends after the last journey, because an idle pipeline still takes a fifth of a core from the tests that follow.
    """
    folder = tmp_path_factory.mktemp("pipeline")
    if TARGET == "compose":
        with running_compose(folder, **SMALL) as composed:
            yield composed
    elif TARGET == "helm":
        with running_helm(folder, **SMALL) as installed:
            yield installed
    else:
        with running_stack(folder / "home", **SMALL, **LIMITS) as running:
            yield running


@pytest.fixture(scope="package")
def seasonal(stack: Pipeline, seasonal_file: Path) -> dict[str, Any]:
    """Return a decided run whose champion is Prophet."""
    return stack.wait_decided(stack.upload("seasonal", seasonal_file, settings={"EPOCHS": 1}))


@pytest.fixture(scope="session")
def seasonal_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file on which Prophet is promoted; its trainings take a fourth of the time of those of `swinging`."""
    return seasonal_csv(tmp_path_factory.mktemp("seasonal") / "train.csv")


@pytest.fixture(scope="session")
def swinging(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the train and test file of a series on which a network beats the other models."""
    train, test = write_swinging(tmp_path_factory.mktemp("swinging"))
    return train, test


@pytest.fixture(scope="session")
def poblesec() -> tuple[Path, Path]:
    """Return the LTE measurements in `../shared/data`; skip the test without them."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "data"
    if not (folder / "PobleSec.csv").exists():
        pytest.skip("no ../shared/data: the PobleSec measurements are not beside the project")
    return folder / "PobleSec.csv", folder / "PobleSec_test.csv"
