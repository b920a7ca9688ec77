"""Figures of a long suite: a table on the terminal, and JSON in the folder that FLTS_REPORTS names."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def report(name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as a table under a heading; write them to ``<name>.json`` if FLTS_REPORTS is set."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [columns, *([_text(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(columns))]
    print(f"\n{name}")  # noqa: T201 - a person reads these figures
    for row in cells:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())  # noqa: T201 - for a person
    folder = os.environ.get("FLTS_REPORTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, f"{name}.json").write_text(json.dumps(list(rows), indent=1, default=str))


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if isinstance(value, float) else str(value)
