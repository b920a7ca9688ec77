"""Tiny bundles, promotions and requests for tests of serving."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from prometheus_client import CollectorRegistry

from flts.bundle.forecaster import longest_horizon
from flts.bundle.format import Bundle
from flts.bundle.write import store_bundle
from flts.contracts.claim_check import ClaimCheck
from flts.contracts.ids import new_pipeline_run_id
from flts.forecasting.intervals import Intervals
from flts.forecasting.recipe import RecipeSpec, fit_recipe, transform
from flts.forecasting.series import Series
from flts.forecasting.splits import as_train
from flts.observability.metrics import Metrics
from flts.storage import layout
from flts.storage.claims import put_claimed
from flts.storage.filesystem import FilesystemStore
from flts.storage.frames import series_to_parquet
from flts.storage.ports import ObjectStore
from flts.storage.run_store import RunStore
from inference_container.cache import ChampionCache
from inference_container.champions import Champions
from inference_container.domain.batching import Batcher
from inference_container.domain.champion import Champion, load_champion
from inference_container.domain.promotion import Promotion
from inference_container.predictor import Predictor
from tests.made_series import make_series

CONFIG_HASH = "c" * 64
TRAIN_HASH = "d" * 64
BUCKETS = ("model-bundles", "model-promotion", "pipeline-runs", "inference-logs", "processed-data", "raw-data")


def window_bundle(
    series: Series,
    *,
    identifier: str = "tiny",
    spec: RecipeSpec | None = None,
    input_seq_len: int = 10,
    output_seq_len: int = 1,
    seed: int = 0,
    config_hash: str = CONFIG_HASH,
    calibrated: bool = True,
) -> tuple[Bundle, bytes]:
    """Return a bundle whose model is tanh of a linear map of the flattened window."""
    recipe = fit_recipe(as_train(series), spec or RecipeSpec())
    features = transform(recipe, series).values
    width, targets = features.shape[1], len(recipe.varying_targets)
    weights = np.random.default_rng(seed).normal(0, 0.15, (input_seq_len * width, output_seq_len * targets))
    model = _model(
        [
            helper.make_node("Reshape", ["window", "flat"], ["rows"]),
            helper.make_node("MatMul", ["rows", "weights"], ["sums"]),
            helper.make_node("Tanh", ["sums"], ["bent"]),
            helper.make_node("Reshape", ["bent", "shape"], ["forecast"]),
        ],
        [
            numpy_helper.from_array(np.array([-1, input_seq_len * width]), "flat"),
            numpy_helper.from_array(weights.astype(np.float32), "weights"),
            numpy_helper.from_array(np.array([-1, output_seq_len, targets]), "shape"),
        ],
        helper.make_tensor_value_info("window", TensorProto.FLOAT, ["n", input_seq_len, width]),
        helper.make_tensor_value_info("forecast", TensorProto.FLOAT, ["n", output_seq_len, targets]),
    )
    window = features[:input_seq_len].astype(np.float32)
    answer = np.tanh(window.reshape(1, -1) @ weights.astype(np.float32)).reshape(output_seq_len, targets)
    bundle = Bundle(
        model_type="GRU",
        input_kind="window",
        identifier=identifier,
        config_hash=config_hash,
        train_hash=TRAIN_HASH,
        recipe=recipe,
        input_seq_len=input_seq_len,
        output_seq_len=output_seq_len,
        rows_required=input_seq_len + recipe.warmup_rows,
        max_horizon_steps=longest_horizon(recipe, output_seq_len),
        targets=tuple(recipe.targets),
        intervals=_intervals(targets) if calibrated else None,
        intervals_source="calibration_tail" if calibrated else None,
        model_sha256=hashlib.sha256(model).hexdigest(),
        model_size=len(model),
        probe={"inputs": [window.astype(float).tolist()], "outputs": [answer.astype(float).tolist()]},
    )
    return bundle, model


def clock_bundle(
    series: Series, *, identifier: str = "tiny", seed: int = 0, config_hash: str = CONFIG_HASH
) -> tuple[Bundle, bytes]:
    """Return a bundle whose model reads only the time, as Prophet's does."""
    recipe = fit_recipe(as_train(series), RecipeSpec())
    targets = len(recipe.varying_targets)
    # If all targets are constant, the model returns one column of zeros, and each target's forecast is its constant.
    slopes = np.random.default_rng(seed).uniform(0.1, 1, (1, targets)) if targets else np.zeros((1, 1))
    model = _model(
        [
            helper.make_node("Cast", ["seconds"], ["time"], to=TensorProto.DOUBLE),
            helper.make_node("Mul", ["time", "turn"], ["angle"]),
            helper.make_node("Sin", ["angle"], ["wave"]),
            helper.make_node("Unsqueeze", ["wave", "axis"], ["column"]),
            helper.make_node("MatMul", ["column", "slopes"], ["forecast"]),
        ],
        [
            numpy_helper.from_array(np.array(2 * np.pi / 86_400), "turn"),
            numpy_helper.from_array(np.array([1]), "axis"),
            numpy_helper.from_array(slopes, "slopes"),
        ],
        helper.make_tensor_value_info("seconds", TensorProto.INT64, ["n"]),
        helper.make_tensor_value_info("forecast", TensorProto.DOUBLE, ["n", max(1, targets)]),
    )
    seconds = [int(second) for second in series.times[:2]]
    answers = np.sin(np.array(seconds, dtype=float) * (2 * np.pi / 86_400))[:, None] @ slopes
    bundle = Bundle(
        model_type="PROPHET",
        input_kind="timestamps",
        identifier=identifier,
        config_hash=config_hash,
        train_hash=TRAIN_HASH,
        recipe=recipe,
        input_seq_len=1,
        output_seq_len=1,
        rows_required=1,
        max_horizon_steps=None,
        targets=tuple(recipe.targets),
        intervals=_intervals(targets) if targets else None,
        intervals_source="from_refit" if targets else None,
        model_sha256=hashlib.sha256(model).hexdigest(),
        model_size=len(model),
        probe={"inputs": seconds, "outputs": answers.tolist()},
        reason=None if targets else "all_constant",
    )
    return bundle, model


def pointer_of(bundle: Bundle, claim: ClaimCheck, *, pipeline_run_id: str | None = None) -> dict[str, Any]:
    run = pipeline_run_id or new_pipeline_run_id()
    return {
        "model_uri": None,
        "run_id": hashlib.md5(run.encode(), usedforsecurity=False).hexdigest(),
        "experiment_name": bundle.identifier,
        "model_type": bundle.model_type,
        "config_hash": bundle.config_hash,
        "score": 0.1,
        "timestamp": "2024-01-01T00:00:00Z",
        "pipeline_run_id": run,
        "bundle": claim.model_dump(mode="json"),
        "previous": None,
    }


def promote(
    store: ObjectStore, run_store: RunStore, made: tuple[Bundle, bytes], *, pipeline_run_id: str | None = None
) -> dict[str, Any]:
    """Store a bundle and move its identifier's pointer to it."""
    bundle, model = made
    # `train_hash` is part of the bundle's key, so each model gets its own.
    bundle = replace(bundle, train_hash=bundle.model_sha256)
    claim = store_bundle(store, "model-bundles", bundle, model)
    pointer = pointer_of(bundle, claim, pipeline_run_id=pipeline_run_id)
    assert run_store.pointers.move_current(bundle.identifier, pointer) == "moved"
    return pointer


def store_rows(
    store: ObjectStore, series: Series, *, identifier: str = "tiny", config_hash: str = CONFIG_HASH
) -> ClaimCheck:
    """Store raw test rows and their description as preprocess does."""
    key = layout.RAW_TEST_ROWS(identifier, config_hash)
    data = series_to_parquet(series)
    rows, columns = series.values.shape
    claim = put_claimed(store, "processed-data", key, data, rows=rows, columns=columns, create_only=False)
    meta = {"identifier": identifier, "raw_data": claim.model_dump(), "context_rows": 0}
    store.put("processed-data", layout.TEST_META(identifier, config_hash), json.dumps(meta).encode())
    return claim


def champion_of(made: tuple[Bundle, bytes], *, max_horizon_steps: int = 2016) -> Champion:
    """Return a bundle loaded as a champion."""
    bundle, model = made
    data = bundle.to_json()
    claim = ClaimCheck(
        bucket="model-bundles", object_key="x/bundle.json", size=len(data), sha256=hashlib.sha256(data).hexdigest()
    )
    promotion = Promotion.read(bundle.identifier, pointer_of(bundle, claim))
    return load_champion(promotion, bundle, model, max_horizon_steps=max_horizon_steps)


def request_of(series: Series, rows: slice | None = None, **more: Any) -> dict[str, Any]:
    """Return a request with these rows; NaN becomes null, times are in ISO 8601."""
    part = slice(-10, None) if rows is None else rows
    times = [f"{text}Z" for text in np.datetime_as_string(series.times[part].astype("datetime64[s]")).tolist()]
    data: dict[str, Any] = {"time": times}
    for position, name in enumerate(series.columns):
        values = series.values[part, position].tolist()
        data[name] = [None if value != value else value for value in values]  # noqa: PLR0124 - true for NaN
    return {"data": data, **more}


def body_of(series: Series, rows: slice | None = None, **more: Any) -> bytes:
    return json.dumps(request_of(series, rows, **more)).encode()


def answer_of(made: tuple[Bundle, bytes], body: bytes, home: Path) -> dict[str, Any]:
    """Return the answer of /predict to a body with this bundle as the champion, without a server."""
    [answer] = answers_of(made, [body], home)
    return answer


def answers_of(made: tuple[Bundle, bytes], bodies: Iterable[bytes], home: Path) -> list[dict[str, Any]]:
    """Return the answers of /predict to bodies, one after the other, with this bundle as the champion."""
    bundle, model = made
    metrics = Metrics(CollectorRegistry())
    cache = ChampionCache(home)
    champions = Champions(cache, metrics, default_identifier=None, max_loaded=1, max_horizon_steps=2016)
    data = bundle.to_json()
    claim = ClaimCheck(bucket="b", object_key="x/bundle.json", size=len(data), sha256=hashlib.sha256(data).hexdigest())
    promotion = Promotion.read(bundle.identifier, pointer_of(bundle, claim))
    champions.list_changed([bundle.identifier], [])
    assert champions.fetched(bundle.identifier, cache.put_bundle(promotion, data, model).name)

    async def ask() -> list[bytes]:
        batcher = Batcher(max_waiting=10, deadline_seconds=30)
        predictor = Predictor(champions, batcher, metrics, max_rows=10_000, forecast_log=None)
        return [await predictor.predict(body) for body in bodies]

    return [dict(json.loads(answer)) for answer in asyncio.run(ask())]


def serving_environment(store_path: Path, cache: Path, **more: str) -> dict[str, str]:
    """Return the variables of an inference server on a store in a folder."""
    return {
        "STORE": "filesystem",
        "STORE_PATH": str(store_path),
        "CACHE_DIR": str(cache),
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "SERVICE_HOST": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
        **more,
    }


def named_store(home: Path, monkeypatch: pytest.MonkeyPatch) -> FilesystemStore:
    """Return a store in a folder, with its buckets; set the environment's variables to the store."""
    for name, value in serving_environment(home / "store", home / "cache").items():
        monkeypatch.setenv(name, value)
    store = FilesystemStore(home / "store")
    for bucket in BUCKETS:
        store.ensure_bucket(bucket)
    return store


def small_series(rows: int = 400, *, seed: int = 0, missing: float = 0.0) -> Series:
    return make_series(rows, seed=seed, missing=missing)


def _intervals(targets: int) -> Intervals:
    steps = (1, 5, 30)
    width = np.array([[0.5], [1.0], [3.0]]) * np.arange(1.0, targets + 1)
    return Intervals.between(0.9, steps, lower=-width, upper=width + width / 2)


def _model(nodes: list[Any], tensors: list[Any], given: Any, answered: Any) -> bytes:
    graph = helper.make_graph(nodes, "tiny", [given], [answered], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data
