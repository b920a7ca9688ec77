"""The rows that direct networks read, as tensors in the units of the fit rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flts.forecasting.linear.kinds import Scaled
from flts.forecasting.linear.known import Effects, TakenOut
from flts.forecasting.linear.model import LinearModel, spread
from flts.forecasting.linear.table import LinearTable, Origins
from flts.forecasting.series import FloatArray, IntArray
from flts.forecasting.windows import Float32Array

BATCH_ROWS = 256
"""Origins that LINEAR forecasts at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """Means, deviations and the profile of the rows that networks are fitted on.

    Parameters
    ----------
    mean, scale : (m,)
        Of all columns.
    targets : (k,)
        Columns that are forecast.
    profile : (places, k), optional
        Scaled profile of the longest season, the last one of ``places``; None without a season.
    known_mean, known_scale : (q,)
        Of the inputs known ahead.
    """

    mean: Float32Array
    scale: Float32Array
    targets: IntArray
    profile: Float32Array | None
    known_mean: Float32Array
    known_scale: Float32Array

    @property
    def target_mean(self) -> Float32Array:
        """Means of the targets, (k,)."""
        return self.mean[self.targets]

    @property
    def target_scale(self) -> Float32Array:
        """Deviations of the targets, (k,)."""
        return self.scale[self.targets]


@dataclass(frozen=True, slots=True, eq=False)
class NetworkTable:
    """Scaled rows of a table, less the effects of the inputs known ahead.

    Parameters
    ----------
    rows : LinearTable
        Unscaled, less the effects.
    units : Units
    effects : Effects, optional
    z : (n, m)
    own : (n, k)
        Columns of the targets.
    profile : (n, k), optional
    calendar : (n, c)
    known : (n, q)
        Scaled inputs known ahead.
    observed : (n, k)
        1 for an observed cell of a target, 0 for an imputed one.
    """

    rows: LinearTable
    units: Units
    effects: Effects | None
    z: Tensor
    own: Tensor
    profile: Tensor | None
    calendar: Tensor
    known: Tensor
    observed: Tensor

    @classmethod
    def fitted(cls, source: TakenOut, stop: int) -> NetworkTable:
        """Return the table in units of the rows before ``stop``; a row's own value is no part of its profile there."""
        rows, effects = source.at(stop)
        scaled = Scaled(rows, stop)
        targets = source.targets
        profile = at_rows = None
        if rows.seasons:
            profile, at_rows = scaled.profile(len(rows.seasons) - 1)
            profile, at_rows = profile[:, targets], at_rows[:, targets]
        mean = scale = np.empty(0)
        if source.inputs is not None:
            mean, deviation = source.inputs.moments(stop)
            scale = np.where(deviation > 0, deviation, 1.0)
        units = Units(
            _single(scaled.mean),
            _single(scaled.scale),
            targets,
            None if profile is None else _single(profile),
            _single(mean),
            _single(scale),
        )
        return cls._of(source, rows, effects, units, at_rows)

    @classmethod
    def at(cls, source: TakenOut, stop: int, units: Units) -> NetworkTable:
        """Return the table less the effects that the rows before ``stop`` have, in units of a fit on other rows."""
        rows, effects = source.at(stop)
        at_rows = None
        if units.profile is not None:
            at_rows = units.profile[np.minimum(rows.places[:, -1], len(units.profile) - 1)]
        return cls._of(source, rows, effects, units, at_rows)

    @classmethod
    def _of(
        cls,
        source: TakenOut,
        rows: LinearTable,
        effects: Effects | None,
        units: Units,
        at_rows: FloatArray | Float32Array | None,
    ) -> NetworkTable:
        known = np.empty((len(rows), 0))
        if source.inputs is not None:
            known = (source.inputs(slice(0, len(rows))) - units.known_mean) / units.known_scale
        z = _tensor((rows.values - units.mean) / units.scale)
        return cls(
            rows,
            units,
            effects,
            z,
            z[:, torch.from_numpy(units.targets)],
            None if at_rows is None else _tensor(at_rows),
            _tensor(rows.clock),
            _tensor(known),
            _tensor(rows.observed[:, units.targets].astype(np.float32)),
        )

    @property
    def rest(self) -> Tensor:
        """The targets less the profile, (n, k)."""
        return self.own if self.profile is None else self.own - self.profile

    def origins(self, *, back: int, first: int, stop: int, most: int, ahead: int = 1) -> IntArray:
        """Return the last rows of at most ``most`` windows of ``back`` rows, evenly spread.

        Their next ``ahead`` rows are in the same segment and before ``stop``; the first of these is ``first`` or later.
        """
        possible = Origins.of(self.rows).mask(None, back=back, after=0, ahead=ahead, stop=stop)
        return spread(np.flatnonzero(possible), first - 1, most)

    def linear_forecasts(self, linear: LinearModel, origins: IntArray) -> Tensor:
        """Return the scaled forecasts of LINEAR, (b, H, k)."""
        found = np.empty((len(origins), linear.horizon, len(linear.targets)), dtype=np.float32)
        for at in range(0, len(origins), BATCH_ROWS):
            last = origins[at : at + BATCH_ROWS, None]
            past = last + np.arange(1 - linear.rows_required, 1)
            ahead = np.minimum(last + np.arange(1, linear.horizon + 1), len(self.rows) - 1)
            places = self.rows.places[np.concatenate([past, ahead], axis=1)]
            found[at : at + BATCH_ROWS] = linear(self.rows.values[past], places, self.rows.clock[ahead[:, 0]])
        found -= self.units.target_mean
        found /= self.units.target_scale
        return torch.from_numpy(found)

    def rows_at(self, rows: IntArray) -> Tensor:
        """Return positions of rows for indexing; a row after the last one is the last one."""
        return torch.from_numpy(np.minimum(rows, len(self.rows) - 1))


@dataclass(frozen=True, slots=True, eq=False)
class Paths:
    """Origins with LINEAR's forecasts of the steps after them.

    Parameters
    ----------
    table : NetworkTable
    origins : (n,)
        Last row of each window.
    stops : (n,)
        Steps from this row on are not compared.
    linear : (n, H, k)
    """

    table: NetworkTable
    origins: IntArray
    stops: IntArray
    linear: Tensor

    @classmethod
    def of(cls, table: NetworkTable, linear: LinearModel, origins: IntArray, stop: int) -> Paths:
        """Return the paths of origins; no step at ``stop`` or later, or in another segment, is compared."""
        stops = np.minimum(Origins.of(table.rows).stops[origins], stop)
        return cls(table, origins, stops, table.linear_forecasts(linear, origins))

    def __len__(self) -> int:
        return len(self.origins)

    @property
    def horizon(self) -> int:
        """Steps H."""
        return self.linear.shape[1]

    def some(self, chosen: IntArray | slice) -> Paths:
        """Return some of the paths."""
        at = chosen if isinstance(chosen, slice) else torch.from_numpy(chosen)
        return Paths(self.table, self.origins[chosen], self.stops[chosen], self.linear[at])

    def all_steps(self) -> IntArray:
        """Return every step of each path, (n, H)."""
        return np.broadcast_to(np.arange(1, self.horizon + 1), (len(self), self.horizon))

    def actual(self, steps: IntArray) -> tuple[Tensor, Tensor]:
        """Return the scaled values at steps (n, J), (n, J, k), and weights: 1 where a value is compared, else 0."""
        rows = self.origins[:, None] + steps
        at = self.table.rows_at(rows)
        compared = torch.from_numpy((rows < self.stops[:, None]).astype(np.float32))
        return self.table.own[at], self.table.observed[at] * compared[..., None]


def _single(values: FloatArray) -> Float32Array:
    return np.ascontiguousarray(values, dtype=np.float32)


def _tensor(values: FloatArray | Float32Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
