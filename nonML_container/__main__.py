"""Run a trainer: ``MODEL_TYPE=PROPHET python -m nonML_container``."""

from __future__ import annotations

from flts.runtime.adapters import connect
from flts.runtime.runner import run
from flts.trainers import trainer_of
from nonML_container.bootstrap import build_service
from nonML_container.settings import NonmlSettings


def main() -> int:
    """Run the service until it is asked to stop."""
    settings = NonmlSettings.load()
    # The baselines' trainer does not connect to MLflow: eval records LINEAR and a promoted baseline.
    adapters = connect(settings, tracking=not trainer_of(settings.model_type).baselines)
    return run(build_service(settings, adapters), settings, adapters)


if __name__ == "__main__":
    raise SystemExit(main())
