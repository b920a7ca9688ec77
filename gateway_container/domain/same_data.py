"""Compare an upload with the upload of the same name before it, so that a wrong file does not replace a data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flts.errors import ConflictError

LEAST_SHARE = 0.5
"""Share of the rows of the upload before; an upload with fewer is refused."""
NAMES_SHOWN = 5


def description(report: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """Return what the record of an upload keeps of its report, to compare the next upload with."""
    return {"rows": rows, "columns": list(report["columns"]), "step": report["step"]}


def refuse_other_data(identifier: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse an upload that does not continue a data set.

    Parameters
    ----------
    identifier : str
    before, now : mapping
        `description` of the upload before and of this one.

    Raises
    ------
    ConflictError
        ``other_data`` with field ``train``: other columns, another step, or fewer than half of the rows.
    """
    differences = []
    for which, names in (
        ("lacks", [name for name in before["columns"] if name not in now["columns"]]),
        ("adds", [name for name in now["columns"] if name not in before["columns"]]),
    ):
        if names:
            shown = ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")
            differences.append(f"{which} the columns {shown}")
    if now["step"] != before["step"]:
        differences.append(f"has a step of {now['step']} instead of {before['step']}")
    if now["rows"] < LEAST_SHARE * before["rows"]:
        differences.append(f"has {now['rows']:,} rows instead of {before['rows']:,}")
    if differences:
        msg = (
            f"this file {' and '.join(differences)}, so it does not continue the data set {identifier}: upload it "
            "under another name, or repeat the upload with replace (flts upload --replace, ?replace=true) to put it in "
            "the place of the data set"
        )
        raise ConflictError(msg, code="other_data", field="train")
