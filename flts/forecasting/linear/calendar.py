"""The calendar of a row: harmonics of the day, the week and the year that the training rows show at least twice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flts.forecasting.grid import DAY, WEEK, YEAR_SECONDS
from flts.forecasting.series import FloatArray, IntArray

DAY_HARMONICS, WEEK_HARMONICS = 3, 2
PERIODS_SEEN = 2
"""Periods that the training rows contain at least; a period seen once only tells which row it is."""


@dataclass(frozen=True, slots=True)
class Calendar:
    """Number of harmonics of each period.

    Parameters
    ----------
    day, week, year : int
        Harmonics; 0 leaves the period out.
    """

    day: int
    week: int
    year: int

    @property
    def width(self) -> int:
        """Number of features."""
        return 2 * (self.day + self.week + self.year) + (4 * self.day if self.week else 0)

    @property
    def harmonics(self) -> tuple[int, int, int]:
        """Harmonics of the turns of the day, the week and the year."""
        return self.day, self.week, self.year

    def __call__(self, turns: FloatArray) -> FloatArray:
        """Return sines and cosines, and the products of the day's with the week's first, (..., width), in [-1, 1].

        Parameters
        ----------
        turns : (..., 3)
            Of day, week and year (`flts.forecasting.places.clock_turns`).
        """
        days, weeks, years = (_waves(turns[..., at], number) for at, number in enumerate(self.harmonics))
        products = [one * other for one in days for other in weeks[:2]]
        parts = [*days, *weeks, *years, *products]
        return np.stack(parts, axis=-1) if parts else np.empty((*turns.shape[:-1], 0))


def find_calendar(clock: IntArray, step_seconds: int) -> Calendar:
    """Return the harmonics that rows can show: the rows contain their period twice, and a wave has over two rows.

    Parameters
    ----------
    clock : (n,)
        Seconds on the clock of the data set, of the fit rows.
    step_seconds : int
        Seconds between two rows.
    """
    span = int(clock[-1] - clock[0]) if len(clock) else 0

    def harmonics(period: int, most: int) -> int:
        if span < PERIODS_SEEN * period:
            return 0
        return min(most, (period - 1) // (2 * step_seconds))

    return Calendar(harmonics(DAY, DAY_HARMONICS), harmonics(WEEK, WEEK_HARMONICS), harmonics(YEAR_SECONDS, 1))


def _waves(turns: FloatArray, harmonics: int) -> list[FloatArray]:
    angles = [2 * np.pi * number * turns for number in range(1, harmonics + 1)]
    return [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
