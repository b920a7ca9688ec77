"""The work of the child process: the handler of all trainers with this service's fit."""

from __future__ import annotations

from flts.runtime.adapters import Adapters
from flts.service import Handler
from flts.trainers import trainer_of
from flts.training.threads import cap_threads, default_threads
from train_container.domain.models import load_model
from train_container.settings import TrainSettings


def train_in_child(settings: TrainSettings, adapters: Adapters) -> Handler:
    """Return the handler; torch is imported here, after the number of its threads is set."""
    threads = settings.train_threads or default_threads()
    cap_threads(threads)
    from flts.training.handler import TrainOnDataset  # noqa: PLC0415 - ONNX Runtime reads the thread limit at its import
    from train_container.domain.training import NeuralFitter  # noqa: PLC0415 - torch reads the thread limit at its import

    trainer = trainer_of(settings.model_type)
    return TrainOnDataset(adapters, settings, trainer, NeuralFitter(load_model(trainer), threads=threads))
