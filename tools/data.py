"""Write the tables and examples of ``docs/data.md``: ``python -m tools.data [--check]``.

Two comments enclose a block, ``NAME: written by `make generate``` and ``end of NAME``. The rest of the page is written
by hand.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from flts.contracts.columns import TIME_COLUMNS
from flts.forecasting.grid import Grid
from flts.forecasting.observed_grid import find_grid
from flts.forecasting.series import IntArray
from flts.forecasting.step_setting import UNIT_MONTHS, UNIT_SECONDS, grid_of
from flts.ingest.cell import MISSING, THOUSANDS_MARKS, TRUTH
from flts.ingest.cells import MAX_CELL_CHARACTERS
from flts.ingest.columns import MAX_NAME_CHARACTERS, PART_NAMES, PERIOD_NAMES, TIME_NAMES, YEAR_NAMES
from flts.ingest.dialect import SEPARATORS
from flts.ingest.guard import MAX_LINE_BYTES
from flts.ingest.magic import OTHERS, READABLE
from flts.ingest.series_column import MOST_SERIES
from flts.recipe_settings import ReadSettings, RecipeSettings
from flts.settings import UploadLimits
from flts.times import TimeFormat
from flts.times.numbers import LIKELY
from flts.times.pattern import STRPTIME, known_patterns, text_of
from tools import configuration
from tools.data_errors import errors
from tools.data_examples import EXAMPLES, shown
from tools.data_requests import requests

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "data.md"
BEGIN, END = "<!-- {}: written by `make generate` -->", "<!-- end of {} -->"
ROLES = ("targets", "past_columns", "future_columns", "holidays")
OF_THE_ROWS = ("step", "max_gap_steps", "train_test_split", *ROLES, "nans_threshold")
"""Settings of the recipe that decide which rows and columns are used."""
EXAMPLE_DAYS = ("2024-01-31", "2024-01-29", "2024-01-01")
"""A day that cannot be a month, the Monday of its week, and the first day of its month."""
MOMENT = 1_706_711_400
"""2024-01-31 14:30 UTC."""
READ_AS = {"gzip": "CSV in gzip", "Parquet": "Parquet", "Excel": "Excel, .xlsx: the first visible sheet with a table"}
SEPARATOR_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar", " ": "one or more spaces"}
THOUSANDS_NAMES = {
    "none": "no mark",
    "space": "space, no-break space, narrow no-break space or thin space",
    "apostrophe": "`'` or `\u2019`",
    ".": "point",
    ",": "comma",
}
FORMS_OF_STEP = {
    "every 10 minutes": ("30 minutes", "1h"),
    "every hour from 8 to 17 on Monday to Friday": (
        "1 h",
        "1 h, all hours",
        "1 h, 06:00 to 18:00",
        "1 h, Monday to Friday 08:00 to 17:00, Saturday 09:00 to 13:00",
    ),
    "Monday to Friday": ("1 day", "1 day, every day", "b", "week, friday"),
    "the last day of each month": ("month", "1 month, last day at 12:00", "quarter"),
}
"""Forms of ``STEP``, by the rows for which the page shows them (`_grids`)."""
DAY = 86_400


def main() -> int:
    """Fill the blocks; with ``--check`` only return 1 if the page is stale."""
    before = TARGET.read_text(encoding="utf-8")
    text = document(before)
    if "--check" in sys.argv[1:]:
        if text != before:
            sys.stderr.write(f"{TARGET.name} is stale: make generate\n")
        return int(text != before)
    TARGET.write_text(text, encoding="utf-8")
    return 0


def document(text: str) -> str:
    """Return the page with its blocks filled.

    Raises
    ------
    LookupError
        If the page does not hold each block exactly once.
    """
    blocks: dict[str, Callable[[], Iterable[str]]] = {
        "formats": formats,
        "marks": marks,
        "missing marks": missing_marks,
        "names of time columns": time_names,
        "time patterns": patterns,
        "numbers as times": numbers,
        "strptime": strptime,
        "calendars": calendars,
        "units of STEP": units,
        "other forms of STEP": forms_of_step,
        "settings": settings,
        "limits": limits,
        "error codes": errors,
        "names in requests": request_names,
        "requests": requests,
    }
    for name, example in EXAMPLES.items():
        blocks[f"example {name}"] = partial(shown, example)
    for name, lines in blocks.items():
        text = filled(text, name, lines())
    return text


def filled(text: str, name: str, lines: Iterable[str]) -> str:
    """Return a text with one of its blocks replaced."""
    begin, end = BEGIN.format(name), END.format(name)
    found = re.findall(rf"(?ms)^{re.escape(begin)}$.*?^{re.escape(end)}$", text)
    if len(found) != 1:
        msg = f"{TARGET.name} has {len(found)} blocks called {name}"
        raise LookupError(msg)
    return text.replace(found[0], "\n".join([begin, "", *lines, "", end]))


def formats() -> Iterator[str]:
    """Yield the table of formats and the bytes by which they are known."""
    yield from _head("first bytes", "format")
    for magic, name in READABLE:
        yield f"| {_bytes(magic)} | {READ_AS[name]} |"
    for magic, other in OTHERS:
        yield f"| {_bytes(magic)} | {other}: refused (`not_csv`) |"
    yield "| others | text: CSV with any of the separators below |"


def marks() -> Iterator[str]:
    """Yield the separators of cells and the marks of numbers."""
    yield f"- Separators: {', '.join(SEPARATOR_NAMES[mark] for mark in SEPARATORS)}."
    choices = [name for name in THOUSANDS_MARKS if name in THOUSANDS_NAMES]
    yield f"- `THOUSANDS`: {'; '.join(f'`{name}`: {THOUSANDS_NAMES[name]}' for name in choices)}."
    truth = {value: [word for word, number in TRUTH.items() if number == value] for value in (1.0, 0.0)}
    yield f"- True and false, in capitals or not: {'; '.join(f'{_codes(words)}: {n:g}' for n, words in truth.items())}."


def missing_marks() -> Iterator[str]:
    """Yield the marks of missing cells."""
    yield f"Empty cells, {_codes(mark for mark in MISSING if mark)}."


def time_names() -> Iterator[str]:
    """Yield the names of time columns."""
    yield f"1. {_codes(TIME_NAMES)}"
    yield f"2. {_codes(PERIOD_NAMES)}"
    yield f"3. Parts of a time, year: {_codes(YEAR_NAMES)}"
    for part, names in PART_NAMES.items():
        yield f"   - {part}: {_codes(names)}"


def request_names() -> Iterator[str]:
    """Yield the names of the time column in a request."""
    yield f"{_codes(TIME_COLUMNS)}."


def patterns() -> Iterator[str]:
    """Yield the table of dates that are found without ``TIME_FORMAT``, one row for each order of fields."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for pattern in known_patterns():
        fields = tuple(token.text for token in pattern if token.kind != "literal")
        groups.setdefault(fields, []).append(text_of(pattern))
    yield from _head("pattern", "example", "other forms")
    for fields, texts in groups.items():
        day = EXAMPLE_DAYS[0 if {"DD", "D"} & set(fields) else 1 if "Www" in fields else 2]
        [example] = TimeFormat(texts[0]).write(np.array([day], "datetime64[s]").astype(np.int64))
        yield f"| `{texts[0]}` | `{example}` | {_codes(texts[1:])} |"


def numbers() -> Iterator[str]:
    """Yield the table of numbers that are times."""
    yield from _head("`TIME_FORMAT`", "read without it", "31 January 2024, 14:30 UTC, is")
    for unit, (least, most) in LIKELY.items():
        [example] = TimeFormat(unit).write(np.array([MOMENT]))
        yield f"| `{unit}` | {least:,.0f} to below {most:,.0f} | `{example}` |"


def strptime() -> Iterator[str]:
    """Yield the codes of strptime that ``TIME_FORMAT`` accepts."""
    yield f"{_codes(STRPTIME)}."


def calendars() -> Iterator[str]:
    """Yield the table of calendars: rows, the step that is found, and its seasons.

    Raises
    ------
    ValueError
        If ``STEP`` does not accept the text of a report.
    """
    yield from _head("rows", "`step` in the report, a value of `STEP`", "seasons in rows")
    for rows, grid, times in _grids():
        if grid_of(times, grid.text, grid.zone) != grid:
            msg = f"STEP={grid.text} is another calendar than that of the report"
            raise ValueError(msg)
        yield f"| {rows} | `{grid.text}` | {', '.join(map(str, grid.seasons)) or '-'} |"


def units() -> Iterator[str]:
    """Yield the names of units in ``STEP``."""
    groups: dict[tuple[str, int], list[str]] = {}
    for kind, names in (("seconds", UNIT_SECONDS), ("months", UNIT_MONTHS)):
        for name, count in names.items():
            groups.setdefault((kind, count), []).append(name)
    yield f"{'; '.join(_codes(names) for names in groups.values())}; `business day`, `b`."


def forms_of_step() -> Iterator[str]:
    """Yield the table of forms of ``STEP`` that reports do not write, and what they are for some rows."""
    yield from _head("rows", "`STEP`", "`step` in the report")
    found = {rows: times for rows, _, times in _grids()}
    for rows, steps in FORMS_OF_STEP.items():
        for step in steps:
            yield f"| {rows} | `{step}` | `{grid_of(found[rows], step).text}` |"


def settings() -> Iterator[str]:
    """Yield the table of settings that decide how a file is read."""
    rows = {section.owner: section.rows for section in configuration.sections()}
    yield from _head("setting", "type", "default", "meaning")
    own = rows[RecipeSettings]
    for row in [*rows[ReadSettings].values(), *(own[name] for name in OF_THE_ROWS)]:
        yield f"| {row.variable} | {row.kind} | {row.default} | {_cell(row.text)} |"


def limits() -> Iterator[str]:
    """Yield the table of limits."""
    rows = next(section.rows for section in configuration.sections() if section.owner is UploadLimits)
    yield from _head("limit", "value", "setting")
    for name, row in rows.items():
        default = UploadLimits.model_fields[name].default
        yield f"| {_cell(row.text.rstrip('.'))} | {default:,} | {row.variable} |"
    for text, value in (
        ("Bytes of one line", MAX_LINE_BYTES),
        ("Characters of one cell", MAX_CELL_CHARACTERS),
        ("Characters of the name of a column", MAX_NAME_CHARACTERS),
        ("Series of a long table", MOST_SERIES),
    ):
        yield f"| {text} | {value:,} | |"


def _grids() -> Iterator[tuple[str, Grid, IntArray]]:
    """Yield rows in words, their calendar and their times."""
    days = np.arange(np.datetime64("2020-01-01"), np.datetime64("2024-01-01"))
    weekdays = (days.astype(np.int64) + 3) % 7  # 1970-01-01 was a Thursday, day 3 from Monday
    months = np.arange(np.datetime64("2015-01"), np.datetime64("2024-01"))
    firsts = months.astype("datetime64[D]")
    lasts = (months + 1).astype("datetime64[D]") - 1
    minutes = np.arange(0, 60 * DAY, 600) + 1_704_067_200
    hours = minutes[minutes % 3_600 == 0]
    of_day = hours % DAY // 3_600
    week = days[weekdays < 5]  # noqa: PLR2004 - Saturday
    open_hours = hours[(of_day >= 8) & (of_day <= 17) & ((hours // DAY + 3) % 7 < 5)]  # noqa: PLR2004 - 8 to 17 o'clock
    for rows, moments in (
        ("every 10 minutes", minutes),
        ("every hour", hours),
        ("every day", days),
        ("Monday to Friday", week),
        ("Monday to Saturday", days[weekdays < 6]),  # noqa: PLR2004 - Sunday
        ("Fridays", days[weekdays == 4]),  # noqa: PLR2004 - Friday
        ("every hour from 8 to 17 on Monday to Friday", open_hours),
        ("the first day of each month", firsts),
        ("the last day of each month", lasts),
        ("the 15th of each month", firsts + 14),
        ("the last day of each quarter", lasts[2::3]),
        ("1 January of each year", firsts[::12]),
    ):
        times = moments.astype("datetime64[s]").astype(np.int64)
        yield rows, find_grid(times), times


def _head(*titles: str) -> list[str]:
    return [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]


def _codes(words: Iterable[str]) -> str:
    return ", ".join(f"`{_cell(word)}`" for word in words)


def _bytes(magic: bytes) -> str:
    text = magic.decode("latin-1")
    return f"`{text}`" if text.isascii() and text.isprintable() else f"`{magic.hex(' ')}` (hexadecimal)"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    raise SystemExit(main())
