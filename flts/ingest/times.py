"""Find the time column by its name."""

from __future__ import annotations

from flts.contracts.columns import TIME_COLUMNS
from flts.errors import RejectedError


def find_time_column(names: list[str], *, ignored: frozenset[str], field: str) -> int:
    """Return the position of the only column that contains times.

    Raises
    ------
    RejectedError
        ``no_time_column`` or ``two_time_columns``; the message names the columns.
    """
    found = [at for at, name in enumerate(names) if name.lower() in TIME_COLUMNS and name not in ignored]
    if not found:
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")  # noqa: PLR2004 - enough to recognise the file
        msg = (
            f"no time column: one column must be named {', '.join(TIME_COLUMNS[:-1])} or {TIME_COLUMNS[-1]}; "
            f"the first line names {shown}"
        )
        raise RejectedError(msg, code="no_time_column", field=field)
    if len(found) > 1:
        both = " and ".join(names[at] for at in found)
        msg = f"{len(found)} time columns, {both}: keep one, or name the others in IGNORE_COLUMNS"
        raise RejectedError(msg, code="two_time_columns", field=names[found[1]])
    return found[0]
