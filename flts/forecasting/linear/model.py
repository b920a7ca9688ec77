"""A fitted LINEAR and its forecasts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from flts.forecasting.linear.kinds import Base
from flts.forecasting.linear.table import LinearTable, Origins
from flts.forecasting.series import FloatArray, IntArray
from flts.forecasting.windows import Float32Array

BATCH_ROWS = 256
"""Rows that `path_residuals` forecasts at once at most."""
BATCH_CELLS = 2**20
"""Numbers of the windows, or of the forecasts, that `path_residuals` has at once; 8 bytes each."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The share of a seasonal value in the forecast, and the weights of what it leaves.

    Parameters
    ----------
    base : Base
    season : int
        Length of its season in rows; 0 for none.
    profile : (places, k), optional
        Scaled profile of the targets.
    share : (k, H)
        Share of this part in each step.
    weights : (g, W, U)
        Of the rest, the last row first; g is k, or 1 for weights that all targets share. Own weights include the
        share.
    clock_weights : (c, U), optional
        With shared weights only.
    bias : (H,), optional
        With shared weights only.
    """

    base: Base
    season: int
    profile: Float32Array | None
    share: Float32Array
    weights: Float32Array
    clock_weights: Float32Array | None = None
    bias: Float32Array | None = None


@dataclass(frozen=True, slots=True, eq=False)
class LinearModel:
    """Forecasts all steps at once.

    Parameters
    ----------
    mean, scale : (m,)
        Of all columns.
    targets : (k,)
        Columns that are forecast.
    window : int
        W rows of the rest.
    horizon : int
        H.
    places : int
        Number of seasons whose places are inputs.
    clock : int
        c, number of calendar features.
    parts : tuple of Part
    step_weights : (H,)
        Which of the U weights each step uses.
    clock_weights : (k, c, U), optional
        None with shared weights.
    other_weights : (k, m * R, U), optional
        Of the last R rows of all columns, column by column, the last row first.
    bias : (k, H)
    """

    mean: Float32Array
    scale: Float32Array
    targets: IntArray
    window: int
    horizon: int
    places: int
    clock: int
    parts: tuple[Part, ...]
    step_weights: IntArray
    clock_weights: Float32Array | None
    other_weights: Float32Array | None
    bias: Float32Array

    @property
    def rows_required(self) -> int:
        """Rows L of the past that a forecast needs."""
        return self.window + max((part.season for part in self.parts if part.base.value == "lag"), default=0)

    @property
    def other_rows(self) -> int:
        """R; 0 without rows of all columns."""
        return 0 if self.other_weights is None else self.other_weights.shape[1] // len(self.mean)

    @property
    def size_bytes(self) -> int:
        """Bytes of all numbers."""
        arrays = [self.clock_weights, self.other_weights, self.bias, self.mean, self.scale]
        for part in self.parts:
            arrays += [part.profile, part.share, part.weights, part.clock_weights, part.bias]
        return sum(array.nbytes for array in arrays if array is not None)

    def __call__(
        self, past: FloatArray | Float32Array, places: IntArray, clock: FloatArray | Float32Array
    ) -> Float32Array:
        """Forecast H steps.

        Parameters
        ----------
        past : (b, L, m)
            The last ``rows_required`` rows (or more) of all columns, in the units of the fitted values.
        places : (b, L + H, S)
            Index of each of these rows and of each step in the profile of each season. A place after the last one of
            the training rows (29 February) has the value of the last one.
        clock : (b, c)
            Calendar of the first step.

        Returns
        -------
        (b, H, k) float32
        """
        z: Float32Array = (past.astype(np.float32) - self.mean) / self.scale
        calendar = clock.astype(np.float32)
        rows = z.shape[1]
        own = z[..., self.targets]
        forecast = np.repeat(self.bias[:, None], len(z), axis=1)  # (k, b, H)
        for part in self.parts:
            rest, known = own[:, rows - self.window :], None
            if part.base.value == "profile":
                assert part.profile is not None
                place = np.minimum(places[:, rows - self.window :, part.base.season], len(part.profile) - 1)
                profile = part.profile[place]
                rest, known = rest - profile[:, : self.window], profile[:, self.window :]
            elif part.base.value == "lag":
                rest = rest - own[:, rows - self.window - part.season : rows - part.season]
                known = own[:, rows - part.season + np.arange(self.horizon) % part.season]
            lags = np.ascontiguousarray(rest[:, ::-1].transpose(2, 0, 1))
            answer = (lags @ part.weights)[..., self.step_weights]
            if part.bias is not None:
                answer = answer + part.bias
                if part.clock_weights is not None:
                    answer = answer + (calendar @ part.clock_weights)[:, self.step_weights]
                answer = answer * part.share[:, None]
            if known is not None:
                answer = answer + part.share[:, None] * known.transpose(2, 0, 1)
            forecast = forecast + answer
        if self.clock_weights is not None:
            forecast = forecast + (calendar @ self.clock_weights)[..., self.step_weights]
        if self.other_weights is not None:
            last = z[:, rows - self.other_rows :]
            flat = last[:, ::-1].transpose(0, 2, 1).reshape(len(z), -1)
            forecast = forecast + (flat @ self.other_weights)[..., self.step_weights]
        raw: Float32Array = forecast.transpose(1, 2, 0) * self.scale[self.targets] + self.mean[self.targets]
        return np.ascontiguousarray(raw, dtype=np.float32)


class PathModel(Protocol):
    """Forecasts all steps at once, as `LinearModel` does."""

    @property
    def targets(self) -> IntArray:
        """Columns that are forecast, (k,)."""
        ...

    @property
    def horizon(self) -> int:
        """Steps H."""
        ...

    @property
    def rows_required(self) -> int:
        """Rows L of the past."""
        ...

    def __call__(self, past: FloatArray, places: IntArray, clock: FloatArray, /) -> FloatArray | Float32Array:
        """Forecast (b, H, k); see `LinearModel.__call__`."""
        ...


def path_residuals(
    model: PathModel,
    table: LinearTable,
    *,
    first: int,
    stop: int,
    most: int,
    steps: IntArray | None = None,
    whole: bool = False,
    last: int | None = None,
) -> tuple[IntArray, FloatArray]:
    """Return forecast errors of the paths that begin in [first, stop).

    Parameters
    ----------
    model : PathModel
    table : LinearTable
    first, stop : int
        Rows; the first step of each path is one of them, and no step at ``stop`` or later is compared.
    most : int
        Paths, evenly spread over those whose window has no gap.
    steps : (s,), optional
        Steps to compare, from 1 on, by default all H.
    whole : bool
        Leave out the paths whose last step is in another segment or not before ``stop``.
    last : int, optional
        Paths begin before this row; ``stop`` by default.

    Returns
    -------
    rows : (p,)
        Row of the first step of each path.
    residuals : (p, s, k)
        Observed less forecast; NaN where the cell is imputed, in another segment or not before ``stop``.
    """
    origins = Origins.of(table)
    ahead = model.horizon if whole else 1
    windows = origins.mask(None, back=model.rows_required, after=0, ahead=ahead, stop=stop)
    rows = spread(np.flatnonzero(windows[: (stop if last is None else min(last, stop)) - 1]), first - 1, most)
    compared = np.arange(1, model.horizon + 1) if steps is None else steps
    cells = max(model.rows_required * table.columns, model.horizon * len(model.targets))
    size = max(1, min(BATCH_ROWS, BATCH_CELLS // cells))
    residuals = np.empty((len(rows), len(compared), len(model.targets)))
    for at in range(0, len(rows), size):
        batch = rows[at : at + size, None]
        past = batch + np.arange(1 - model.rows_required, 1)
        path = np.minimum(batch + np.arange(1, model.horizon + 1), len(table) - 1)
        places = table.places[np.concatenate([past, path], axis=1)]
        forecast = model(table.values[past], places, table.clock[batch[:, 0] + 1])
        reached = batch + compared
        within = np.minimum(reached, len(table) - 1)
        known = (reached < np.minimum(origins.stops[batch], stop))[..., None]
        known = known & table.observed[within][..., model.targets]
        actual = table.values[within][..., model.targets]
        residuals[at : at + size] = np.where(known, actual - forecast[:, compared - 1], np.nan)
    return rows + 1, residuals


def spread(rows: IntArray, first: int, most: int) -> IntArray:
    """Return at most ``most`` of the sorted rows from ``first`` on, evenly spread."""
    rows = rows[np.searchsorted(rows, first) :]
    return rows if len(rows) <= most else rows[np.arange(most) * (len(rows) - 1) // (most - 1)]
