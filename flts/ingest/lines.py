"""Divide a stream into blocks of whole lines, and leave out remarks and totals at its end."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from flts.errors import RejectedError
from flts.ingest.columns import Columns
from flts.ingest.dialect import split_row
from flts.ingest.guard import refuse_long_line, refuse_nul
from flts.ingest.timelike import is_time

BLOCK_BYTES = 1 << 20
TAIL_LINES = 12  # lines that stay together with the end of the file, so that a remark is recognised there
MOST_REMARKS = 8  # lines at the end that can be left out; more of them are no remark
_TOTAL = re.compile(
    r"(grand |sub)?(total|sum|summe|gesamt|insgesamt|average|avg|mean|mittelwert|durchschnitt|somme|moyenne|suma|"
    r"totale|totaal|min|max|count|minimum|maximum|anzahl)\b.*",
    re.IGNORECASE,
)
_WORDS = re.compile(r"[^\W\d_]{3,}.*[^\W\d_]{3,}")
_LINE_END = re.compile(rb"\r\n|\n|\r")


def whole_lines(chunks: Iterable[bytes], name: str) -> Iterator[bytes]:
    """Yield blocks of whole lines of UTF-8; the last block has at least the last `TAIL_LINES` lines.

    The first block of a small file is the whole file.

    Raises
    ------
    RejectedError
        ``not_text``, ``line_too_long`` or ``too_many_columns``.
    """
    held = b""
    for chunk in chunks:
        if b"\0" in chunk:
            refuse_nul(name)
        if len(held) >= BLOCK_BYTES // 2:
            cut = len(held)
            for _ in range(TAIL_LINES + 1):
                cut = held.rfind(b"\n", 0, max(cut, 0))
            if cut > 0:
                yield held[: cut + 1]
                held = held[cut + 1 :]
        begin = held.rfind(b"\n") + 1
        before = len(held)
        held += chunk
        end = held.find(b"\n", before)
        line = held[begin : end if end >= 0 else len(held)]
        refuse_long_line(len(line), line.count(b","), name)
    yield held


def after_lines(block: bytes, count: int) -> bytes:
    """Return a block without its first ``count`` lines."""
    at = 0
    for _ in range(count):
        end = _LINE_END.search(block, at)
        if end is None:
            return b""
        at = end.end()
    return block[at:]


def without_tail(block: bytes, columns: Columns, separator: str) -> tuple[bytes, list[str]]:
    """Return the last block of a file without the remarks and totals at its end, and these lines.

    A remark has another number of cells than the rows, or only one that is not empty, with words that are no time. A
    total has a word such as "Total" instead of a time. A line
    that begins with a time is left out only if it is the last one, as it may be cut off.
    """
    found: list[str] = []
    end = len(block)
    remarks = cut_off = 0
    while end > 0 and remarks <= MOST_REMARKS:
        start, stop = _last_line(block, end)
        line = block[start:stop].decode(errors="replace")
        cells = split_row(line, separator)
        if cells == [line] and line.count('"') % 2:
            return block, []
        if not any(cell.strip() for cell in cells):
            end = start
            continue
        first = cells[min(columns.times[0], len(cells) - 1)].strip()
        alone = (
            sum(1 for cell in cells if cell.strip()) == 1 and not is_time(first) and _WORDS.search(first) is not None
        )
        if len(cells) == len(columns.names) and not (alone or _TOTAL.fullmatch(first)):
            return block[:end], found
        cut_off += is_time(cells[0])
        if cut_off > 1 or (cut_off and found):
            break
        found.insert(0, line.strip())
        remarks += 1
        end = start
    return block, []


def within_limit(chunks: Iterable[bytes], *, max_bytes: int, name: str) -> Iterator[bytes]:
    """Yield the chunks of a file, and refuse an empty file and a file above the limit.

    Raises
    ------
    RejectedError
        ``empty_file`` or ``too_large``.
    """
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > max_bytes:
            msg = f"the file is larger than {max_bytes:,} bytes (MAX_UPLOAD_BYTES)"
            raise RejectedError(msg, code="too_large", field=name)
        yield chunk
    if total == 0:
        msg = "the file is empty"
        raise RejectedError(msg, code="empty_file", field=name)


def _last_line(block: bytes, end: int) -> tuple[int, int]:
    """Return where the last line before ``end`` begins and stops, without its line end."""
    stop = end
    if block[stop - 1 : stop] == b"\n":
        stop -= 1
    if block[stop - 1 : stop] == b"\r" and stop > 0:
        stop -= 1
    start = max(block.rfind(b"\n", 0, stop), block.rfind(b"\r", 0, stop)) + 1
    return start, stop
