"""Format words, numbers and tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[str] = ()) -> list[str]:
    """Return an aligned table; columns named in ``right`` are aligned to the right, None is shown as ``-``."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(line[at]) for line in [list(headers), *cells]) for at in range(len(headers))]
    to_right = {at for at, name in enumerate(headers) if name in set(right)}

    def line(values: Sequence[str]) -> str:
        parts = (
            value.rjust(width) if at in to_right else value.ljust(width)
            for at, (value, width) in enumerate(zip(values, widths, strict=True))
        )
        return "  ".join(parts).rstrip()

    return [line(headers), line(["-" * width for width in widths]), *map(line, cells)]


def fitting_columns(
    headers: Sequence[str], rows: Sequence[Sequence[object]], *, first_to_go: Iterable[str], width: int
) -> list[int]:
    """Return the positions of the columns with which a table fits; columns are left out in the order that is given.

    Parameters
    ----------
    headers, rows
        Of the whole table.
    first_to_go : iterable of str
        Headers of the columns that may be left out, the least important one first.
    width : int
        Most characters of a line. The table is wider if the other columns are.
    """
    kept = list(range(len(headers)))
    for name in first_to_go:
        lines = table([headers[at] for at in kept], ([row[at] for at in kept] for row in rows))
        if len(lines[1]) <= width:
            break
        kept.remove(headers.index(name))
    return kept


def duration(seconds: object) -> str:
    """Return seconds as text: ``3.2 s``, ``2 min 05 s``, ``1 h 02 min``."""
    if not isinstance(seconds, (int, float)):
        return "-"
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:  # noqa: PLR2004 - an hour
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def number(value: object, *, digits: int = 4) -> str:
    """Return a number with ``digits`` significant digits; larger integer parts are complete, to the unit."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return "-"
    size = abs(value)
    if size != 0 and (size < 1e-4 or size >= 1e15):  # noqa: PLR2004 - an exponent is easier to read than so many zeros
        return f"{value:.{digits - 1}e}"
    if size >= 10**digits:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def fixed(value: object, *, decimals: int = 5) -> str:
    """Return a scaled value with fixed decimals, so that the values of a column are easy to compare."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return "-"
    return f"{value:.{decimals}f}" if abs(value) < 1000 else number(value)  # noqa: PLR2004 - more digits would widen the column


def one_line(text: object) -> str:
    """Return a text with each run of white space replaced by one space."""
    return " ".join(str(text).split())


def _cell(value: object) -> str:
    return "-" if value is None else one_line(value) if isinstance(value, str) else str(value)


def utc(value: object) -> str:
    """Return an ISO 8601 time to the second, without its zone, or ``-``."""
    return str(value)[:19].replace("T", " ") if value else "-"


def moment(text: str) -> datetime:
    """Return the ISO 8601 time of a record."""
    return datetime.fromisoformat(text)
