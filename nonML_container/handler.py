"""What the child process does with a data set: all trainers' handler, with this service's fit."""

from __future__ import annotations

from flts.runtime.adapters import Adapters
from flts.runtime.service import Handler
from flts.training.threads import cap_threads, default_threads
from nonML_container.settings import NonmlSettings


def train_in_child(settings: NonmlSettings, adapters: Adapters) -> Handler:
    """Return the handler; prophet is imported here, once the number of threads is settled."""
    cap_threads(settings.train_threads or default_threads())
    from flts.training.handler import TrainOnDataset  # noqa: PLC0415 - ONNX Runtime and numpy read the thread limits
    from nonML_container.domain.training import ProphetFitter  # noqa: PLC0415 - once, when they are imported

    return TrainOnDataset(adapters, settings, ProphetFitter(optimiser=settings.prophet_optimiser))
