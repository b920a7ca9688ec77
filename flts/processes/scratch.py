"""Folders for temporary files. A killed process leaves its folder behind, and the next process removes the folder."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NAME = re.compile(r"flts-[a-z]+-(\d+)-[^/]+")


@contextmanager
def scratch_folder(what: str) -> Iterator[Path]:
    """Create a folder and remove it at the end of the ``with`` block; its name contains this process's id."""
    with tempfile.TemporaryDirectory(prefix=f"flts-{what}-{os.getpid()}-") as name:
        yield Path(name)


def remove_left_behind() -> list[str]:
    """Remove the folders of processes that have ended, and return their names.

    A process calls this before it creates a folder. Folders with its own process id are removed too, because a
    container's processes get the same ids after each start.
    """
    home = Path(tempfile.gettempdir())
    found = {
        entry.name: _NAME.fullmatch(entry.name) for entry in os.scandir(home) if entry.is_dir(follow_symlinks=False)
    }
    left = sorted(name for name, owned in found.items() if owned and not _runs_beside(int(owned[1])))
    for name in left:
        shutil.rmtree(home / name, ignore_errors=True)
    return left


def _runs_beside(pid: int) -> bool:
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
