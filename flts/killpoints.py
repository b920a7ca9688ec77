"""Named points at which a test may have a process killed; without the setting, passing one costs a look at a variable.

A folder (``KILL_POINTS``) holds what the test and the processes say to each other:

- ``armed/<service>@<point>@<name>.json``: kill the first process of this service that passes this point with a detail
  that fits: ``{"detail": "pipeline-runs/*/decision.json", "skip": 0}``.
- ``claimed/<the same name>``: moved there by the process that then ended itself with SIGKILL, so that exactly one does.
- ``passed/<service>-<pid>.jsonl``: every point that was passed, which is how a test knows that it left none out.

A child process is a service of its own, ``<service>.child``.
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
    """What a process does at its points while the setting is on."""

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
