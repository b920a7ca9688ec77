"""How a file writes its times: read and write times in this form. The module needs neither pandas nor Arrow."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flts.errors import RejectedError
from flts.times.fields import (
    DAY,
    FULL_MONTHS,
    MONTHS,
    SECOND,
    Moments,
    civil,
    first_of_month,
    read_fields,
    shift_century,
)
from flts.times.numbers import EXCEL_EPOCH_DAYS, NUMBERS, UNITS, read_numbers
from flts.times.pattern import (
    Pattern,
    Token,
    date_part,
    fields_in,
    has,
    is_date_first,
    parse_pattern,
    refuse_time_format,
    shape_of,
    text_of,
)
from flts.times.zones import offsets_at, to_local, to_utc, zone_of

IntArray = NDArray[np.int64]

FIRST_MICROS = -62_135_596_800 * SECOND
"""0001-01-01, the first day of Python's datetime."""
LAST_MICROS = 253_402_300_800 * SECOND - 1
"""The end of the year 9999."""
MAX_OFFSET_SECONDS = 86_400
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_SPACES = str.maketrans({"\u00a0": " ", "\u202f": " ", "\u2009": " "})
_WORDS = {"epoch": "epoch", "epochs": "epoch", "unix": "epoch", "epochms": "epoch ms", "epochus": "epoch us",
          "excel": "excel", "year": "YYYY", "iso": "YYYY-MM-DD"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TimeFormat:
    """The form of a file's times.

    Parameters
    ----------
    pattern
        A pattern such as ``DD/MM/YYYY HH:mm``, or ``epoch``, ``epoch ms``, ``epoch us`` or ``excel`` for numbers.
    zone
        IANA name of the time zone of times without an offset, in which times are also written; None is UTC.
    offset_seconds
        The offset that all cells had; times are written with it if there is no zone.
    first_year
        First of the 100 years that two digits stand for.
    is_float
        Whether numbers are written as floats.
    """

    pattern: str
    zone: str | None = None
    offset_seconds: int = 0
    first_year: int = 1940
    is_float: bool = False

    @classmethod
    def of_setting(cls, text: str, *, zone: str | None = None) -> TimeFormat:
        """Return the format that ``TIME_FORMAT`` names.

        Raises
        ------
        RejectedError
            ``bad_setting`` for ``TIME_FORMAT`` or ``TIME_ZONE``.
        """
        if zone is not None:
            zone_of(zone)
        text = text.strip()
        word = _WORDS.get(re.sub(r"[ _-]", "", text.lower()))
        if word is not None:
            return cls(word, zone)
        try:
            return cls(text_of(parse_pattern(text)), zone)
        except ValueError as error:
            raise refuse_time_format(text, str(error)) from None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TimeFormat:
        """Return the format of `to_dict`.

        Raises
        ------
        RejectedError
            ``bad_recipe`` if a value is missing or not valid.
        """
        try:
            made = cls(
                pattern=_checked(values["pattern"], str),
                zone=None if values["zone"] is None else _checked(values["zone"], str),
                offset_seconds=_checked(values["offset_seconds"], int),
                first_year=_checked(values["first_year"], int),
                is_float=_checked(values["is_float"], bool),
            )
            if made.pattern not in NUMBERS:
                parse_pattern(made.pattern)
            if made.zone is not None:
                zone_of(made.zone)
        except (KeyError, TypeError, ValueError, RejectedError) as error:
            msg = f"the time format {str(dict(values))[:200]} is not valid: {error}"
            raise RejectedError(msg, code="bad_recipe", field="time_format") from error
        if abs(made.offset_seconds) >= MAX_OFFSET_SECONDS or not 1 <= made.first_year <= 9900:  # noqa: PLR2004 - four digits
            msg = "the time format has an offset of more than a day or a first year that is out of range"
            raise RejectedError(msg, code="bad_recipe", field="time_format")
        return made

    def to_dict(self) -> dict[str, str | int | bool | None]:
        """Return JSON values, from which `from_dict` makes the format again."""
        return {
            "pattern": self.pattern,
            "zone": self.zone,
            "offset_seconds": self.offset_seconds,
            "first_year": self.first_year,
            "is_float": self.is_float,
        }

    @property
    def is_number(self) -> bool:
        """Whether times are numbers: epoch seconds, milliseconds, microseconds, or Excel's day numbers."""
        return self.pattern in NUMBERS

    @property
    def has_offset(self) -> bool:
        """Whether each time is written with its offset from UTC, so that the passes of a repeated hour differ."""
        return self.pattern in UNITS or (not self.is_number and has(self._tokens, "offset"))

    @property
    def is_whole_days(self) -> bool:
        """Whether the pattern has no time of day, so that a time is a day, week, month, quarter or year."""
        return not self.is_number and not has(self._tokens, "hour")

    def read(self, texts: Sequence[str | float], *, field: str = "time") -> IntArray:
        """Return the epoch seconds of times in this form; fractions are rounded to the nearest second.

        Raises
        ------
        RejectedError
            ``bad_time`` or ``no_such_time``; the message names the row, counted from 1, and the text.
        """
        micros, naive = self.read_cells(texts, field=field)
        if self.zone is not None and naive.any():
            local = to_utc(micros[naive], self.zone, whole_days=self.is_whole_days, field=field)
            micros[naive] = local.micros
        return to_seconds(micros)

    def read_cells(self, texts: Sequence[str | float], *, field: str) -> tuple[IntArray, NDArray[np.bool_]]:
        """Return microseconds since 1970, and which of them are on the local clock, because the cell has no offset."""
        cells = [text.translate(_SPACES).strip() if isinstance(text, str) else _number_text(text) for text in texts]
        micros = np.zeros(len(cells), np.int64)
        naive = np.ones(len(cells), np.bool_)
        valid = np.zeros(len(cells), np.bool_)
        if self.is_number:
            numbers = np.array([float(cell) if _NUMBER.fullmatch(cell) else np.nan for cell in cells])
            micros, valid = read_numbers(numbers, self.pattern)
            naive[:] = self.pattern == "excel"
        else:
            for rows, moments in self._groups(cells):
                micros[rows], valid[rows], naive[rows] = moments.micros, moments.valid, not moments.has_offset
            valid &= in_range(micros)
        if not valid.all():
            row = int(np.argmin(valid))
            form = f"{self.example()!r} ({self.pattern})"
            msg = f"{field}: row {row + 1} is {cells[row][:40]!r}; times are written like {form}"
            raise RejectedError(msg, code="bad_time", field=field)
        return micros, naive

    def write(self, times: IntArray) -> list[str] | list[int] | list[float]:
        """Return epoch seconds in this form.

        A pattern that cannot express the times, such as a date for 12:00, is extended by the fields that are missing.
        """
        if self.is_number:
            return self._write_numbers(times)
        tokens = self._tokens
        micros = times.astype(np.int64) * SECOND
        offsets = self._offsets(micros, tokens)
        local = micros + offsets
        if self.zone is not None and self.is_whole_days:
            local = _first_instants_as_midnight(local, micros, self.zone)
        tokens = _extended(tokens, local)
        if text_of(tokens) in {"YYYY-MM-DDTHH:mm:ss", "YYYY-MM-DD HH:mm:ss"}:
            texts: list[str] = np.datetime_as_string((local // SECOND).astype("datetime64[s]")).tolist()
            return texts if text_of(tokens)[10] == "T" else [text.replace("T", " ") for text in texts]
        return _write_fields(tokens, local, offsets)

    def example(self) -> str:
        """Return 31 January 2024, 13:45 in this form, or 29 January, a Monday, or 1 January, if it has no days."""
        day = 1_706_708_700
        if self.is_whole_days:
            tokens = self._tokens
            has_day = has(tokens, "day") or has(tokens, "weekday")
            day = 1_706_659_200 if has_day else 1_706_486_400 if has(tokens, "week") else 1_704_067_200
        return str(replace(self, zone=None, offset_seconds=0).write(np.array([day]))[0])

    @property
    def _tokens(self) -> Pattern:
        return parse_pattern(self.pattern)

    def _groups(self, cells: list[str]) -> Iterator[tuple[IntArray, Moments]]:
        """Yield the positions and times of the cells of each shape that fits."""
        shapes: dict[str, list[int]] = {}
        for row, cell in enumerate(cells):
            shapes.setdefault(shape_of(cell), []).append(row)
        tokens = self._tokens
        for shape, rows in shapes.items():
            fields = fields_in(tokens, shape)
            if fields is None or not shape.isascii():
                continue
            if "hour" in fields.spans and has(tokens, "hour") and ("am" in fields.spans) != has(tokens, "am"):
                continue  # 01:00 without AM or PM may be an hour of either half of the day
            text = "".join(cells[row] for row in rows)
            codes = np.frombuffer(text.encode("ascii"), np.uint8).reshape(len(rows), len(shape))
            moments = read_fields(codes, fields)
            if has(tokens, "year2"):
                century = shift_century(moments.micros, self.first_year)
                moments = Moments(century, moments.valid, has_offset=moments.has_offset)
            yield np.array(rows), moments

    def _offsets(self, micros: IntArray, tokens: Pattern) -> IntArray:
        """Return the microseconds by which the written clock is ahead of UTC."""
        mark = next((token.text for token in tokens if token.kind == "offset"), "")
        if mark in {"Z", "UTC", "GMT"}:
            return np.zeros(len(micros), np.int64)
        if self.zone is not None:
            offsets = offsets_at(micros, self.zone)
            # An offset is written in minutes. Local mean times before about 1900 have seconds.
            return offsets // (60 * SECOND) * (60 * SECOND) if mark else offsets
        return np.full(len(micros), self.offset_seconds * SECOND if mark else 0)

    def _write_numbers(self, times: IntArray) -> list[int] | list[float]:
        if self.pattern == "excel":
            local = to_local(times * SECOND, self.zone)
            days = (local / DAY + EXCEL_EPOCH_DAYS).tolist()
            whole = not self.is_float and all(day.is_integer() for day in days)
            return [int(day) for day in days] if whole else days
        numbers: list[int] = (times * (SECOND // UNITS[self.pattern])).tolist()
        return [float(number) for number in numbers] if self.is_float else numbers


def to_seconds(micros: IntArray) -> IntArray:
    """Return the nearest whole seconds; half a second is rounded up."""
    return (micros + SECOND // 2) // SECOND


def in_range(micros: IntArray) -> NDArray[np.bool_]:
    """Return which times are in the years 1 to 9999."""
    return (micros >= FIRST_MICROS) & (micros <= LAST_MICROS)


def _checked(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        msg = f"{value!r} is no {kind.__name__}"
        raise TypeError(msg)
    return value


def _number_text(number: float) -> str:
    """Return a JSON number as a cell: 1885.0 is the year 1885."""
    return str(int(number)) if math.isfinite(number) and number == int(number) else str(number)


def _extended(tokens: Pattern, local: IntArray) -> Pattern:
    """Return the tokens, and the fields that are needed to tell the times apart."""
    if not len(local):
        return tokens
    if has(tokens, "hour"):
        seconds = bool((local % (60 * SECOND)).any())
        minutes = seconds or bool((local % (3600 * SECOND)).any())
        for kind, wanted, text in (("minute", minutes, "mm"), ("second", seconds, "ss")):
            if wanted and not has(tokens, kind):
                tokens = _after_last_clock_field(tokens, kind, text)
        return tokens
    if (local % DAY).any():
        day = date_part(tokens) if has(tokens, "day") and is_date_first(tokens) else parse_pattern("YYYY-MM-DD")
        mark = "T" if text_of(day) == "YYYY-MM-DD" else " "
        clock = "HH:mm:ss" if (local % (60 * SECOND)).any() else "HH:mm"
        offset = tuple(token for token in tokens if token.kind == "offset")
        return (*day, *parse_pattern(f"YYYY-MM-DD{mark}{clock}")[5:], *offset)
    return tokens if _holds_days(tokens, local) else parse_pattern("YYYY-MM-DD")


def _first_instants_as_midnight(local: IntArray, micros: IntArray, zone: str) -> IntArray:
    """Return the local times; a day that begins after a skipped midnight begins at midnight in the result."""
    odd = np.flatnonzero(local % DAY)
    if len(odd) == 0:
        return local
    midnight = local[odd] // DAY * DAY
    local = local.copy()
    local[odd] = np.where(to_utc(midnight, zone, whole_days=True).micros == micros[odd], midnight, local[odd])
    return local


def _after_last_clock_field(tokens: Pattern, kind: str, text: str) -> Pattern:
    at = max(position for position, token in enumerate(tokens) if token.kind in {"hour", "minute"})
    compact = at > 0 and tokens[at - 1].kind in {"day", "hour", "minute"}
    mark = () if compact else (Token("literal", ":"),)
    return (*tokens[: at + 1], *mark, Token(kind, text), *tokens[at + 1 :])


def _holds_days(tokens: Pattern, local: IntArray) -> bool:
    """Return whether the pattern, which has no time of day, expresses these days."""
    if has(tokens, "day") or has(tokens, "weekday"):
        return True
    days = local // DAY
    if has(tokens, "week"):
        return not bool(((days + 3) % 7).any())  # day 0 was a Thursday
    _, month, day = civil(local)
    if has(tokens, "quarter"):
        return bool(((day == 1) & (month % 3 == 1)).all())
    if has(tokens, "month") or has(tokens, "month_name"):
        return bool((day == 1).all())
    return bool(((day == 1) & (month == 1)).all())


def _write_fields(tokens: Pattern, local: IntArray, offsets: IntArray) -> list[str]:
    year, month, day = civil(local)
    week: IntArray = np.zeros(0, np.int64)
    if has(tokens, "week"):
        year, week = _iso_weeks(local)
    clock = local % DAY // SECOND
    half_days = has(tokens, "am")
    columns: list[list[Any]] = []
    template = ""
    for token in tokens:
        if token.kind == "literal":
            template += token.text.replace("%", "%%")
            continue
        form, column = _column(token, (year, month, day), week, clock, half_days=half_days)
        if token.kind == "weekday":
            column = ((local // DAY + 3) % 7 + 1).tolist()
        if token.kind == "offset":
            form, column = "%s", [_offset_text(token.text, seconds) for seconds in (offsets // SECOND).tolist()]
        template += form
        columns.append(column)
    return [template % row for row in zip(*columns, strict=True)]


def _column(
    token: Token, date: tuple[IntArray, IntArray, IntArray], week: IntArray, clock: IntArray, *, half_days: bool
) -> tuple[str, list[Any]]:
    """Return a field's place in the template and its values."""
    year, month, day = date
    width = f"%0{len(token.text)}d"
    hour = clock // 3600
    writers: dict[str, Callable[[], tuple[str, list[Any]]]] = {
        "year": lambda: ("%04d", year.tolist()),
        "year2": lambda: ("%02d", (year % 100).tolist()),
        "month": lambda: (width, month.tolist()),
        "month_name": lambda: ("%s", [_month_text(token.text, at) for at in month.tolist()]),
        "quarter": lambda: ("Q%d", ((month + 2) // 3).tolist()),
        "week": lambda: ("W%02d", week.tolist()),
        "day": lambda: (width, day.tolist()),
        "hour": lambda: (width, ((hour + 11) % 12 + 1 if half_days else hour).tolist()),
        "minute": lambda: ("%02d", (clock % 3600 // 60).tolist()),
        "second": lambda: ("%02d", (clock % 60).tolist()),
        "fraction": lambda: ("0" * len(token.text) + "%.0s", [""] * len(clock)),
        "am": lambda: ("%s", [_half_day(token.text, at) for at in hour.tolist()]),
    }
    writer = writers.get(token.kind)
    return writer() if writer else ("%s", [])


def _month_text(form: str, month: int) -> str:
    name = (FULL_MONTHS if len(form) > len("Mon") else MONTHS)[month - 1]
    return name.upper() if form.isupper() else name if form.islower() else name.capitalize()


def _half_day(form: str, hour: int) -> str:
    text = "PM" if hour >= 12 else "AM"  # noqa: PLR2004 - noon
    return text.lower() if form.islower() else text


def _offset_text(form: str, seconds: int) -> str:
    if form in {"Z", "UTC", "GMT"}:
        return form
    sign = "-" if seconds < 0 else "+"
    hours, minutes = divmod(abs(seconds) // 60, 60)
    if form == "+0000":
        return f"{sign}{hours:02d}{minutes:02d}"
    return f"{sign}{hours:02d}" if form == "+00" and not minutes else f"{sign}{hours:02d}:{minutes:02d}"


def _iso_weeks(local: IntArray) -> tuple[IntArray, IntArray]:
    days = local // DAY
    thursday = days - (days + 3) % 7 + 3  # the ISO year of a week is the year of its Thursday
    year, _, _ = civil(thursday * DAY)
    return year, (thursday - first_of_month((year - 1) * 12)) // 7 + 1
