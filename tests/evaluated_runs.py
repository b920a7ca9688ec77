"""Pipeline runs for eval: stored data sets, small ONNX bundles and the events that announce them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from prometheus_client import CollectorRegistry

from eval_container.handler import DecideRun
from eval_container.settings import EvalSettings
from flts.bundle.format import Bundle
from flts.bundle.write import store_bundle
from flts.contracts.claim_check import ClaimCheck
from flts.contracts.events import Event, ModelSelected, ModelTraining, RawData, TrainingData
from flts.contracts.ids import derived_event_id, derived_run_id, new_pipeline_run_id
from flts.forecasting.grid import FixedGrid
from flts.forecasting.intervals import Intervals
from flts.forecasting.recipe import FittedRecipe, RecipeSpec, fit_recipe, transform
from flts.forecasting.series import Series
from flts.forecasting.splits import as_train
from flts.observability.metrics import Metrics
from flts.runtime.adapters import Adapters
from flts.storage.claims import put_claimed
from flts.storage.filesystem import FilesystemStore
from flts.storage.frames import features_to_parquet, parquet_shape, series_to_parquet
from flts.storage.ports import ObjectStore
from flts.storage.run_store import RunStore

IDENTIFIER = "s"
STEP_SECONDS = 3600
CREATED = datetime(2026, 1, 1, tzinfo=UTC)
CONTEXT_ROWS = 30
WINDOW = 4


def no_progress(*_: object, **__: object) -> None:
    """Ignore a progress report."""


def autoregression(rows: int, coefficient: float, *, seed: int = 0, columns: tuple[str, ...] = ("down",)) -> Series:
    """Return ``x[t] = coefficient * x[t-1] + noise`` around 100 in every column; 1 gives a random walk."""
    noise = np.random.default_rng(seed).normal(size=(rows, len(columns)))
    values = np.zeros_like(noise)
    for at in range(1, rows):
        values[at] = coefficient * values[at - 1] + noise[at]
    return Series(
        1_700_000_400 // 3600 * 3600 + STEP_SECONDS * np.arange(rows), columns, 100 + values, FixedGrid(STEP_SECONDS)
    )


class Recorder:
    """Replaces MLflow's adapter and keeps the calls."""

    def __init__(self) -> None:
        self.champions: list[tuple[str, str]] = []
        self.metrics: dict[str, Mapping[str, float]] = {}
        self.artifacts: dict[str, list[str]] = {}
        self.tags: dict[str, Mapping[str, Any]] = {}
        self.runs: list[RecordedRun] = []
        self.order: list[tuple[str, str]] = []
        """Name and run_id of each call that records something."""

    def warm_up(self) -> None:
        """Do nothing; no client has to start."""

    def start_run(
        self, run_id: str, experiment: str, name: str, params: Mapping[str, Any], tags: Mapping[str, Any]
    ) -> RecordedRun:
        assert experiment == IDENTIFIER
        self.runs.append(RecordedRun(run_id, name, dict(params), dict(tags)))
        self.order.append(("run", run_id))
        return self.runs[-1]

    def append(
        self,
        run_id: str,
        experiment: str,
        *,
        metrics: Mapping[str, float] | None = None,
        artifacts: Mapping[str, Any],
        tags: Mapping[str, Any] | None = None,
    ) -> bool:
        assert experiment == IDENTIFIER
        self.metrics[run_id] = metrics or {}
        self.tags[run_id] = tags or {}
        self.artifacts[run_id] = list(artifacts)
        self.order.append(("scores", run_id))
        return True

    def set_champion(self, experiment: str, run_id: str) -> bool:
        self.champions.append((experiment, run_id))
        self.order.append(("alias", run_id))
        return True


@dataclass
class RecordedRun:
    """A run in the place of MLflow's."""

    run_id: str
    name: str
    params: dict[str, Any]
    tags: dict[str, Any]
    metrics: dict[str, float] = field(default_factory=dict)
    claims: dict[str, ClaimCheck] = field(default_factory=dict)
    registered: list[tuple[str, str]] = field(default_factory=list)
    status: str = "RUNNING"

    def log_metrics(self, step: int, /, **values: float) -> None:
        assert step == 1
        self.metrics |= values

    def log_claim(self, path: str, claim: ClaimCheck) -> None:
        self.claims[path] = claim

    def register(self, model_uri: str, model_type: str) -> None:
        self.registered.append((model_uri, model_type))

    def finish(self, status: str) -> str:
        self.status = status
        return "of-mlflow"


@dataclass(frozen=True, slots=True)
class Run:
    """A pipeline run whose data set is stored."""

    data: TrainingData
    recipe: FittedRecipe

    @property
    def id(self) -> str:
        return self.data.pipeline_run_id


class Installation:
    """A store in a folder and eval on it; no other service runs."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.settings = EvalSettings(
            kafka_bootstrap_servers="unused:9092",
            mlflow_tracking_uri="http://unused",
            store="filesystem",
            store_path=folder,
            input_seq_len=WINDOW,
            **{"expected_model_types": ("GRU", "LSTM"), "refit": False, **settings},
        )
        self.store: ObjectStore = FilesystemStore(folder)
        for name in type(self.settings).model_fields:
            if "bucket" in name:
                self.store.ensure_bucket(getattr(self.settings, name))
        self.clock = 1_767_225_600.0
        self.tracker: Any = None
        self.metrics = Metrics(CollectorRegistry())

    def now(self) -> float:
        return self.clock

    @property
    def run_store(self) -> RunStore:
        return RunStore(self.store, self.settings)

    def adapters(self, store: ObjectStore | None = None) -> Adapters:
        chosen = store or self.store
        return Adapters(chosen, RunStore(chosen, self.settings), self.tracker, self.metrics, self.settings)

    def handler(self, store: ObjectStore | None = None) -> DecideRun:
        return DecideRun(self.settings, self.adapters(store), now=self.now)

    def send(self, *events: Event) -> list[Event]:
        """Pass events to a new handler of eval, as after a restart, and return the events that it returns."""
        handler = self.handler()
        return [told for event in events for told in handler(event, no_progress)]

    def run(
        self,
        series: Series | None = None,
        *,
        test_rows: int = 200,
        context_rows: int = CONTEXT_ROWS,
        identifier: str = IDENTIFIER,
        raw_test: Series | None = None,
        config: str = "",
    ) -> Run:
        """Store a data set as preprocess does and return its run; the last rows are the test."""
        series = autoregression(800, 0.5) if series is None else series
        train = series.rows(0, len(series) - test_rows)
        recipe = fit_recipe(as_train(train), RecipeSpec())
        held_out = series.rows(len(train) - context_rows) if raw_test is None else raw_test
        config_hash = hashlib.sha256(series.values.tobytes() + config.encode()).hexdigest()
        folder = f"{identifier}/{config_hash}"
        features = self._table(f"{folder}/processed_data.parquet", features_to_parquet(transform(recipe, train)))
        test = self._table(f"{folder}/test_processed_data.parquet", features_to_parquet(transform(recipe, held_out)))
        raw = self._table(f"{folder}/raw_test_data.parquet", series_to_parquet(held_out))
        meta = put_claimed(
            self.store,
            self.settings.bucket_processed_data,
            f"{folder}/processed_data.meta.json",
            json.dumps({"recipe": recipe.to_dict()}).encode(),
        )
        run = new_pipeline_run_id()
        upload = ClaimCheck(bucket="raw-data", object_key="upload.csv", size=1, sha256="0" * 64)
        common = {"identifier": identifier, "pipeline_run_id": run, "created_at": CREATED}
        self.run_store.runs.create(RawData(**common, event_id=derived_event_id(run, "raw"), train=upload))
        data = TrainingData(
            **common,
            **features.model_dump(),
            event_id=derived_event_id(run, "train"),
            config_hash=config_hash,
            meta=meta,
            test=test,
            raw_test=raw,
            raw_test_context_rows=context_rows,
            step_seconds=series.grid.step_seconds,
        )
        return Run(data, recipe)

    def again(self, run: Run) -> Run:
        """Return a newer run on the same data set."""
        name = new_pipeline_run_id()
        record = self.run_store.runs.read(run.data.identifier, run.id)
        raw = RawData.model_validate(record)
        renamed = {"pipeline_run_id": name, "event_id": derived_event_id(name, "raw")}
        self.run_store.runs.create(raw.model_copy(update=renamed))
        renamed = {"pipeline_run_id": name, "event_id": derived_event_id(name, "train")}
        return replace(run, data=run.data.model_copy(update=renamed))

    def trained(
        self,
        run: Run,
        model_type: str,
        coefficient: float = 0.5,
        *,
        bundle: ClaimCheck | None = None,
        width: float = 2.0,
        padding: int = 0,
    ) -> ModelTraining:
        """Store a bundle that forecasts ``coefficient`` times the last deviation from 100; return its event."""
        if bundle is None:
            made, model = window_bundle(run, model_type, coefficient, width=width, padding=padding)
            bundle = store_bundle(self.store, self.settings.bucket_model_bundles, made, model)
        return announced(run, model_type, bundle=bundle)

    def pointer(self, identifier: str = IDENTIFIER) -> dict[str, Any] | None:
        current = self.run_store.pointers.current(identifier)
        return current and current[0]

    def scoreboard(self, selected: ModelSelected) -> dict[str, Any]:
        assert selected.scoreboard is not None
        data, _ = self.store.get(selected.scoreboard.bucket, selected.scoreboard.object_key)
        document: dict[str, Any] = json.loads(data)
        return document

    def everything(self) -> dict[tuple[str, str], bytes]:
        """Return every object in the buckets of runs and promotions, to compare two moments."""
        buckets = (self.settings.bucket_pipeline_runs, self.settings.promotion_bucket)
        return {
            (bucket, info.key): self.store.get(bucket, info.key)[0]
            for bucket in buckets
            for info in self.store.list(bucket)
        }

    def _table(self, key: str, data: bytes) -> ClaimCheck:
        rows, columns = parquet_shape(data)
        return put_claimed(self.store, self.settings.bucket_processed_data, key, data, rows=rows, columns=columns)


def announced(
    run: Run, model_type: str, *, bundle: ClaimCheck | None = None, error: str | None = None
) -> ModelTraining:
    """Return a trainer's final event."""
    return ModelTraining(
        event_id=derived_event_id(run.data.event_id, f"trained-{model_type}"),
        identifier=run.data.identifier,
        pipeline_run_id=run.id,
        config_hash=run.data.config_hash,
        created_at=CREATED,
        model_type=model_type,
        status="SUCCESS" if bundle else "FAILED",
        run_id=derived_run_id(run.data.event_id, model_type),
        experiment_name=run.data.identifier,
        model_uri=None if bundle is None else f"s3://{bundle.bucket}/{bundle.object_key}",
        bundle=bundle,
        train=run.data.claim(),
        test=run.data.test,
        duration_seconds=1.0,
        error=error if bundle is None else None,
    )


def window_bundle(
    run: Run, model_type: str, coefficient: float, *, width: float = 2.0, padding: int = 0
) -> tuple[Bundle, bytes]:
    """Return a linear window model; ``padding`` enlarges the model, ``width`` is half the width of its intervals."""
    recipe = run.recipe
    names, targets = recipe.feature_names, recipe.varying_targets
    weights = np.zeros((len(names), len(targets)), dtype=np.float32)
    offset = np.zeros(len(targets), dtype=np.float32)
    for at, column in enumerate(recipe.varying_columns):
        weights[column, at] = coefficient
        centre = (100 - recipe.offset[column]) / recipe.scale[column]
        offset[at] = (1 - coefficient) * centre
    initializers = [
        numpy_helper.from_array(np.array(WINDOW - 1, dtype=np.int64), "last"),
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(offset, "offset"),
        numpy_helper.from_array(np.array([1], dtype=np.int64), "axis"),
        numpy_helper.from_array(np.zeros(padding, dtype=np.float32), "padding"),
    ]
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["window", "last"], ["row"], axis=1),
            helper.make_node("MatMul", ["row", "weights"], ["product"]),
            helper.make_node("Add", ["product", "offset"], ["sum"]),
            helper.make_node("Unsqueeze", ["sum", "axis"], ["forecast"]),
        ],
        "linear",
        [helper.make_tensor_value_info("window", TensorProto.FLOAT, ["batch", WINDOW, len(names)])],
        [helper.make_tensor_value_info("forecast", TensorProto.FLOAT, ["batch", 1, len(targets)])],
        initializers,
    )
    probe = np.random.default_rng(1).random((1, WINDOW, len(names))).astype(np.float32)
    answer = (probe[:, -1] @ weights + offset)[:, None]
    return _bundle(run, model_type, _onnx(graph), probe, answer, input_kind="window", rows_required=WINDOW, width=width)


def timestamps_bundle(run: Run, model_type: str = "PROPHET", level: float = 100.0) -> tuple[Bundle, bytes]:
    """Return a model that forecasts ``level`` at any time; for a recipe of constants, a column of zeros."""
    recipe = run.recipe
    centre = [(level - recipe.offset[column]) / recipe.scale[column] for column in recipe.varying_columns] or [0.0]
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["seconds"], ["doubles"], to=TensorProto.DOUBLE),
            helper.make_node("Unsqueeze", ["doubles", "axis"], ["column"]),
            helper.make_node("Mul", ["column", "nought"], ["zeros"]),
            helper.make_node("Add", ["zeros", "level"], ["forecast"]),
        ],
        "level",
        [helper.make_tensor_value_info("seconds", TensorProto.INT64, ["batch"])],
        [helper.make_tensor_value_info("forecast", TensorProto.DOUBLE, ["batch", len(centre)])],
        [
            numpy_helper.from_array(np.array([1], dtype=np.int64), "axis"),
            numpy_helper.from_array(np.zeros(len(centre)), "nought"),
            numpy_helper.from_array(np.array(centre), "level"),
        ],
    )
    probe = np.array([1_700_000_000], dtype=np.int64)
    answer = np.array([centre])
    return _bundle(run, model_type, _onnx(graph), probe, answer, input_kind="timestamps", rows_required=1, width=4.0)


def _bundle(
    run: Run,
    model_type: str,
    model: bytes,
    probe: Any,
    answer: Any,
    *,
    input_kind: Any,
    rows_required: int,
    width: float,
) -> tuple[Bundle, bytes]:
    recipe = run.recipe
    varying = len(recipe.varying_targets)
    edge = np.full((1, varying), width)
    assert run.data.config_hash is not None
    bundle = Bundle(
        model_type=model_type,
        input_kind=input_kind,
        identifier=run.data.identifier,
        config_hash=run.data.config_hash,
        train_hash=hashlib.sha256(model + str(width).encode()).hexdigest(),
        recipe=recipe,
        input_seq_len=WINDOW,
        output_seq_len=1,
        rows_required=rows_required,
        max_horizon_steps=None,
        targets=recipe.targets,
        intervals=Intervals.between(0.9, (1,), -edge, edge) if varying else None,
        intervals_source="calibration_tail" if varying else None,
        model_sha256=hashlib.sha256(model).hexdigest(),
        model_size=len(model),
        probe={"inputs": probe.tolist(), "outputs": answer.tolist()},
        reason=None if varying else "all_constant",
    )
    return bundle, model


def _onnx(graph: Any) -> bytes:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
