"""Run the gateway: ``python -m gateway_container``."""

from __future__ import annotations

from flts.processes.scratch import remove_left_behind
from flts.runtime.adapters import connect
from flts.runtime.runner import run
from gateway_container.bootstrap import build_service
from gateway_container.settings import GatewaySettings


def main() -> int:
    """Read the settings, connect, serve until a signal; return the exit code."""
    settings = GatewaySettings.load()
    remove_left_behind()  # temporary files of uploads that a killed gateway was receiving
    adapters = connect(settings, tracking=False)
    return run(build_service(settings, adapters), settings, adapters)


if __name__ == "__main__":
    raise SystemExit(main())
