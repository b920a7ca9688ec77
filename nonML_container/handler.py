"""The work of the child process: the handler of all trainers with this service's fit, or `TrainSeveral`."""

from __future__ import annotations

from flts.runtime.adapters import Adapters
from flts.service import Handler
from flts.trainers import trainer_of
from flts.training.threads import cap_threads, default_threads
from nonML_container.domain.models import load_model
from nonML_container.settings import NonmlSettings


def train_in_child(settings: NonmlSettings, adapters: Adapters) -> Handler:
    """Return the handler; the model's library is imported here, after the number of threads is set."""
    cap_threads(settings.train_threads or default_threads())
    from flts.training.handler import TrainOnDataset  # noqa: PLC0415 - ONNX Runtime reads the thread limit at its import

    trainer = trainer_of(settings.model_type)
    if trainer.baselines:
        from nonML_container.several import TrainSeveral  # noqa: PLC0415 - imports ONNX Runtime

        return TrainSeveral(adapters, settings, trainer)
    return TrainOnDataset(adapters, settings, trainer, load_model(trainer))
