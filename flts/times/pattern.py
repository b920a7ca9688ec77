"""Patterns such as ``DD/MM/YYYY HH:mm``: their tokens, and the positions of the tokens in a cell.

The shape of a cell has ``0`` for each digit, ``a`` for each letter, and all other characters as they are. Cells of one
shape have their fields at the same positions, so that they can be read together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from flts.errors import RejectedError

MAX_PATTERN_CHARACTERS = 60
"""Characters; the longest pattern of the table below has fewer than 40."""

STRPTIME = {
    "%Y": "YYYY", "%G": "YYYY", "%y": "YY", "%m": "MM", "%-m": "M", "%d": "DD", "%e": "D", "%-d": "D", "%H": "HH",
    "%-H": "H", "%k": "H", "%I": "HH", "%-I": "H", "%l": "H", "%M": "mm", "%S": "ss", "%f": "SSSSSS", "%p": "AM",
    "%b": "Mon", "%h": "Mon", "%B": "Month", "%z": "+0000", "%Z": "UTC", "%u": "D", "%F": "YYYY-MM-DD",
    "%T": "HH:mm:ss", "%R": "HH:mm", "%D": "MM/DD/YY",
}  # fmt: skip
"""Part of a pattern by its code in strptime."""
_STRPTIME_PART = re.compile(r"W%V|%-?[A-Za-z%]|%|[A-Za-z]|[^%A-Za-z]+")
_PART = re.compile(
    r"""(?P<quoted>\[[A-Za-z]*\])
    |(?P<offset>\+00:00|\+0000|\+00|\+HH:?mm|UTC|GMT|Z)
    |(?P<month_name>MONTH|Month|month|MON|Mon|mon|MMMM|MMM)
    |(?P<week>Www)
    |(?P<quarter>Qq)
    |(?P<year>[Yy]{4}|[Yy]{2})
    |(?P<am>AM|PM|am|pm)
    |(?P<day>[Dd]{1,2})
    |(?P<m>[Mm]{1,2})
    |(?P<hour>[Hh]{1,2})
    |(?P<s>[Ss]+)
    |(?P<literal>[ /.,:_T-])""",
    re.VERBOSE,
)
_CLASSES = str.maketrans(
    dict.fromkeys("0123456789", "0") | dict.fromkeys("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", "a")
)
_WIDTHS = {
    "year": "0000", "year2": "00", "month_name": "a{3,9}", "quarter": "a0", "week": "a0{1,2}", "weekday": "0",
    "minute": "00", "second": "00", "fraction": "0{1,9}", "am": "aa", "offset": r"a|aaa|[+-]00(?::?00)?",
}  # fmt: skip
_DIGIT_FIELDS = frozenset({"year", "year2", "month", "day", "weekday", "hour", "minute", "second", "fraction"})
_DATE_FIELDS = frozenset({"year", "year2", "month", "month_name", "day", "quarter", "week", "weekday"})
_TIME_FIELDS = frozenset({"hour", "minute", "second", "fraction", "am", "offset"})
# The time of day after a date, in a shape. Two digits without a separator are a part of a compact time.
_CLOCK = (
    r"(?P<hour>0{1,2})(?:(?P<colon>[:.])(?P<minute>00)(?:(?P=colon)(?P<second>00)(?:[.,](?P<fraction>0{1,9}))?)?)?"
    r"|(?P<hour_again>00)(?:(?P<minute_again>00)(?:(?P<second_again>00)(?:[.,](?P<fraction_again>0{1,9}))?)?)?"
)
_AM = r" ?(?P<am>aa)(?!a)"
_OFFSET = r" ?(?P<offset>a|aaa|[+-]00(?::?00)?)"
_GAP = r"(?P<gap>, ?| +|a|_)"
_TIME_OF_DAY = re.compile(rf"(?:{_CLOCK})(?:{_AM})?")


@dataclass(frozen=True, slots=True)
class Token:
    """A field of a time (``day``) or a ``literal``, with its text in the pattern (``DD``)."""

    kind: str
    text: str


Pattern = tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class Fields:
    """The positions of a pattern's fields in the cells of one shape."""

    spans: Mapping[str, tuple[int, int]]
    """Start and stop by kind of field; ``literal_N`` for letters that are no field."""
    letters: Mapping[str, str]
    """The letter, in lower case, that each ``literal_N`` must have."""
    gap: tuple[int, int] | None
    """Position of the text between date and time of day."""


def shape_of(cell: str) -> str:
    """Return a cell's shape."""
    return cell.translate(_CLASSES)


def parse_pattern(text: str) -> Pattern:
    """Return the tokens of a pattern, written with ``YYYY``, ``MM`` ... or with strptime's ``%Y``, ``%m`` ...

    ``MM`` or ``mm`` after an hour is the minute, and the month elsewhere. Letters in brackets are literal.

    Raises
    ------
    ValueError
        If a part is unknown, appears twice, or the pattern has no year.
    """
    if len(text) > MAX_PATTERN_CHARACTERS:
        msg = f"is longer than {MAX_PATTERN_CHARACTERS} characters"
        raise ValueError(msg)
    if "%" in text:
        text = _from_strptime(text)
    tokens: list[Token] = []
    at = 0
    while at < len(text):
        part = _PART.match(text, at)
        if part is None:
            msg = f"has an unknown part at {text[at : at + 10]!r}"
            raise ValueError(msg)
        tokens.extend(_tokens_of(part, tokens))
        at = part.end()
    _check_fields(tokens)
    if any(token.kind == "week" for token in tokens):
        tokens = [Token("weekday", "D") if token.kind == "day" else token for token in tokens]
    return tuple(tokens)


def text_of(pattern: Pattern) -> str:
    """Return a pattern's text; `parse_pattern` of it returns the pattern again."""
    return "".join(
        f"[{token.text}]" if token.kind == "literal" and token.text.isalpha() and token.text != "T" else token.text
        for token in pattern
    )


def date_part(pattern: Pattern) -> Pattern:
    """Return the tokens up to the last field of the date."""
    last = max(at for at, token in enumerate(pattern) if token.kind in _DATE_FIELDS)
    return pattern[: last + 1]


def is_date_first(pattern: Pattern) -> bool:
    """Return whether no field of the time of day comes before a field of the date."""
    return not any(token.kind in _TIME_FIELDS for token in date_part(pattern))


def has(pattern: Pattern, kind: str) -> bool:
    """Return whether a pattern has a field of this kind."""
    return any(token.kind == kind for token in pattern)


@lru_cache(maxsize=4096)
def fields_in(pattern: Pattern, shape: str) -> Fields | None:
    """Return the positions of a pattern's fields in a shape, or None if cells of the shape do not fit the pattern.

    Days, months and hours may have one digit or two, if another character follows. If the date comes first and has a
    day, any time of day may follow it, or none.
    """
    expression, letters = _expression(pattern)
    found = expression.fullmatch(shape)
    if found is None:
        return None
    spans = {name: found.span(name) for name, value in found.groupdict().items() if value}
    gap = spans.pop("gap", None)
    spans.pop("colon", None)
    return Fields({name.removesuffix("_again"): span for name, span in spans.items()}, letters, gap)


def clock_in(shape: str) -> Fields | None:
    """Return the positions of a time of day without a date, or None."""
    found = _TIME_OF_DAY.fullmatch(shape)
    if found is None or found["hour"] is None or (found["minute"] is None and found["am"] is None):
        return None
    spans = {name: found.span(name) for name in ("hour", "minute", "second", "fraction", "am") if found[name]}
    return Fields(spans, {}, None)


@lru_cache(maxsize=1)
def known_patterns() -> tuple[Pattern, ...]:
    """Return the patterns that are found without ``TIME_FORMAT``, the most common first."""
    texts = ["YYYY-MM-DD", *(f"YYYY{mark}MM{mark}DD" for mark in ("/", ".", " ", ". "))]
    for mark in ("/", ".", "-", " ", ". "):
        texts += [f"DD{mark}MM{mark}YYYY", f"MM{mark}DD{mark}YYYY"]
    for mark in ("/", ".", "-", " "):
        texts += [f"DD{mark}MM{mark}YY", f"MM{mark}DD{mark}YY", f"YY{mark}MM{mark}DD"]
    for mark in ("-", " ", "/", ".", ""):
        texts += [f"DD{mark}Mon{mark}YYYY", f"DD{mark}Mon{mark}YY", f"YYYY{mark}Mon{mark}DD"]
    texts += [f"{day} Mon {year}" for day in ("DD.",) for year in ("YYYY", "YY")]
    texts += [f"Mon DD{mark}{year}" for mark in (", ", ",", " ") for year in ("YYYY", "YY")]
    texts += ["Mon-DD-YYYY", "Mon/DD/YYYY", "Mon. DD, YYYY", "DD Mon, YYYY"]
    texts += [f"Mon{mark}{year}" for mark in (" ", "-", "/", "", ", ", ". ", ".") for year in ("YYYY", "YY")]
    texts += [f"YYYY{mark}Mon" for mark in (" ", "-", "/", "")]
    texts += ["YYYY-MM", "YYYY/MM", "YYYY MM", "YYYY.MM", "MM/YYYY", "MM-YYYY", "MM.YYYY", "MM YYYY"]
    texts += ["YYYY[M]MM", "YYYY-[M]MM", "YYYY [M]MM"]
    texts += [f"YYYY{mark}Qq" for mark in ("", "-", " ", "/")] + [f"Qq{mark}YYYY" for mark in (" ", "-", "/", "")]
    texts += [f"YYYY{mark}Www" for mark in ("-", "", " ", "/")] + ["YYYY-Www-D", "YYYYWwwD"]
    texts += ["YYYYMMDD", "YYYYMM"]
    return tuple(parse_pattern(text) for text in texts)


@lru_cache(maxsize=1024)
def patterns_of(shape: str) -> tuple[Pattern, ...]:
    """Return the known patterns, the most common first, that cells of a shape may have."""
    return tuple(pattern for pattern in known_patterns() if fields_in(pattern, shape) is not None)


def styled(pattern: Pattern, cell: str, fields: Fields) -> Pattern:
    """Return the pattern as a cell writes it: digits of its fields, upper case, time of day and offset."""
    date = date_part(pattern) if is_date_first(pattern) else pattern
    tokens = [_as_written(token, cell, fields.spans) for token in date]
    if is_date_first(pattern):
        tokens.extend(_tail_as_written(cell, fields))
    return tuple(tokens)


def refuse_time_format(text: str, reason: str) -> RejectedError:
    """Return the error for an unusable ``TIME_FORMAT``."""
    msg = (
        f"TIME_FORMAT={text[:MAX_PATTERN_CHARACTERS]!r} {reason}; it is a pattern such as DD/MM/YYYY HH:mm:ss or "
        "%d/%m/%Y %H:%M:%S, or one of epoch, epoch ms, epoch us, excel, year"
    )
    return RejectedError(msg, code="bad_setting", field="TIME_FORMAT")


def _from_strptime(text: str) -> str:
    parts = []
    for part in _STRPTIME_PART.findall(text):
        if part == "W%V":
            parts.append("Www")
        elif part.startswith("%"):
            if part not in STRPTIME:
                msg = f"has the unknown code {part!r}"
                raise ValueError(msg)
            parts.append(STRPTIME[part])
        else:
            parts.append(f"[{part}]" if part.isalpha() and part != "T" else part)
    return "".join(parts)


def _tokens_of(part: re.Match[str], before: list[Token]) -> list[Token]:
    kind, text = part.lastgroup or "", part[0]
    if kind == "quoted":
        return [Token("literal", character) for character in text[1:-1]]
    last = before[-1].kind if before else ""
    field_before = next((token.kind for token in reversed(before) if token.kind != "literal"), "")
    if kind == "year" and len(text) == len("YY"):
        kind = "year2"
    elif kind == "m":
        kind = "minute" if field_before == "hour" else "month"
    elif kind == "s":
        kind = "fraction" if field_before == "second" and last == "literal" else "second"
    return [Token(kind, _canonical(kind, text))]


def _canonical(kind: str, text: str) -> str:
    if kind in {"year", "year2", "month", "day", "hour"}:
        return text.upper()
    if kind in {"minute", "second"}:
        return "mm" if kind == "minute" else "ss"
    if kind == "fraction":
        return "S" * min(len(text), 9)
    if kind == "month_name":
        return {"MMM": "Mon", "MMMM": "Month"}.get(text, text)
    if kind == "am":
        return "am" if text.islower() else "AM"
    return text.replace("HH", "00").replace("mm", "00") if kind == "offset" else text


def _check_fields(tokens: list[Token]) -> None:
    kinds = [token.kind for token in tokens if token.kind != "literal"]
    twice = [kind for kind in kinds if kinds.count(kind) > 1]
    found = set(kinds)
    months = found & {"month", "month_name", "quarter", "week"}
    if twice:
        msg = f"has two parts for the {twice[0].replace('_', ' ')}"
    elif len(found & {"year", "year2"}) != 1:
        msg = "has no year (YYYY or YY)" if not found & {"year", "year2"} else "has two parts for the year"
    elif len(months) > 1:
        msg = "has two parts for the month"
    elif "day" in found and (not months or "quarter" in found):
        msg = "has a day and no month"
    elif found & _TIME_FIELDS and "day" not in found:
        msg = "has a time of day and no day"
    elif found & {"minute", "am"} and "hour" not in found:
        msg = "has no hour (HH)"
    elif "second" in found and "minute" not in found:
        msg = "has no minute (mm)"
    else:
        return
    raise ValueError(msg)


@lru_cache(maxsize=1024)
def _expression(pattern: Pattern) -> tuple[re.Pattern[str], Mapping[str, str]]:
    date_first = is_date_first(pattern)
    tokens = date_part(pattern) if date_first else pattern
    letters: dict[str, str] = {}
    parts = []
    for at, token in enumerate(tokens):
        before, after = tokens[at - 1].kind if at else "", tokens[at + 1].kind if at + 1 < len(tokens) else ""
        joined = before in _DIGIT_FIELDS or after in _DIGIT_FIELDS
        if token.kind == "literal" and token.text.isalpha():
            letters[f"literal_{at}"] = token.text.lower()
            parts.append(f"(?P<literal_{at}>a)")
        elif token.kind == "literal":
            parts.append(" +" if token.text == " " else re.escape(token.text))
        else:
            parts.append(f"(?P<{token.kind}>{_width(token, joined=joined)})")
    if date_first and (has(pattern, "day") or has(pattern, "weekday")):
        compact = all(token.kind in _DIGIT_FIELDS for token in tokens)
        parts.append(rf"(?:{_GAP}{'?' if compact else ''}(?:{_CLOCK})(?:{_AM})?)?(?:{_OFFSET})?")
    return re.compile("".join(parts)), letters


def _width(token: Token, *, joined: bool) -> str:
    """Return the expression of a field in a shape; ``joined`` if digits of another field are next to it."""
    return _WIDTHS.get(token.kind) or ("00" if joined else "0{1,2}")


def _as_written(token: Token, cell: str, spans: Mapping[str, tuple[int, int]]) -> Token:
    if token.kind not in spans:
        return token
    start, stop = spans[token.kind]
    text = cell[start:stop]
    if token.kind in {"day", "month", "hour"}:
        return Token(token.kind, token.text[0] * len(text))
    if token.kind == "month_name":
        is_full = len(text) > len("sept") or text.lower() in {"june", "july"}
        name = "Month" if is_full else "Mon"
        return Token(token.kind, name.upper() if text.isupper() else name.lower() if text.islower() else name)
    if token.kind == "fraction":
        return Token(token.kind, "S" * len(text))
    return _mark_as_written(token.kind, text) if token.kind in {"am", "offset"} else token


def _mark_as_written(kind: str, text: str) -> Token:
    if kind == "am":
        return Token("am", "am" if text.islower() else "AM")
    digits = re.sub(r"\d", "0", text).replace("-", "+")
    return Token("offset", digits.upper())


def _tail_as_written(cell: str, fields: Fields) -> list[Token]:
    spans = fields.spans
    tokens: list[Token] = []
    at = None
    if fields.gap is not None:
        start, stop = fields.gap
        at = stop
        tokens.extend(Token("literal", character) for character in cell[start:stop].upper())
    for kind, width in (
        ("hour", "HH"),
        ("minute", "mm"),
        ("second", "ss"),
        ("fraction", ""),
        ("am", ""),
        ("offset", ""),
    ):
        if kind not in spans:
            continue
        start, stop = spans[kind]
        # A separator is between two fields, or between the date and an offset that has no time of day before it.
        before = max((end for _, end in spans.values() if end <= start), default=start) if at is None else at
        tokens.extend(Token("literal", character) for character in cell[before:start])
        text = cell[start:stop]
        if kind in {"am", "offset"}:
            tokens.append(_mark_as_written(kind, text))
        elif kind == "fraction":
            tokens.append(Token(kind, "S" * len(text)))
        else:
            tokens.append(Token(kind, width[: len(text)]))
        at = stop
    return tokens
