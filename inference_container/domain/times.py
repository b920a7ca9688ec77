"""Times of requests: read from ISO 8601 or epoch seconds, answered in the same form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from flts.errors import RejectedError
from flts.times.numbers import FIRST_SECOND, LAST_SECOND

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_NAIVE = datetime(1970, 1, 1)  # noqa: DTZ001 - a time without a time zone is UTC here
PLAIN_LENGTH = 19  # characters of YYYY-MM-DDTHH:MM:SS
VECTOR_ROWS = 64  # rows; for fewer rows a loop is faster than numpy
DIGITS = np.array([0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18])
SECOND = timedelta(seconds=1)


class WritesTimes(Protocol):
    """A form of times, in which an answer is written."""

    def write(self, times: NDArray[np.int64]) -> list[str] | list[int] | list[float]:
        """Return epoch seconds in this form."""
        ...


@dataclass(frozen=True, slots=True)
class TimeStyle:
    """The form of a request's times, in which the answer writes its times too."""

    form: Literal["iso", "integer", "float"]
    separator: str = "T"
    timespec: Literal["date", "minutes", "seconds"] = "seconds"
    suffix: str = ""
    """``""`` for naive times (UTC), ``"Z"`` or ``"+00:00"``."""

    def write(self, times: NDArray[np.int64]) -> list[str] | list[int] | list[float]:
        """Return epoch seconds in this style; all times are UTC, whatever the offset of the request was."""
        if self.form == "integer":
            whole: list[int] = times.tolist()
            return whole
        if self.form == "float":
            return [float(second) for second in times.tolist()]
        texts = _texts(times)
        if self.timespec == "date" and not np.any(times % 86_400):
            return [text[:10] for text in texts]
        stop = 16 if self.timespec == "minutes" and not np.any(times % 60) else PLAIN_LENGTH
        if self.separator == "T" and stop == PLAIN_LENGTH and not self.suffix:
            return texts
        return [f"{text[:10]}{self.separator}{text[11:stop]}{self.suffix}" for text in texts]


INTEGER_STYLE = TimeStyle("integer")
FLOAT_STYLE = TimeStyle("float")


def read_iso(texts: Sequence[str], *, field: str) -> tuple[NDArray[np.int64], TimeStyle]:
    """Read ISO 8601 times: naive is UTC, offsets become UTC, whole seconds only.

    Returns
    -------
    times : (n,) epoch seconds
    style : TimeStyle
        The last text's style.

    Raises
    ------
    RejectedError
        Code ``bad_time``, naming the field, the row and the text.
    """
    style = _style(texts[-1]) if texts else TimeStyle("iso")
    times = _read_uniform(texts) if len(texts) > VECTOR_ROWS else None
    if times is None:
        times = np.array([_read_one(text, row, field) for row, text in enumerate(texts)], dtype=np.int64)
    return times, style


def read_epoch(numbers: Sequence[float], *, field: str, integers: bool) -> tuple[NDArray[np.int64], TimeStyle]:
    """Read epoch seconds.

    Raises
    ------
    RejectedError
        Code ``bad_time`` if a number is not a whole second between the years 1 and 9999.
    """
    seconds = np.array(numbers, dtype=np.float64)
    wrong = (seconds != np.rint(seconds)) | (seconds < FIRST_SECOND) | (seconds > LAST_SECOND)
    if wrong.any():
        row = int(wrong.argmax())
        msg = (
            f"{field}: row {row + 1} is {numbers[row]!r}; times are ISO 8601 texts or whole epoch seconds "
            "(not milliseconds) up to the year 9999"
        )
        raise RejectedError(msg, code="bad_time", field=field)
    return seconds.astype(np.int64), INTEGER_STYLE if integers else FLOAT_STYLE


def _texts(times: NDArray[np.int64]) -> list[str]:
    if len(times) > VECTOR_ROWS:
        many: list[str] = np.datetime_as_string(times.astype("datetime64[s]")).tolist()
        return many
    return [(EPOCH_NAIVE + timedelta(seconds=second)).isoformat() for second in times.tolist()]


def _read_one(text: str, row: int, field: str) -> int:
    try:
        when = datetime.fromisoformat(text)
        since = when - (EPOCH_NAIVE if when.tzinfo is None else EPOCH)
    except (ValueError, OverflowError):
        msg = f"{field}: row {row + 1} is {text[:40]!r}; times are ISO 8601 (2024-01-31T12:00:00Z) or epoch seconds"
        raise RejectedError(msg, code="bad_time", field=field) from None
    seconds = since // SECOND
    if since.microseconds or not FIRST_SECOND <= seconds <= LAST_SECOND:
        msg = f"{field}: row {row + 1} is {text[:40]!r}; times are whole seconds of the years 1 to 9999, UTC"
        raise RejectedError(msg, code="bad_time", field=field)
    return seconds


def _read_uniform(texts: Sequence[str]) -> NDArray[np.int64] | None:
    """Read texts that all have the same plain form at once; return None for others, which `_read_one` handles."""
    length = len(texts[0])
    if length not in (PLAIN_LENGTH, PLAIN_LENGTH + 1) or any(len(text) != length for text in texts):
        return None
    table = np.array(texts)
    codes = table.view(np.uint32).reshape(len(texts), length)
    if length > PLAIN_LENGTH:
        if (codes[:, PLAIN_LENGTH] != ord("Z")).any():
            return None
        codes = np.ascontiguousarray(codes[:, :PLAIN_LENGTH])
        table = codes.view(f"<U{PLAIN_LENGTH}").ravel()
    digits = codes[:, DIGITS]
    separator = codes[0, 10]
    plain = (
        separator in (ord("T"), ord(" "))
        and (codes[:, 10] == separator).all()
        and ((digits >= ord("0")) & (digits <= ord("9"))).all()
    )
    if not plain:
        return None
    try:
        times: NDArray[np.int64] = table.astype("datetime64[s]").astype(np.int64)
    except ValueError:
        return None
    # numpy accepts the year 0, which Python's datetime cannot represent, so times before FIRST_SECOND are not accepted.
    return times if int(times.min(initial=0)) >= FIRST_SECOND else None


def _style(text: str) -> TimeStyle:
    if len(text) <= len("YYYY-MM-DD"):
        return TimeStyle("iso", timespec="date")
    clock = text[11:]
    suffix = "Z" if clock.endswith(("Z", "z")) else "+00:00" if "+" in clock or "-" in clock else ""
    timespec: Literal["minutes", "seconds"] = "minutes" if clock.count(":", 0, 8) < 2 else "seconds"  # noqa: PLR2004
    return TimeStyle("iso", " " if text[10] == " " else "T", timespec, suffix)
