from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import holidays
import numpy as np

from flts.forecasting.grid import FixedGrid
from flts.forecasting.season_tests import find_seasons
from flts.ingest.reader import read_table
from flts.ingest.report import validation_report
from flts.ingest.sample import (
    COLUMNS,
    HOLIDAYS,
    START,
    STEP_SECONDS,
    TEST_ROWS,
    TRAIN_ROWS,
    generate_sample,
    write_sample,
)
from flts.recipe_settings import RecipeSettings
from flts.settings import UploadLimits, WindowSettings


def test_the_sample_is_the_same_each_time_and_another_for_another_seed(tmp_path: Path) -> None:
    first, again, other = (write_sample(tmp_path / name, seed=seed) for name, seed in (("a", 7), ("b", 7), ("c", 8)))

    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert first[0].read_bytes() != other[0].read_bytes()


def test_the_sample_is_an_upload_without_a_flaw(tmp_path: Path) -> None:
    train, test = (
        read_table(path, limits=UploadLimits(), settings=RecipeSettings()) for path in write_sample(tmp_path)
    )

    report = validation_report(train, test, RecipeSettings(), WindowSettings())

    assert (report.train.rows, report.test.rows) == (TRAIN_ROWS, TEST_ROWS)
    assert report.columns == COLUMNS
    assert report.test_follows_train
    assert report.warnings == []


def test_visitors_have_a_day_a_week_growth_and_holidays() -> None:
    values = generate_sample(TRAIN_ROWS + TEST_ROWS)
    visitors = values[: len(values) // 168 * 168, 0].reshape(-1, 7, 24)

    assert values.min() >= 0
    assert find_seasons(values[:TRAIN_ROWS], STEP_SECONDS * np.arange(TRAIN_ROWS), FixedGrid(STEP_SECONDS)).steps == (
        24,
        168,
    )
    assert visitors[:, :6, 12].mean() > 10 * visitors[:, :6, 2].mean(), "noon against night"
    assert visitors[:, 5].mean() > 3 * visitors[:, 6].mean(), "Saturday against Sunday"
    assert 1.1 < visitors[-8:].mean() / visitors[:8].mean() < 1.4, "growth"
    first_of_may = 121
    assert visitors[first_of_may // 7, first_of_may % 7].mean() < 0.5 * visitors[:, first_of_may % 7].mean()


def test_the_holidays_are_those_of_germany() -> None:
    first = START.date()
    days = [first + timedelta(days=day) for day in HOLIDAYS]

    assert days == sorted(holidays.Germany(years=first.year))
