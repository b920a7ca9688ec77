"""A GRU trainer that hangs once in the middle of a training: ``python -m tests.hanging_trainer``.

The trainer hangs if the file that HANG_FILE names exists. It removes the file first, so the next attempt succeeds.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flts.contracts.events import Event, TrainingData
from flts.runtime.adapters import Adapters, connect
from flts.runtime.runner import run
from flts.service import Handler, Progress
from train_container.bootstrap import build_service
from train_container.settings import TrainSettings


class HangingTrainSettings(TrainSettings):
    hang_file: Path


class HangOnce:
    def __init__(self, handler: Handler, file: Path) -> None:
        self._handler = handler
        self._file = file

    def __call__(self, event: TrainingData, progress: Progress) -> Sequence[Event]:
        if self._file.exists():
            self._file.unlink()
            progress("train-gru", "training", epoch=1, epochs=2)
            wait_for_what_never_comes()
        return self._handler(event, progress)


def wait_for_what_never_comes() -> None:
    time.sleep(3600)


def train_in_child(settings: HangingTrainSettings, adapters: Adapters) -> Handler:
    from train_container import handler  # noqa: PLC0415 - imports torch, which only the child process needs

    return HangOnce(handler.train_in_child(settings, adapters), settings.hang_file)


def main() -> int:
    settings = HangingTrainSettings.load()
    adapters: Any = connect(settings, tracking=True)
    service = build_service(settings, adapters)
    (subscription,) = service.subscriptions
    hanging = replace(subscription, child="tests.hanging_trainer:train_in_child")
    return run(replace(service, subscriptions=(hanging,)), settings, adapters)


if __name__ == "__main__":
    raise SystemExit(main())
