"""Named points at which a test can kill a process. If ``KILL_POINTS`` is unset, a point only checks a variable.

Tests and processes communicate through files in a folder (``KILL_POINTS``):

- ``armed/<service>@<point>@<name>.json``: the test writes this file to kill the first process of the service that
  passes the point with a matching detail. Content: ``{"detail": "pipeline-runs/*/decision.json", "skip": 0}``. The
  process ignores the first ``skip`` matches.
- ``claimed/<the same name>``: the process moves the file to this name and then ends itself with SIGKILL. Only one
  process can move the file.
- ``passed/<service>-<pid>.jsonl``: the points that a process passed. A test compares its kills with this list.

The service name of a child process is ``<service>.child``.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from fnmatch import fnmatchcase
from pathlib import Path

ARMED = "armed"
CLAIMED = "claimed"
PASSED = "passed"


class _Points:
    """The kill points of a process in which ``KILL_POINTS`` is set."""

    def __init__(self, folder: Path, service: str) -> None:
        self._folder = folder
        self._prefix = f"{service}@"
        self._skipped: dict[str, int] = {}
        self._lock = threading.Lock()
        for name in (ARMED, CLAIMED, PASSED):
            (folder / name).mkdir(parents=True, exist_ok=True)
        # `buffering=1` writes each line at once, so that SIGKILL does not lose the points that the process passed
        # before.
        self._journal = (folder / PASSED / f"{service}-{os.getpid()}.jsonl").open("a", buffering=1)

    def reached(self, point: str, detail: str) -> None:
        with self._lock:
            self._journal.write(json.dumps({"at": time.time(), "point": point, "detail": detail}) + "\n")
            for armed in self._armed(point):
                if self._fits(armed, detail) and self._claim(armed):
                    os.kill(os.getpid(), signal.SIGKILL)
                    time.sleep(60)  # this thread must not continue in the time until the signal ends the process

    def _armed(self, point: str) -> list[Path]:
        beginning = f"{self._prefix}{point}@"
        with os.scandir(self._folder / ARMED) as entries:
            return [Path(entry.path) for entry in entries if entry.name.startswith(beginning)]

    def _fits(self, armed: Path, detail: str) -> bool:
        try:
            order = json.loads(armed.read_bytes())
        except FileNotFoundError:  # another process claimed the kill, or the test withdrew it
            return False
        if not fnmatchcase(detail, order.get("detail", "*")):
            return False
        passed = self._skipped.get(armed.name, 0)
        self._skipped[armed.name] = passed + 1
        return passed >= int(order.get("skip", 0))

    def _claim(self, armed: Path) -> bool:
        try:
            armed.rename(self._folder / CLAIMED / armed.name)
        except FileNotFoundError:
            return False
        return True


_points: _Points | None = None


def switch_on(folder: Path, service: str) -> None:
    """Activate the kill points of this process; for tests only."""
    global _points  # noqa: PLW0603 - a process has one set of points
    _points = _Points(folder, service)


def reached(point: str, *detail: object) -> None:
    """Pass a kill point: ``reached("object-write.before", bucket, key)``; bytes are decoded as UTF-8."""
    points = _points
    if points is not None:
        points.reached(point, "/".join(_text(part) for part in detail))


def _text(part: object) -> str:
    return part.decode("utf-8", "replace") if isinstance(part, bytes) else str(part)
