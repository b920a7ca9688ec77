"""Run a trainer: ``MODEL_TYPE=GRU python -m train_container``."""

from __future__ import annotations

from flts.runtime.adapters import connect
from flts.runtime.runner import run
from train_container.bootstrap import build_service
from train_container.settings import TrainSettings


def main() -> int:
    """Run the service until it is asked to stop."""
    settings = TrainSettings.load()
    adapters = connect(settings, tracking=True)
    return run(build_service(settings, adapters), settings, adapters)


if __name__ == "__main__":
    raise SystemExit(main())
