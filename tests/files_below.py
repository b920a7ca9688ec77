"""List the files below a folder in which other processes work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def files_below(folder: Path, suffix: str = "") -> Iterator[Path]:
    """Yield the files below a folder whose names end with ``suffix``; skip folders that are removed meanwhile.

    ``Path.rglob`` raises an error if a service removes an empty folder after it was listed and before it is read.
    """
    for inside, _, names in os.walk(folder):
        yield from (Path(inside, name) for name in names if name.endswith(suffix))
