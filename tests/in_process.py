"""A whole run in this process: preprocess, the trainers' handlers, and eval's judgement."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eval_container.judging import Judgement, judge
from eval_container.settings import EvalSettings
from flts.contracts.events import ModelTraining, Scalar
from flts.runtime.adapters import Adapters
from flts.trainers import TRAINERS, Trainer
from tests.evaluated_runs import no_progress
from tests.preprocessing import Prepared, Preprocessing
from tests.trainers import SETTINGS

CLOSED_FORM = tuple(trainer for trainer in TRAINERS if trainer.baselines)
"""The trainer of the baselines and LINEAR, whose training takes seconds at most."""


@dataclass(frozen=True)
class Decided:
    """A run after eval's decision."""

    prepared: Prepared
    settings: EvalSettings
    """With the run's overrides."""
    trained: dict[str, ModelTraining]
    """The trainers' events by model type."""
    judgement: Judgement
    cpu_seconds: dict[str, float]
    """Processor seconds of each trainer, by its deployment, and of ``eval``, its child processes included."""


def judged_upload(folder: Path, train: bytes, test: bytes | None = None, **overrides: Scalar) -> Judgement:
    """Return eval's judgement of an upload that only the trainer of the baselines trains on; see `decided_upload`."""
    return decided_upload(folder, train, test, **overrides).judgement


def decided_upload(
    folder: Path,
    train: bytes,
    test: bytes | None = None,
    *,
    trainers: Sequence[Trainer] = CLOSED_FORM,
    **overrides: Scalar,
) -> Decided:
    """Preprocess an upload, train with one thread, and decide.

    Raises
    ------
    RejectedError
        If preprocess refuses the upload.
    """
    preprocessing = Preprocessing.start(folder)
    prepared = preprocessing.prepare(train, test, **overrides)
    data, store = prepared.training, prepared.store
    expected = tuple(name for trainer in trainers for name in trainer.awaited)
    common = {
        "kafka_bootstrap_servers": "unused:9092",
        "mlflow_tracking_uri": "http://unused",
        "store": "filesystem",
        "store_path": folder,
    }
    settings = EvalSettings(**common, expected_model_types=expected).with_overrides(overrides)
    store.ensure_bucket(settings.bucket_model_bundles)
    trained, seconds = {}, {}
    for trainer in trainers:
        own = SETTINGS[trainer.package](**common, model_type=trainer.model_type, train_threads=1)
        adapters = Adapters(store, preprocessing.run_store, None, preprocessing.metrics, own)
        handler = importlib.import_module(f"{trainer.package}.handler").train_in_child(own, adapters)
        began = _cpu_seconds()
        trained |= {event.model_type: event for event in handler(data, no_progress)}
        seconds[trainer.deployment] = _cpu_seconds() - began
    began = _cpu_seconds()
    judgement = judge(
        store,
        data,
        settings,
        expected=expected,
        trained=trained,
        missing={},
        pointer=None,
        progress=no_progress,
    )
    seconds["eval"] = _cpu_seconds() - began
    return Decided(prepared, settings, trained, judgement, seconds)


def _cpu_seconds() -> float:
    return sum(os.times()[:4])
