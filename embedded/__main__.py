"""``python -m embedded up``: the pipeline until Ctrl-C. ``python -m embedded demo``: a CSV through all of it."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType

from embedded.demo import run_demo
from embedded.settings import DemoSettings, EmbeddedSettings
from embedded.stack import Stack
from flts.errors import FltsError

USAGE = "usage: python -m embedded up | demo\n"


class Stopped(BaseException):
    """Ctrl-C or SIGTERM. Not an Exception, so that no `except Exception` catches it."""


def main() -> int:
    """Run one of the two commands and return the exit code."""
    command = sys.argv[1:]
    if command not in (["up"], ["demo"]):
        sys.stderr.write(USAGE)
        return 2
    settings = EmbeddedSettings.load()
    demo = DemoSettings.load()
    signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)
    try:
        if command == ["demo"]:
            return run_demo(settings, demo, say)
        with Stack(settings, say) as stack:
            stack.wait_ready()
            say(f"gateway {stack.endpoints.gateway_url}  docs {stack.endpoints.gateway_url}/docs")
            say(f"inference {stack.endpoints.inference_url}  MLflow {stack.endpoints.mlflow_url}")
            say(f"API key in {stack.home / 'api-key'}. Ctrl-C stops everything.")
            threading.Event().wait()
    except Stopped:
        say("stopped")
        return 0 if command == ["up"] else 130
    except FltsError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    return 0


def say(line: str) -> None:
    """Print a line at once, also into a pipe."""
    print(line, flush=True)


def _stop(_number: int, _frame: FrameType | None) -> None:
    # `Stopped` starts the clean-up. Later signals are ignored, so that they do not interrupt the clean-up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Stopped


if __name__ == "__main__":
    raise SystemExit(main())
