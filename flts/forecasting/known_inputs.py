"""The inputs of a row that are known ahead: the values of future columns, and the features of holidays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flts.forecasting.fitted import FittedRecipe
from flts.forecasting.grid import DAY
from flts.forecasting.holidays import HolidayTable, holiday_table
from flts.forecasting.series import FloatArray, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class KnownInputs:
    """Makes the inputs that are known ahead, by row.

    Parameters
    ----------
    columns : (f,)
        Positions of the future columns among the measured ones.
    holidays : HolidayTable, optional
    waves : int
        Harmonics of the day that multiply the features of holidays.
    """

    columns: IntArray
    holidays: HolidayTable | None
    waves: int

    @property
    def width(self) -> int:
        """Q."""
        holidays = 0 if self.holidays is None else self.holidays.values.shape[1]
        return len(self.columns) + holidays * (1 + 2 * self.waves)

    @classmethod
    def of(cls, recipe: FittedRecipe, *, waves: int = 0) -> KnownInputs | None:
        """Return the inputs of a recipe, or None if it has neither future columns nor holidays."""
        if not recipe.known_ahead and not recipe.holidays:
            return None
        holidays = holiday_table(recipe.holidays, recipe.grid) if recipe.holidays else None
        return cls(recipe.known_columns, holidays, waves)

    def __call__(self, future: FloatArray, clock: IntArray) -> FloatArray:
        """Return the inputs (..., q).

        Parameters
        ----------
        future : (..., f)
            Scaled values of the future columns.
        clock : (...)
            Seconds since 1970-01-01 on the clock of the data set.
        """
        if self.holidays is None:
            return future
        features = self.holidays(clock)
        angles = 2 * np.pi * (clock % DAY)[..., None] / DAY
        waves = [wave(number * angles) for number in range(1, self.waves + 1) for wave in (np.sin, np.cos)]
        return np.concatenate([future, features, *(features * each for each in waves)], axis=-1)
