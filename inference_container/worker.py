"""Run the inference worker: ``python -m inference_container.worker``."""

from __future__ import annotations

from flts.runtime.adapters import connect
from flts.runtime.runner import run
from inference_container.bootstrap import build_worker
from inference_container.settings import WorkerSettings


def main() -> int:
    """Read the settings, connect, work until a signal; return the exit code."""
    settings = WorkerSettings.load()
    adapters = connect(settings)
    return run(build_worker(settings, adapters), settings, adapters)


if __name__ == "__main__":
    raise SystemExit(main())
