"""The rows that LINEAR is fitted on, and which of them a forecast can begin after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from flts.errors import RejectedError
from flts.forecasting.series import BoolArray, FloatArray, IntArray

LEAST_SEASONS = 3
"""Seasons that the fit rows contain at least, so that the profile of two predicts the third."""


class NoLinearError(RejectedError):
    """LINEAR cannot be fitted on these training rows."""

    code = "no_linear"


@dataclass(frozen=True, slots=True, eq=False)
class LinearTable:
    """Rows of a table with what is known of each row.

    Parameters
    ----------
    values : (n, m)
        Finite, in any units; imputed cells contain the imputed value.
    observed : (n, m)
        False for an imputed cell.
    segments : list of slices
        Rows without a gap.
    seasons : tuple of S lengths
        Rows, ascending, whole; a season that the rows contain too rarely is left out by the fit.
    places : (n, S)
        Index of each row in the profile of each season, from 0 on.
    clock : (n, c)
        Calendar of each row (`Calendar`).
    """

    values: FloatArray
    observed: BoolArray
    segments: list[slice]
    seasons: tuple[int, ...]
    places: IntArray
    clock: FloatArray

    def __post_init__(self) -> None:
        rows = len(self.values)
        shapes = (self.observed.shape, self.places.shape, self.clock.shape[:1])
        if self.values.ndim != 2 or shapes != (self.values.shape, (rows, len(self.seasons)), (rows,)):  # noqa: PLR2004
            msg = f"values of shape {self.values.shape} have observed, places and clock of shapes {shapes}"
            raise RejectedError(msg, code="bad_shape")
        if not np.isfinite(self.values).all():
            msg = "the values contain numbers that are not finite"
            raise RejectedError(msg, code="not_finite")

    def __len__(self) -> int:
        return len(self.values)

    @property
    def columns(self) -> int:
        """Number m of columns."""
        return int(self.values.shape[1])


def refuse(message: str) -> NoReturn:
    """Raise `NoLinearError`."""
    raise NoLinearError(message)


@dataclass(frozen=True, slots=True, eq=False)
class Origins:
    """Finds rows u after which a forecast begins: its window ends with row u, its step h is row u + h.

    Parameters
    ----------
    starts, stops : (n,)
        First row and end of the segment of each row; ``stops`` is 0 for a row outside all segments.
    """

    starts: IntArray
    stops: IntArray

    @classmethod
    def of(cls, table: LinearTable) -> Origins:
        """Look up the segment of each row."""
        starts, stops = np.zeros((2, len(table)), dtype=np.int64)
        for segment in table.segments:
            starts[segment], stops[segment] = segment.start, segment.stop
        return cls(starts, stops)

    def mask(self, observed: BoolArray | None, *, back: int, after: int, ahead: int, stop: int) -> BoolArray:
        """Return whether a forecast can begin after each row, (n,).

        Parameters
        ----------
        observed : (n,), optional
            If given, no row of the window and of the steps is False.
        back : int
            Rows of the window.
        after, ahead : int
            Steps after+1 to ahead must be rows of the segment.
        stop : int
            All steps are before this row.
        """
        rows = np.arange(len(self.starts))
        possible = (rows - back + 1 >= self.starts) & (rows + ahead < np.minimum(self.stops, stop))
        if observed is None or observed.all():
            return possible
        missing = np.concatenate([[0], np.cumsum(~observed)])
        found = np.flatnonzero(possible)
        holes = missing[found + 1] - missing[found + 1 - back]
        holes += missing[found + ahead + 1] - missing[found + after + 1]
        possible[found[holes > 0]] = False
        return possible
