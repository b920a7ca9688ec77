"""Guess the decimal mark and the thousands mark of a file from cells of its head."""

from __future__ import annotations

import re
from collections.abc import Iterable

from flts.errors import RejectedError
from flts.ingest.cell import SPACES, THOUSANDS_MARKS

ENOUGH_CELLS = 200  # further cells are looked at only if these do not show the decimal mark
_MARKED = re.compile(rf"[+-]?(\d*)((?:[.,'\u2019{SPACES}]\d*)*)(?:[eE][+-]?\d+)?", re.ASCII)
_GROUPS = {mark: key for key in ("space", "apostrophe") for mark in THOUSANDS_MARKS[key]}


def guess_marks(  # noqa: PLR0911 - one return a case
    cells: Iterable[str], *, separator: str, decimal: str | None, thousands: str | None, field: str
) -> tuple[str, str]:
    """Return the decimal mark and the thousands mark.

    A mark that occurs twice in a number, or before the other mark, divides thousands. A mark with another number of
    digits after it than three is the decimal mark. If all numbers with a mark have exactly three digits after it, and
    all others are below 1,000, the mark divides thousands in a file with semicolons or tabs.

    Parameters
    ----------
    decimal, thousands
        The settings; None if not given.

    Raises
    ------
    RejectedError
        ``two_readings`` if neither reading is excluded; the message names both and the settings. ``bad_setting`` if
        both settings name the same mark.
    """
    if decimal is not None and decimal == thousands:
        msg = f"DECIMAL and THOUSANDS are both {decimal}; they must differ"
        raise RejectedError(msg, code="bad_setting", field="THOUSANDS")
    if decimal is not None and thousands is not None:
        return decimal, thousands
    seen = _Seen(cells)
    found = thousands if thousands is not None else seen.groups
    if decimal is not None:
        other = "." if decimal == "," else ","
        return decimal, found or (other if thousands is None and seen.may_divide(other) else "")
    if thousands is not None and thousands in {".", ","}:
        return ("," if thousands == "." else "."), thousands
    point, comma = seen.is_decimal["."], seen.is_decimal[","]
    if comma and not point:
        return ",", found or ("." if seen.may_divide(".") and thousands is None else "")
    if point and not comma:
        return ".", found or ("," if seen.may_divide(",") and thousands is None else "")
    if point or comma or thousands is not None or found:
        return ".", found
    return seen.resolve(separator, field)


class _Seen:
    """What the numbers of a file show about `.` and `,`."""

    def __init__(self, cells: Iterable[str]) -> None:
        self.is_decimal = {".": False, ",": False}
        self._divides = {".": False, ",": False}
        self._unclear: dict[str, list[str]] = {".": [], ",": []}
        self._without = 0
        self._largest_without = 0
        self.groups = ""
        for count, cell in enumerate(cells):
            if count > ENOUGH_CELLS and (self.is_decimal["."] or self.is_decimal[","]):
                break
            if cell.isdecimal():
                self._without += 1
                self._largest_without = max(self._largest_without, int(cell[:20]))
            elif (match := _MARKED.fullmatch(cell.strip())) and (match[1] or match[2]):
                self._look(cell.strip(), match[1], match[2])

    def may_divide(self, mark: str) -> bool:
        return self._divides[mark] or bool(self._unclear[mark])

    def resolve(self, separator: str, field: str) -> tuple[str, str]:
        """Choose where no number shows the decimal mark."""
        for mark, other in ((".", ","), (",", ".")):
            if self._divides[mark]:
                return other, mark
            unclear = self._unclear[mark]
            if not unclear:
                continue
            small = bool(self._without) and self._largest_without < 1000  # noqa: PLR2004 - the least number with a mark
            local = separator in {";", "\t"}  # files of programs that write a decimal comma
            if small and local == (mark == "."):
                return other, mark
            if small or mark == "," or (separator == ";" and self._without == 0):
                cell = unclear[0]
                one, thousand = cell.replace(mark, "."), cell.replace(mark, "")
                msg = (
                    f"{cell!r} is {one} or {thousand}: every number with {mark!r} has three digits after it. "
                    f"DECIMAL={mark} reads {one}, THOUSANDS={mark} reads {thousand}"
                )
                raise RejectedError(msg, code="two_readings", field=field)
            return mark, ""
        return ".", ""

    def _look(self, cell: str, whole: str, rest: str) -> None:
        for mark, key in _GROUPS.items():
            if mark in rest:
                self.groups = key
                parts = re.split(f"[{re.escape(THOUSANDS_MARKS[key])}]", whole + rest)
                whole, rest = "", parts[-1][3:]
        points, commas = rest.count("."), rest.count(",")
        if points and commas:
            last = max(rest.rindex("."), rest.rindex(","))
            self.is_decimal[rest[last]] = True
            self._divides["," if rest[last] == "." else "."] = True
        elif points > 1 or commas > 1:
            self._divides["." if points else ","] = True
        elif points or commas:
            mark, digits = rest[0], rest[1:]
            if len(digits) != 3 or not 1 <= len(whole) <= 3 or whole[0] == "0":  # noqa: PLR2004 - a group of thousands
                self.is_decimal[mark] = True
            else:
                self._unclear[mark].append(cell)
        elif whole:
            self._without += 1
            self._largest_without = max(self._largest_without, int(whole[:20]))
