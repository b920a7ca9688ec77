"""Run eval: ``python -m eval_container``."""

from __future__ import annotations

from eval_container.bootstrap import build_service
from eval_container.settings import EvalSettings
from flts.runtime.adapters import connect
from flts.runtime.runner import run


def main() -> int:
    """Run the service until it is asked to stop."""
    settings = EvalSettings.load()
    adapters = connect(settings, tracking=True)
    return run(build_service(settings, adapters), settings, adapters)


if __name__ == "__main__":
    raise SystemExit(main())
