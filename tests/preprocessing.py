"""Uploads and preprocess's handler on a store in a folder."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry

from flts.contracts.claim_check import ClaimCheck
from flts.contracts.events import InferenceData, RawData, Scalar, TrainingData
from flts.contracts.ids import new_pipeline_run_id
from flts.observability.metrics import Metrics
from flts.runtime.adapters import Adapters
from flts.storage.claimed_frames import read_claimed_features, read_claimed_series
from flts.storage.claims import put_claimed, read_claimed
from flts.storage.filesystem import FilesystemStore
from flts.storage.ports import ObjectStore
from flts.storage.run_store import RunStore
from preprocess_container.handler import PreprocessUpload
from preprocess_container.settings import PreprocessSettings

START = datetime(2024, 1, 1, tzinfo=UTC)
STEP = 600


def make_settings(path: Path, **settings: Any) -> PreprocessSettings:
    return PreprocessSettings(store="filesystem", store_path=path, kafka_bootstrap_servers="127.0.0.1:1", **settings)


def make_values(rows: int, columns: int = 2, *, seed: int = 0) -> np.ndarray:
    return 50 + np.random.default_rng(seed).normal(size=(rows, columns)).cumsum(axis=0)


def make_csv(values: np.ndarray, *, first_row: int = 0, names: Sequence[str] | None = None, step: int = STEP) -> bytes:
    """Return a CSV of these values; NaN becomes an empty cell."""
    names = names or [chr(ord("a") + at) for at in range(values.shape[1])]
    lines = [",".join(["time", *names])]
    for at, row in enumerate(values, start=first_row):
        moment = START + timedelta(seconds=at * step)
        cells = ("" if np.isnan(value) else repr(float(value)) for value in row)
        lines.append(",".join([moment.isoformat(), *cells]))
    return "\n".join([*lines, ""]).encode()


@dataclass
class Told:
    """Collects the progress reports of a handler."""

    states: list[str] = field(default_factory=list)

    def __call__(self, stage: str, state: str, **_: Any) -> None:
        self.states.append(f"{stage} {state}")


@dataclass
class Preprocessing:
    """A store in a folder and preprocess's handler."""

    path: Path
    settings: PreprocessSettings
    store: ObjectStore
    run_store: RunStore
    metrics: Metrics
    handler: PreprocessUpload
    told: Told = field(default_factory=Told)

    @classmethod
    def start(cls, path: Path, store: ObjectStore | None = None, **settings: Any) -> Preprocessing:
        used = make_settings(path, **settings)
        store = store or FilesystemStore(path)
        for bucket in ("raw-data", "processed-data", "pipeline-runs"):
            store.ensure_bucket(bucket)
        run_store = RunStore(store, used)
        metrics = Metrics(CollectorRegistry())
        return cls(
            path,
            used,
            store,
            run_store,
            metrics,
            PreprocessUpload(Adapters(store, run_store, None, metrics, used), used),
        )

    def upload(self, train: bytes, test: bytes | None = None, *, force: bool = False, **settings: Scalar) -> RawData:
        """Store files and return the event of a new run on them."""
        return RawData(
            event_id=str(uuid.uuid4()),
            identifier="series",
            pipeline_run_id=new_pipeline_run_id(),
            created_at=datetime.now(UTC),
            train=self._put("train", train),
            test=self._put("test", test) if test is not None else None,
            settings=settings,
            force=force,
        )

    def run(self, event: RawData) -> Prepared:
        training, inference = self.handler(event, self.told)
        assert type(training) is TrainingData
        assert type(inference) is InferenceData
        return Prepared(self.store, training, inference)

    def prepare(self, train: bytes, test: bytes | None = None, **settings: Scalar) -> Prepared:
        return self.run(self.upload(train, test, **settings))

    def _put(self, name: str, data: bytes) -> ClaimCheck:
        return put_claimed(self.store, "raw-data", f"series/{uuid.uuid4()}/{name}.csv", data)


@dataclass
class Prepared:
    """The events of a run, with the objects that they claim."""

    store: ObjectStore
    training: TrainingData
    inference: InferenceData

    def __post_init__(self) -> None:
        self.train = read_claimed_features(self.store, self.training.claim())
        self.test = read_claimed_features(self.store, self.training.test)
        self.raw_test = read_claimed_series(self.store, self.training.raw_test)
        self.context_rows = self.training.raw_test_context_rows

    def meta(self) -> dict[str, Any]:
        return _json(read_claimed(self.store, self.training.meta))

    def test_meta(self) -> dict[str, Any]:
        return _json(read_claimed(self.store, self.inference.meta))

    def column(self, name: str) -> np.ndarray:
        return self.train.values[:, self.train.names.index(name)]


def _json(data: bytes) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(data)
    return value
