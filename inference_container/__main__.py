"""Run the inference server: ``python -m inference_container``."""

from __future__ import annotations

from flts.runtime.adapters import connect
from flts.runtime.runner import run
from inference_container.bootstrap import build_service
from inference_container.settings import FetchSettings, InferenceSettings


def main() -> int:
    """Read the settings, connect, serve until a signal; return the exit code."""
    # Only the fetching child uses these settings. They are loaded here too, because a wrong value must stop the start.
    FetchSettings.load()
    settings = InferenceSettings.load()
    adapters = connect(settings)
    return run(build_service(settings, adapters), settings, adapters)


if __name__ == "__main__":
    raise SystemExit(main())
