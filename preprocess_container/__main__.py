"""Run preprocess: ``python -m preprocess_container``."""

from __future__ import annotations

from flts.runtime.adapters import connect
from flts.runtime.runner import run
from preprocess_container.bootstrap import build_service
from preprocess_container.settings import PreprocessSettings


def main() -> int:
    """Run the service until it is asked to stop."""
    settings = PreprocessSettings.load()
    adapters = connect(settings)
    return run(build_service(settings, adapters), settings, adapters)


if __name__ == "__main__":
    raise SystemExit(main())
