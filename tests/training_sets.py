"""Processed data sets in a store, with the event that a trainer consumes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry

from flts.bundle.forecaster import Forecaster
from flts.contracts.events import TrainingData
from flts.contracts.ids import derived_event_id, new_pipeline_run_id, sha256_of
from flts.forecasting.fitted import FittedRecipe
from flts.forecasting.grid import FixedGrid
from flts.forecasting.recipe import RecipeSpec, fit_recipe, transform
from flts.forecasting.series import Series
from flts.forecasting.splits import as_train
from flts.model_settings import TrainingSettings
from flts.observability.metrics import Metrics
from flts.runtime.adapters import Adapters
from flts.settings import Settings, StoreSettings
from flts.storage.claims import put_claimed
from flts.storage.filesystem import FilesystemStore
from flts.storage.frames import features_to_parquet, series_to_parquet
from flts.storage.run_store import RunStore

STEP = 600
START = 1_700_000_400  # epoch seconds; a multiple of STEP
ENVIRONMENT = {
    "KAFKA_BOOTSTRAP_SERVERS": "localhost:1",
    "STORE": "filesystem",
    "MLFLOW_TRACKING_URI": "http://localhost:1",
}


def made_series(rows: int, *, seed: int = 0, columns: int = 3, first_row: int = 0) -> Series:
    """Return a daily cycle with autoregressive noise in each column; the columns' scales differ by factors of 1,000."""
    rng = np.random.default_rng(seed)
    at = np.arange(first_row, first_row + rows)
    noise = np.zeros((rows, columns))
    shocks = rng.normal(size=(rows, columns))
    for row in range(1, rows):
        noise[row] = 0.7 * noise[row - 1] + shocks[row]
    cycle = np.sin(2 * np.pi * at[:, None] * STEP / 86_400 + np.arange(columns))
    values = (5 + 3 * cycle + 0.5 * noise) * 10.0 ** (3 * np.arange(columns))
    return Series(START + STEP * at, tuple(f"c{number}" for number in range(columns)), values, FixedGrid(STEP))


def touching_zero(rows: int) -> Series:
    """Return a column that is 0 in half of the rows and never negative, and a column with negative values."""
    series = made_series(rows, columns=2)
    values = series.values - np.median(series.values, axis=0)
    values[:, 0] = np.maximum(values[:, 0], 0)
    return Series(series.times, ("load", "balance"), values, series.grid)


def assert_moved_by_the_median(moved: Forecaster, free: Forecaster, series: Series) -> None:
    """Assert that forecasts are those of the same model without limits, plus its median residual at each step."""
    intervals = moved.bundle.intervals
    assert intervals is not None
    medians = intervals.at_level(0.5)
    assert medians is not None
    assert (moved.bundle.point, moved.bundle.format_version, free.bundle.format_version) == ("median", 2, 1)
    ahead = np.arange(1, 61)
    offsets = np.column_stack([np.interp(ahead, intervals.steps, column) for column in medians.T])
    found = moved.forecast(series, 60)
    np.testing.assert_allclose(found.mean, free.forecast(series, 60).mean + offsets, rtol=1e-9)
    assert found.lower is not None
    assert found.upper is not None
    assert ((found.lower <= found.mean) & (found.mean <= found.upper)).all()


def assert_load_is_limited(forecaster: Forecaster, series: Series, fitted_rows: int) -> None:
    """Check the forecasts of a bundle that was trained on `touching_zero`, rolled over 200 steps."""
    bundle = forecaster.bundle
    assert (bundle.format_version, bundle.limits) == (2, {"load": (0.0, None)})
    assert bundle.fitted_until == (series.times[fitted_rows - 1] if fitted_rows else None)
    forecast = forecaster.forecast(series, 200)
    assert forecast.lower is not None
    assert forecast.upper is not None
    assert forecast.lower[:, 0].min() == 0 <= forecast.mean[:, 0].min()
    assert forecast.lower[:, 1].min() < 0
    assert ((forecast.lower <= forecast.mean) & (forecast.mean <= forecast.upper)).all()
    origins = np.arange(len(series) - 20, len(series))
    assert forecaster.forecast_origins(series, origins, 50)[..., 0].min() >= 0


@dataclass(frozen=True)
class Stored:
    """A data set in a store."""

    event: TrainingData
    recipe: FittedRecipe
    series: Series
    store: FilesystemStore
    run_store: RunStore

    def again(self, **changes: Any) -> TrainingData:
        """Return the event of another run on the same data."""
        run = new_pipeline_run_id()
        return self.event.model_copy(
            update={"pipeline_run_id": run, "event_id": derived_event_id(run, "training-data"), **changes}
        )


class SilentReport:
    """Receives the progress of a fit and ignores it."""

    def alive(self, detail: str) -> None:
        """Ignore it."""

    def epoch_done(self, epoch: int, epochs: int, metrics: Any, *, loss: float | None) -> None:
        """Ignore it."""


def store_dataset(
    folder: Path,
    series: Series,
    spec: RecipeSpec | None = None,
    *,
    identifier: str = "made",
    test: Series | None = None,
    **changes: Any,
) -> Stored:
    """Preprocess a series and the test rows after it, and store both in ``folder``; return them with their event."""
    store = FilesystemStore(folder)
    for bucket in ("processed-data", "model-bundles", "pipeline-runs", "model-promotion"):
        store.ensure_bucket(bucket)
    run_store = RunStore(store, store_settings(folder))
    recipe = fit_recipe(as_train(series), spec or RecipeSpec())
    features = transform(recipe, series)
    config_hash = sha256_of(recipe.to_dict())
    prefix = f"{identifier}/{config_hash}"
    table = features_to_parquet(features)
    rows, columns = features.values.shape
    claim = put_claimed(store, "processed-data", f"{prefix}/processed_data.parquet", table, rows=rows, columns=columns)
    meta = json.dumps({"recipe": recipe.to_dict()}).encode()
    meta_claim = put_claimed(store, "processed-data", f"{prefix}/processed_data.meta.json", meta)
    raw = put_claimed(store, "processed-data", f"{prefix}/raw_test.parquet", series_to_parquet(series.rows(0, 20)))
    test_claim = raw
    if test is not None:
        test_table = features_to_parquet(transform(recipe, test))
        test_claim = put_claimed(store, "processed-data", f"{prefix}/test_processed_data.parquet", test_table)
    run = new_pipeline_run_id()
    event = TrainingData(
        event_id=derived_event_id(run, "training-data"),
        identifier=identifier,
        pipeline_run_id=run,
        config_hash=config_hash,
        created_at=datetime.now(UTC),
        bucket=claim.bucket,
        object_key=claim.object_key,
        size=claim.size,
        sha256=claim.sha256,
        rows=rows,
        columns=columns,
        meta=meta_claim,
        test=test_claim,
        raw_test=raw,
        raw_test_context_rows=10,
        step_seconds=series.grid.step_seconds,
        **changes,
    )
    return Stored(event, recipe, series, store, run_store)


def training_settings(**changes: Any) -> TrainingSettings:
    """Return settings with which the training of a network of windows is short."""
    lengths = {"input_seq_len": 4, "output_seq_len": 1}
    return TrainingSettings(**{**lengths, "hidden_size": 8, "num_layers": 1, "epochs": 3, **changes})


def store_settings(folder: Path) -> StoreSettings:
    return StoreSettings(store="filesystem", store_path=folder)


def adapters_of(stored: Stored, settings: Settings, tracker: Any = None) -> Adapters:
    """Return a trainer's adapters on the store; without a tracker nothing is recorded."""
    return Adapters(stored.store, stored.run_store, tracker, Metrics(CollectorRegistry()), settings)


class Progress:
    """Collects the progress reports of a handler."""

    def __init__(self) -> None:
        self.said: list[SimpleNamespace] = []

    def __call__(self, stage: str, state: str, **facts: Any) -> None:
        self.said.append(SimpleNamespace(stage=stage, state=state, **facts))

    def states(self) -> list[str]:
        """Return the states in order, without repeats."""
        states = [said.state for said in self.said]
        return [state for at, state in enumerate(states) if at == 0 or states[at - 1] != state]
