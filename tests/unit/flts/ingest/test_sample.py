from __future__ import annotations

from pathlib import Path

import numpy as np

from flts.forecasting.grid import FixedGrid
from flts.forecasting.recipe import RecipeSpec, fit_recipe, transform
from flts.forecasting.ridge import fit_ridge
from flts.forecasting.series import Series
from flts.forecasting.splits import as_train, tails
from flts.forecasting.windows import sliding_windows, training_windows
from flts.ingest.reader import read_table
from flts.ingest.report import validation_report
from flts.ingest.sample import COLUMNS, STEP_SECONDS, TEST_ROWS, TRAIN_ROWS, generate_sample, write_sample
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


def test_a_straight_line_beats_the_last_value_and_a_bent_one_beats_the_straight_line() -> None:
    rows = TRAIN_ROWS + TEST_ROWS
    series = Series(STEP_SECONDS * np.arange(rows), COLUMNS, generate_sample(rows), FixedGrid(STEP_SECONDS))
    train = as_train(series.rows(0, TRAIN_ROWS))
    recipe = fit_recipe(train, RecipeSpec())
    features = transform(recipe, train.series)
    parts = tails(len(features), stop_tail=0.1, calibration_tail=0.1)
    windows = training_windows(features, recipe, parts, input_seq_len=10, output_seq_len=1)
    scaled = transform(recipe, series).values
    held_out = sliding_windows(
        scaled,
        scaled[:, :3],
        segments=series.segments(),
        window_steps=10,
        horizon_steps=1,
        first_target_row=TRAIN_ROWS,
    )

    def rmse(forecast: np.ndarray) -> float:
        return float(np.sqrt(((forecast - held_out.targets) ** 2).mean()))

    last_value = rmse(held_out.inputs[:, -1:, :3])
    line = rmse(fit_ridge(windows.fit, windows.stop)(held_out.inputs))
    bent = rmse(_bent_line(windows.fit, held_out))

    assert line < 0.6 * last_value
    assert bent < 0.7 * line


def _bent_line(fit: object, held_out: object) -> np.ndarray:
    """Forecast from ridge's inputs and from the distance of the last load to its seasonal expectation."""

    def design(inputs: np.ndarray) -> np.ndarray:
        flat = inputs.reshape(len(inputs), -1).astype(float)
        season = np.column_stack([np.ones(len(inputs)), inputs[:, -1, 3:]]).astype(float)
        load = inputs[:, -1, 0].astype(float)
        distance = load - season @ np.linalg.lstsq(season, load, rcond=None)[0]
        bends = [np.abs(distance - shift) for shift in (-0.2, -0.1, 0.0)]
        return np.column_stack([np.ones(len(flat)), flat, *bends])

    weights = np.linalg.lstsq(design(fit.inputs), fit.targets[:, 0], rcond=1e-6)[0]  # type: ignore[attr-defined]
    return (design(held_out.inputs) @ weights)[:, None]  # type: ignore[attr-defined]
