"""Find the use of each column: times, numbers, truth values, or left out. Its cells decide, then its name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from flts.ingest.cell import TRUTH, CellFormat
from flts.ingest.dialect import Shape
from flts.ingest.problems import Problems
from flts.ingest.timelike import is_date, is_time, is_time_of_day
from flts.recipe_settings import ReadSettings
from flts.times import score_as_time

TIME_NAMES = (
    "time", "timestamp", "ts", "date", "ds", "datetime", "date time", "dt", "when", "utc", "time utc", "date utc",
    "utc time", "timestamp utc", "datetime utc", "local time", "datum", "zeit", "zeitstempel", "uhrzeit",
    "datum zeit", "datum uhrzeit", "fecha", "hora", "fecha hora", "horodatage", "heure", "date heure", "data ora",
    "data hora", "tijd",
)  # fmt: skip
"""Names of time columns, in small letters, a space for `_`, `-` and `/`."""
PERIOD_NAMES = (
    "period", "year", "quarter", "month", "week", "day", "hour", "jahr", "quartal", "monat", "woche", "tag", "stunde",
    "periode", "año", "mes", "dia", "año mes", "année", "mois", "jour",
)  # fmt: skip
"""Names of time columns if no column has a name of `TIME_NAMES`."""
ALL_TIME_NAMES = frozenset(TIME_NAMES + PERIOD_NAMES)
YEAR_NAMES = ("year", "yyyy", "yr", "jahr", "año", "année", "anno")
"""Names of columns of years, beside columns of the other parts of the date."""
PART_NAMES = {
    "month": ("month", "mm", "mo", "monat", "mes", "mois", "mese"),
    "quarter": ("quarter", "qtr", "quartal", "trimestre"),
    "day": ("day", "dd", "dy", "day of month", "tag", "dia", "jour", "giorno"),
    "hour": ("hour", "hours", "hr", "hour ending", "stunde", "heure", "hora", "ora", "uur"),
    "minute": ("minute", "minutes", "min", "minuto"),
}
"""Names of the columns of the other parts of a time; a part is joined only if the larger one is there."""
_PARTS = {
    "month": (r"0?[1-9]|1[0-2]|(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}", "-"),
    "quarter": (r"[1-4]", " Q"),
    "day": (r"0?[1-9]|[12]\d|3[01]", "-"),
    "hour": (r"[01]?\d|2[0-4]", " "),
    "minute": (r"[0-5]?\d", ":"),
}
"""Cells of each part, and the text before it where parts are joined."""
_PARTS_IN_ORDER = ("month", "day", "hour", "minute")
MAX_NAME_CHARACTERS = 200
LEAST_SCORE = 0.5  # of `score_as_time`: that of numbers in the range of epoch seconds
SOME_CELLS = 30  # of a column with a time among the first ones, as many are tested
FEW_CELLS = 10  # a column without a time in as many cells is not the time column
RESERVED_SUFFIXES = ("_lower", "_upper")
RESERVED_NAMES = frozenset(
    f"{feature}_{wave}" for feature in ("min_of_day", "day_of_week", "day_of_year") for wave in ("sin", "cos")
)


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a file by use; a column is its position."""

    names: tuple[str, ...]
    times: tuple[int, ...]
    """The time column, or the columns of the parts of a time, in the order in which their cells are joined."""
    time_marks: tuple[str, ...]
    """The text before each further part of a time."""
    numeric: tuple[int, ...]
    truth: frozenset[int]
    """The numeric columns whose cells are true or false."""
    texts: tuple[int, ...]
    """Columns of text, which are left out."""
    series: int | None
    """The column that names the series of a row."""
    ignored: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def time_column(self) -> str:
        """Name of the time column; both names if date and time of day are in two columns."""
        return " ".join(self.names[at] for at in self.times)


def find_columns(shape: Shape, cells: CellFormat, settings: ReadSettings, problems: Problems, *, name: str) -> Columns:
    """Return the use of each column.

    Raises
    ------
    RejectedError
        ``ragged_row``, ``no_time_column``, ``two_time_columns`` or ``no_numeric_column``, together with the earlier
        ``problems``. Problems with names are added to ``problems``.
    """
    rows = [row for row in shape.rows if len(row) == shape.columns]
    looks = [_Look([cell.strip() for cell in column], cells) for column in zip(*rows, strict=True)]
    looks = looks or [_Look([], cells)] * shape.columns
    given, notes = _names(shape, looks, problems, name)
    left_out = {at for at, column in enumerate(given) if column in settings.ignore_columns}
    for at, column in enumerate(given):
        if not column and looks[at].is_empty:
            left_out.add(at)
        elif at == 0 and looks[at].counts_rows and column.lower() in {"", "unnamed: 0"}:
            left_out.add(at)
            notes.append("the first column, which counts the rows and has no name, is left out")
    names = tuple(column or f"column_{at + 1}" for at, column in enumerate(given))
    series = _series_column(names, left_out, settings, problems)
    if series is not None:
        left_out.add(series)
    times, time_marks = _find_times(names, looks, left_out, settings, problems, field=name)
    time_names = [at for at in range(len(names)) if at not in left_out and at not in times and looks[at].is_time]
    if time_names:
        notes.append(f"left out, as {_list(names, times)} has the times: {_list(names, time_names)} (TIME_COLUMN)")
    rest = [at for at in range(len(names)) if at not in left_out and at not in times and at not in time_names]
    texts = tuple(at for at in rest if looks[at].is_text)
    numeric = tuple(at for at in rest if not looks[at].is_text)
    if not numeric:
        _refuse_no_number(names, times, texts, looks, problems, name=name)
    if texts:
        notes.append(f"left out, because most of their cells are text: {_list(names, texts)}")
    _check_names(names, [*numeric, *times], problems, name)
    truth = frozenset(at for at in numeric if looks[at].is_truth)
    if truth:
        notes.append(f"true is read as 1 and false as 0: {_list(names, sorted(truth))}")
    ignored = tuple(names[at] for at in range(len(names)) if given[at] and at not in times and at not in numeric)
    return Columns(names, times, time_marks, numeric, truth, texts, series, ignored, tuple(notes))


class _Look:
    """What the cells of a column in the head look like."""

    def __init__(self, cells: list[str], meaning: CellFormat) -> None:
        self.all = cells
        self.is_empty = not any(cells)
        self._present = cells
        self.others: list[str] = []
        """Cells that are neither numbers nor missing."""
        # One match over all cells is many times as fast as a match of each cell.
        if not re.fullmatch(rf"(?:(?:{meaning.pattern})?\n)*", "\n".join([*cells, ""]), re.ASCII):
            self._present = [cell for cell in cells if not meaning.is_missing(cell)]
            is_moment = any(map(is_time, self._present[:FEW_CELLS]))
            self.others = [cell for cell in self._present if is_moment or meaning.number(cell) is None]

    @property
    def is_text(self) -> bool:
        return 2 * len(self.others) > len(self._present)

    @property
    def is_truth(self) -> bool:
        return bool(self._present) and all(cell.lower() in TRUTH for cell in self._present)

    @property
    def is_time(self) -> bool:
        return self._most(is_time)

    @property
    def is_date(self) -> bool:
        return self._most(is_date)

    @property
    def is_time_of_day(self) -> bool:
        return self._most(is_time_of_day)

    def is_part(self, part: str) -> bool:
        """Return whether all cells are numbers of a part of a time."""
        return bool(self._present) and all(re.fullmatch(_PARTS[part][0], cell) for cell in self._present)

    @property
    def is_year(self) -> bool:
        return bool(self._present) and all(re.fullmatch(r"1[5-9]\d\d|2[0-2]\d\d", cell) for cell in self._present)

    @property
    def repeats(self) -> bool:
        return len(set(self._present)) < len(self._present)

    @property
    def counts_rows(self) -> bool:
        """Whether the first cells are 0, 1, 2, ... or 1, 2, 3, ..."""
        first = self.all[0] if self.all else ""
        if first not in {"0", "1"}:
            return False
        return all(cell == str(at) for at, cell in enumerate(self.all[: len(self.all) // 2 or 1], start=int(first)))

    def _most(self, test: Callable[[str], bool]) -> bool:
        """Return whether most cells pass a test; few cells are tested if none of them passes."""
        few = self._present[:FEW_CELLS]
        some = self._present[:: len(self._present) // SOME_CELLS + 1]
        return any(map(test, few)) and 2 * sum(map(test, some)) > len(some)


def _names(shape: Shape, looks: list[_Look], problems: Problems, field: str) -> tuple[list[str], list[str]]:
    """Return a name for each column, "" for a nameless one, and notes."""
    if shape.header is None:
        named = ["time" if look.is_time else f"column_{at}" for at, look in enumerate(looks, start=1)]
        return named, [f"the file has no header; its columns are called {', '.join(named[:8])}"]
    names = [cell.strip() for cell in shape.header]
    while len(names) > shape.columns and not names[-1]:
        names.pop()
    if len(names) == shape.columns - 1:
        is_pair = len(looks) > 1 and looks[0].is_date and looks[1].is_time_of_day
        if looks[-1].is_empty:
            names.append("")
        elif is_pair:
            names.insert(1, f"{names[0]}_of_day")
        elif looks[0].counts_rows and len(shape.rows) > FEW_CELLS:
            names.insert(0, "")
    if len(names) != shape.columns:
        msg = f"the header has {len(names)} cells, most rows have {shape.columns}; separator {shape.separator!r}"
        problems.refuse(msg, code="ragged_row", field=field)
    return names, []


def _series_column(
    names: tuple[str, ...], left_out: set[int], settings: ReadSettings, problems: Problems
) -> int | None:
    wanted = settings.series_column or "unique_id"
    found = [at for at, name in enumerate(names) if name == wanted and at not in left_out]
    if found or not settings.series_column:
        return found[0] if found else None
    msg = f"SERIES_COLUMN={wanted}: the file has the columns {', '.join(names[:20])}"
    return problems.refuse(msg, code="no_series_column", field="SERIES_COLUMN")


Times = tuple[tuple[int, ...], tuple[str, ...]]
"""Positions of the columns of a time, and the text before each further one."""


def _find_times(
    names: tuple[str, ...],
    looks: list[_Look],
    left_out: set[int],
    settings: ReadSettings,
    problems: Problems,
    *,
    field: str,
) -> Times:
    usable = [at for at in range(len(names)) if at not in left_out]
    if settings.time_column:
        return _given_times(names, usable, looks, settings.time_column, problems)
    if by_cells := _times_by_cells(names, usable, looks, problems):
        return by_cells
    if parts := _parts_of_times(names, usable, looks):
        return parts
    for known in (TIME_NAMES, PERIOD_NAMES):
        found = [at for at in usable if _plain_name(names[at]) in known]
        if found:
            return (_one(names, found, looks, problems),), ()
    if scored := [at for at in usable if score_as_time(looks[at].all[:FEW_CELLS]) >= LEAST_SCORE]:
        return (_one(names, scored, looks, problems),), ()
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")  # noqa: PLR2004 - enough to recognise the file
    msg = (
        f"no time column: no column has dates, and none is named {', '.join(TIME_NAMES[:7])} or the like; "
        f"the header names {shown}. TIME_COLUMN names the column"
    )
    return problems.refuse(msg, code="no_time_column", field=field)


def _times_by_cells(names: tuple[str, ...], usable: list[int], looks: list[_Look], problems: Problems) -> Times | None:
    """Return the column of dates or times, with the column of times of day or hours if there is one; or None."""
    moments = [at for at in usable if looks[at].is_time and not looks[at].is_date]
    dates = [at for at in usable if looks[at].is_date]
    if not moments and not dates:
        return None
    time = _one(names, [*moments, *dates], looks, problems)
    if moments:
        return (time,), ()
    clocks = [at for at in usable if looks[at].is_time_of_day]
    if clocks:
        return (time, _one(names, clocks, looks, problems)), (" ",)
    hour = _part("hour", names, usable, looks)
    return ((time, hour), (" ",)) if hour is not None and looks[time].repeats else ((time,), ())


def _parts_of_times(names: tuple[str, ...], usable: list[int], looks: list[_Look]) -> Times | None:
    """Return the columns of year, month, day, hour and minute, or of year and quarter; None unless years repeat."""
    years = [at for at in usable if _plain_name(names[at]) in YEAR_NAMES and looks[at].is_year]
    if len(years) != 1 or not looks[years[0]].repeats:
        return None
    found = [years[0]]
    marks = []
    for part in _PARTS_IN_ORDER:
        at = _part(part, names, usable, looks)
        if at is None:
            break
        found.append(at)
        marks.append(_PARTS[part][1])
    if not marks and (quarter := _part("quarter", names, usable, looks)) is not None:
        return (years[0], quarter), (_PARTS["quarter"][1],)
    return (tuple(found), tuple(marks)) if marks else None


def _part(part: str, names: tuple[str, ...], usable: list[int], looks: list[_Look]) -> int | None:
    """Return the first column with a name and the cells of a part of a time."""
    found = (at for at in usable if _plain_name(names[at]) in PART_NAMES[part] and looks[at].is_part(part))
    return next(found, None)


def _given_times(
    names: tuple[str, ...], usable: list[int], looks: list[_Look], setting: str, problems: Problems
) -> Times:
    for wanted in ([setting], [part.strip() for part in setting.split(",")]):
        found = tuple(at for name in wanted for at in usable if names[at] == name)
        if len(found) == len(wanted) and len(found) <= 2:  # noqa: PLR2004 - date and time of day
            quarter = len(found) > 1 and looks[found[0]].is_year and looks[found[1]].is_part("quarter")
            if len(found) == 1 or not looks[found[0]].is_year:
                return found, (" ",) * (len(found) - 1)
            return found, (_PARTS["quarter" if quarter else "month"][1],)
        if len(found) == len(wanted) <= 1 + len(_PARTS_IN_ORDER):
            return found, tuple(_PARTS[part][1] for part in _PARTS_IN_ORDER[: len(found) - 1])
    msg = f"TIME_COLUMN={setting}: the file has the columns {', '.join(names[:20])}"
    return problems.refuse(msg, code="no_time_column", field="TIME_COLUMN")


def _one(names: tuple[str, ...], candidates: list[int], looks: list[_Look], problems: Problems) -> int:
    """Return the best candidate: without repeated cells, then by its name.

    Two candidates with equal cells are equally good, and the first is used.
    """

    def rank(at: int) -> tuple[bool, bool, bool]:
        name = _plain_name(names[at])
        return looks[at].repeats, name not in TIME_NAMES, name not in ALL_TIME_NAMES

    best = min(map(rank, candidates))
    equal = [at for at in candidates if rank(at) == best]
    other = [at for at in equal if looks[at].all != looks[equal[0]].all]
    if other:
        one, two = names[equal[0]], names[other[0]]
        msg = f"{one} and {two} can both be the time column: TIME_COLUMN={one} or TIME_COLUMN={two} decides"
        problems.refuse(msg, code="two_time_columns", field=two)
    return equal[0]


def _plain_name(name: str) -> str:
    return re.sub(r"[\s_/()\-]+", " ", name).strip().lower()


def _refuse_no_number(
    names: tuple[str, ...],
    times: tuple[int, ...],
    texts: tuple[int, ...],
    looks: list[_Look],
    problems: Problems,
    *,
    name: str,
) -> None:
    if not texts:
        msg = f"there is no column of numbers beside {_list(names, times)}"
        problems.refuse(msg, code="no_numeric_column", field=name)
    for at in texts[:3]:
        msg = (
            f"column {names[at]}: {looks[at].others[0][:60]!r} is not a number, and no other column has numbers; "
            "DECIMAL, THOUSANDS and MISSING say how numbers and missing cells are written"
        )
        problems.add(msg, code="not_a_number", field=names[at])
    problems.raise_any()


def _check_names(names: tuple[str, ...], used: list[int], problems: Problems, name: str) -> None:
    counts = Counter(names[at] for at in used)
    for column, times in counts.items():
        if len(column) > MAX_NAME_CHARACTERS or not column.isprintable():
            at = names.index(column) + 1
            msg = f"the name of column {at} is longer than {MAX_NAME_CHARACTERS} characters or not printable"
            problems.add(msg, code="bad_column_name", field=name)
        elif times > 1:
            msg = f"{times} columns are called {column}; IGNORE_COLUMNS={column} leaves them out"
            problems.add(msg, code="duplicate_column", field=column)
        elif _is_reserved(column, counts):
            msg = (
                f"the column name {column} is reserved for what FLTS adds (bounds, time features, lags); "
                f"IGNORE_COLUMNS={column} leaves it out"
            )
            problems.add(msg, code="reserved_name", field=column)


def _is_reserved(column: str, columns: Counter[str]) -> bool:
    lag_of = re.fullmatch(r"(.+)_lag_\d+", column)
    return (
        column.endswith(RESERVED_SUFFIXES) or column in RESERVED_NAMES or (lag_of is not None and lag_of[1] in columns)
    )


def _list(names: tuple[str, ...], positions: tuple[int, ...] | list[int]) -> str:
    shown = ", ".join(names[at] for at in positions[:8])
    return shown + (f" and {len(positions) - 8} more" if len(positions) > 8 else "")  # noqa: PLR2004 - one line
