"""How the files of a data set are written, as far as requests and answers follow it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flts.errors import RejectedError
from flts.times import TimeFormat

_PLAIN_TIMES = re.compile(r"YYYY-MM-DD([T ]HH:mm(:ss)?(Z|[+-].*)?)?|epoch")
"""Patterns of times that every request may use: ISO 8601 in whole seconds, and epoch seconds."""


@dataclass(frozen=True, slots=True)
class FileForm:
    """The time column and the marks of a data set's files.

    Parameters
    ----------
    time_column : str
        Name of the time column, as written.
    time_format : TimeFormat
    decimal, thousands : str
        Marks of numbers, as in ``DECIMAL`` and ``THOUSANDS``.
    missing : tuple of str
        Marks of missing cells that ``MISSING`` adds.
    """

    time_column: str
    time_format: TimeFormat
    decimal: str = "."
    thousands: str = ""
    missing: tuple[str, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether times are ISO 8601 or epoch seconds in UTC, and numbers have a point and no other marks."""
        times = self.time_format
        is_utc = times.zone is None and times.offset_seconds == 0
        plain_numbers = (self.decimal, self.thousands, self.missing) == (".", "", ())
        return is_utc and plain_numbers and _PLAIN_TIMES.fullmatch(times.pattern) is not None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "time_column": self.time_column,
            "time_format": self.time_format.to_dict(),
            "decimal": self.decimal,
            "thousands": self.thousands,
            "missing": list(self.missing),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FileForm:
        """Read what `to_dict` wrote.

        Raises
        ------
        RejectedError
            ``bad_recipe`` with field ``form``.
        """
        try:
            texts = [values[name] for name in ("time_column", "decimal", "thousands")]
            missing = tuple(values["missing"])
            if not all(isinstance(text, str) for text in (*texts, *missing)):
                raise TypeError  # noqa: TRY301 - the handler below states the reason
            return cls(texts[0], TimeFormat.from_dict(values["time_format"]), texts[1], texts[2], missing)
        except (KeyError, TypeError, ValueError, AttributeError, RejectedError) as error:
            msg = f"the form of the files is not what it should be: {values!r:.200}"
            raise RejectedError(msg, code="bad_recipe", field="form") from error
