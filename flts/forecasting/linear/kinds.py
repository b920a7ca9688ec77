"""The kinds of seasonal value that LINEAR subtracts, and what they leave of a series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from flts.forecasting.linear.profile import season_profile
from flts.forecasting.linear.table import LEAST_SEASONS, LinearTable
from flts.forecasting.series import FloatArray, IntArray

Value = Literal["none", "profile", "lag"]
LONGEST_LAG = 9_904
"""Rows of the longest season whose values are inputs: with a window of 96 rows, the 10,000 rows that a bundle takes."""


@dataclass(frozen=True, slots=True)
class Base:
    """A seasonal value.

    Parameters
    ----------
    value : {"none", "profile", "lag"}
        Zero; the mean of the fit rows at a place; the value the fewest whole seasons before that is known.
    season : int
        Position among the table's seasons; -1 for none.
    """

    value: Value
    season: int = -1


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to forecast a target; the kinds of a target are averaged.

    Parameters
    ----------
    base : Base
    others : bool
        Whether the last rows of all columns are inputs.
    shared : bool
        Whether one set of weights serves all targets.
    """

    base: Base
    others: bool = False
    shared: bool = False


def kinds_of(seasons: tuple[int, ...], *, fit_rows: int, own: bool, others: bool, shared: bool) -> tuple[Kind, ...]:
    """Return the kinds of a table.

    Parameters
    ----------
    seasons : tuple of lengths
    fit_rows : int
        A season of more than a third of these rows is not used. A season of more than `LONGEST_LAG` rows has a profile
        only.
    own, others, shared : bool
        Whether targets have weights of their own, some of them for the last rows of all columns; and whether there are
        weights that all targets share.
    """
    used = [at for at, length in enumerate(seasons) if fit_rows >= LEAST_SEASONS * length]
    plain = [Base("none"), *(Base("profile", at) for at in used[-1:])]
    bases = [*plain, *(Base("lag", at) for at in used if seasons[at] <= LONGEST_LAG)]
    kinds = [Kind(base) for base in bases] if own else []
    if others:
        kinds += [Kind(base, others=True) for base in plain]
    if shared:
        kinds += [Kind(base, shared=True) for base in bases]
    return tuple(kinds)


class Scaled:
    """A table in units of its rows before ``stop``, with the profiles of these rows.

    Parameters
    ----------
    table : LinearTable
    stop : int
        Only observed cells before this row determine means, deviations and profiles.
    """

    def __init__(self, table: LinearTable, stop: int) -> None:
        seen = table.observed[:stop]
        counts = np.maximum(seen.sum(axis=0), 1)
        fitted = table.values[:stop]
        self.table = table
        self.stop = stop
        self.mean: FloatArray = np.where(seen, fitted, 0.0).sum(axis=0) / counts
        deviation = np.sqrt(np.square(np.where(seen, fitted - self.mean, 0.0)).sum(axis=0) / counts)
        # A constant column has a deviation of rounding errors only.
        self.scale: FloatArray = np.where(deviation > 1e-12 * np.abs(self.mean), deviation, 1.0)
        self.z: FloatArray = (table.values - self.mean) / self.scale
        self._profiles: dict[int, tuple[FloatArray, FloatArray]] = {}

    def profile(self, season: int) -> tuple[FloatArray, FloatArray]:
        """Return a season's profile (places, m) and each row's value of it (n, m)."""
        if season not in self._profiles:
            self._profiles[season] = season_profile(self.table, self.z, season, self.stop)
        return self._profiles[season]

    def rest(self, base: Base, column: int) -> FloatArray:
        """Return a column less its seasonal value, (n,); rows without a season before them contain 0."""
        z = self.z[:, column]
        if base.value == "profile":
            return z - self.profile(base.season)[1][:, column]
        if base.value == "lag":
            season = self.table.seasons[base.season]
            return np.concatenate([np.zeros(min(season, len(z))), z[season:] - z[:-season]])
        return z

    def known(
        self, base: Base, column: int, rows: IntArray, steps: IntArray, ahead: IntArray | None = None
    ) -> FloatArray:
        """Return the seasonal value of each step after each row, (rows, steps).

        Parameters
        ----------
        ahead : (rows, steps), optional
            The row of each step, by default ``rows + steps``; needed where that is not a row of the table.
        """
        ahead = rows[:, None] + steps if ahead is None else ahead
        if base.value == "profile":
            profile: FloatArray = self.profile(base.season)[1][ahead, column]
            return profile
        if base.value == "lag":
            season = self.table.seasons[base.season]
            before: FloatArray = self.z[rows[:, None] + steps - season * -(-steps // season), column]
            return before
        return np.zeros(ahead.shape)
