"""The files below a folder in which other processes work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def files_below(folder: Path, suffix: str = "") -> Iterator[Path]:
    """Yield the files below a folder whose names end like this, leaving out folders that vanish meanwhile.

    ``Path.rglob`` raises where a service removes an emptied folder between being listed and being looked into.
    """
    for inside, _, names in os.walk(folder):
        yield from (Path(inside, name) for name in names if name.endswith(suffix))
