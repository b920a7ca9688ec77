"""A kind of input file and its right outcome, and functions that write such files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np

from flts.forecasting.series import FloatArray, IntArray

Moments = Sequence[datetime]


@dataclass(frozen=True, eq=False)
class Read:
    """The right outcome of a file that is read."""

    step: str
    """Step as the report shows it."""
    times: IntArray
    """Epoch seconds UTC of the rows as read, (n,)."""
    values: Mapping[str, FloatArray]
    """Cells as read by column, each (n,); NaN where a cell is missing."""
    test: int | None = None
    """Rows of the test part, by default a fifth of the rows."""
    words: tuple[str, ...] = ()
    """Words in the notes, the lines about what was understood, or the warnings of the report."""
    silent: tuple[str, ...] = ()
    """Words that none of these may have."""

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.values)


@dataclass(frozen=True)
class Refused:
    """The right outcome of a file that is refused."""

    code: str
    field: str
    words: tuple[str, ...]
    """Words of the message: all readings that are possible, and the setting that decides."""


@dataclass(frozen=True, eq=False)
class Case:
    """A file as people have it."""

    name: str
    train: bytes
    right: Read | Refused
    test: bytes | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    """Settings by name, as ``--set NAME=VALUE`` gives them; only where the file alone cannot decide."""


def every(step: timedelta, rows: int, start: datetime) -> list[datetime]:
    return [start + step * at for at in range(rows)]


def hours(rows: int, start: datetime = datetime(2023, 5, 8)) -> list[datetime]:  # noqa: DTZ001 - files have no zone
    return every(timedelta(hours=1), rows, start)


def days(rows: int, start: datetime = datetime(2022, 6, 13)) -> list[datetime]:  # noqa: DTZ001 - files have no zone
    return every(timedelta(days=1), rows, start)


def seconds(moments: Moments) -> IntArray:
    """Return epoch seconds; moments without a zone are in UTC."""
    return np.array([round((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()) for when in moments])


def wave(
    rows: int, *, season: int = 24, level: float = 70, spread: float = 18, seed: int = 1, decimals: int = 2
) -> FloatArray:
    """Return a season and a little noise, rounded to the digits that the file has."""
    noise = np.random.default_rng(seed).normal(0, spread / 8, rows)
    values: FloatArray = level + spread * np.sin(2 * np.pi * np.arange(rows) / season) + noise
    return np.round(values, decimals)


def number(decimals: int = 2, decimal: str = ".", thousands: str = "", missing: str = "") -> Callable[[float], str]:
    """Return a function that writes a number."""

    def write(value: float) -> str:
        if np.isnan(value):
            return missing
        return f"{value:,.{decimals}f}".replace(",", "_").replace(".", decimal).replace("_", thousands)

    return write


def csv_of(
    times: Sequence[str],
    columns: Mapping[str, Sequence[str]],
    *,
    time: str = "time",
    separator: str = ",",
    end: str = "\n",
    above: str = "",
    below: str = "",
    tail: str = "",
) -> str:
    """Return the text of a table of cells; ``below`` follows the header, ``tail`` the last row."""
    lines = [separator.join([time, *columns])] if time else []
    lines += [below] if below else []
    lines += [separator.join(cells) for cells in zip(times, *columns.values(), strict=True)]
    return above + end.join(lines) + end + tail


def cells(values: FloatArray, decimals: int = 2, **marks: str) -> list[str]:
    return [number(decimals, **marks)(value) for value in values.tolist()]


def texts(moments: Moments, form: str = "%Y-%m-%d %H:%M:%S") -> list[str]:
    return [when.strftime(form) for when in moments]
