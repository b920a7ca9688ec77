"""Folders for temporary files. A killed process leaves its folder behind, and the next process removes it."""

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
    """Give a folder that is removed afterwards; its name says whose it is."""
    with tempfile.TemporaryDirectory(prefix=f"flts-{what}-{os.getpid()}-") as name:
        yield Path(name)


def remove_left_behind() -> list[str]:
    """Remove the folders of processes that are gone and return their names; to be called before any is made.

    What bears this process's own number is an earlier one's too: a container's processes have the same numbers after
    each start.
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
