"""Named points at which a test can kill a process. Without the setting a point costs one check of a variable.

Tests and processes communicate through files in a folder (``KILL_POINTS``):

- ``armed/<service>@<point>@<name>.json``, written by the test: kill the first process of this service that passes this
  point with a matching detail: ``{"detail": "pipeline-runs/*/decision.json", "skip": 0}``.
- ``claimed/<the same name>``: the process moves the file here and then ends itself with SIGKILL. Only one process can
  move it.
- ``passed/<service>-<pid>.jsonl``: every point that a process passed. A test compares its kills with this list.

A child process counts as a service of its own, ``<service>.child``.
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
    """The kill points of a process while the setting is on."""

    def __init__(self, folder: Path, service: str) -> None:
        self._folder = folder
        self._prefix = f"{service}@"
        self._skipped: dict[str, int] = {}
        self._lock = threading.Lock()
        for name in (ARMED, CLAIMED, PASSED):
            (folder / name).mkdir(parents=True, exist_ok=True)
        # Line buffered: the points passed before a SIGKILL must be on disk after it.
        self._journal = (folder / PASSED / f"{service}-{os.getpid()}.jsonl").open("a", buffering=1)

    def reached(self, point: str, detail: str) -> None:
        with self._lock:
            self._journal.write(json.dumps({"at": time.time(), "point": point, "detail": detail}) + "\n")
            for armed in self._armed(point):
                if self._fits(armed, detail) and self._claim(armed):
                    os.kill(os.getpid(), signal.SIGKILL)
                    time.sleep(60)  # this thread must not run on until the signal has ended the process

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
    """Have this process heed its points from now on; for tests only."""
    global _points  # noqa: PLW0603 - one process, one set of points
    _points = _Points(folder, service)


def reached(point: str, *detail: object) -> None:
    """Pass a point: ``reached("object-write.before", bucket, key)``; bytes are read as text."""
    points = _points
    if points is not None:
        points.reached(point, "/".join(_text(part) for part in detail))


def _text(part: object) -> str:
    return part.decode("utf-8", "replace") if isinstance(part, bytes) else str(part)
