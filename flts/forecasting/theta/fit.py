"""Fit THETA: choose among Theta and damped trend, with and without seasons, by expanding folds; average the good ones.

Theta (Assimakopoulos and Nikolopoulos, The theta model, 2000) is simple exponential smoothing with a drift of half the
slope of the linear trend (Hyndman and Billah, Unmasking the Theta method, 2003). Here the drift may also be none or the
whole slope, as in the optimised Theta of Fiorucci et al. (2016). The other method is the damped trend of Gardner and
McKenzie (1985). Both read a window of rows: smoothing begins with the window's own level, or its line, so that a
forecast depends on the rows that are sent and on no state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Literal

import numpy as np

from flts.errors import RejectedError
from flts.forecasting.expanding import EDGES
from flts.forecasting.linear.model import path_residuals
from flts.forecasting.linear.table import LinearTable, Origins
from flts.forecasting.series import BoolArray, FloatArray, IntArray
from flts.forecasting.smoothing import damping, remainders, responses
from flts.forecasting.theta.decomposition import season_profile
from flts.forecasting.theta.model import Adjustment, Part, ThetaModel

Method = Literal["theta", "damped"]

WINDOW_ROWS, WINDOW_SHARE = 96, 4
"""Most rows of a window; and it is at most the fitted rows divided by the second number."""
LEAST_ROWS = 16
"""Rows that THETA is fitted on at least: four windows of four rows."""
NEAR = 0.1
"""Variants whose error in the folds is at most this share above the least one are averaged."""
FOLD_PATHS = 256
"""Paths of a fold that are compared at most."""
ALPHAS = np.array([0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
DRIFTS = np.array([0.0, 0.5, 1.0])
"""Shares of the slope of the linear trend; 0.5 is Theta."""
BETAS = np.array([0.0, 0.05, 0.1, 0.2, 0.4])
PHIS = np.array([0.8, 0.9, 0.95, 0.98])
"""A phi below 0.8 damps a trend too soon, a phi above 0.98 hardly at all (as in HOLT)."""
TINY = 1e-12


class NoThetaError(RejectedError):
    """THETA cannot be fitted on these training rows."""

    code = "no_theta"


@dataclass(frozen=True, slots=True)
class Variant:
    """An adjustment and the method that forecasts the adjusted series."""

    adjustment: Adjustment
    method: Method


@dataclass(frozen=True, slots=True, eq=False)
class ThetaChoice:
    """The variants that are averaged.

    Parameters
    ----------
    horizon : int
        H, steps.
    variants : tuple of V
    shares : (k, V)
        Of each variant in the forecast of each column; those of a column add up to 1.
    """

    horizon: int
    variants: tuple[Variant, ...]
    shares: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class ThetaRows:
    """Rows of the targets in raw units; every column is forecast."""

    table: LinearTable
    """Its seasons are those that a test found; it has no calendar."""
    positions: IntArray
    """(n,) number of steps of the grid since the first row."""


def choose_theta(rows: ThetaRows, *, horizon: int, stop: int, alive: Callable[[], None]) -> ThetaChoice:
    """Choose the variants by their errors in expanding folds of the rows before ``stop``.

    The error of a variant is its root mean square error at each step relative to the best variant's, averaged over the
    steps. Without a fold all variants are averaged.

    Raises
    ------
    NoThetaError
        If the rows are too few or in too short pieces.
    """
    table = rows.table
    if stop < LEAST_ROWS:
        msg = f"THETA is fitted on at least {LEAST_ROWS} rows, there are {stop}"
        raise NoThetaError(msg)
    variants = _variants(table, stop)
    squares = np.zeros((len(variants), horizon, table.columns))
    counts = np.zeros((horizon, table.columns))
    for first, end in pairwise(int(stop * edge) for edge in EDGES):
        if first < max(LEAST_ROWS, 2 * max(table.seasons, default=0)):
            continue
        fitting = _Fitting(rows, horizon, first)
        if not len(fitting.last):
            continue
        known = None
        for at, variant in enumerate(variants):
            alive()
            model = fitting.model((variant,), np.ones((table.columns, 1)))
            errors = path_residuals(model, table, first=first, stop=end, most=FOLD_PATHS)[1]
            known = np.isfinite(errors)
            squares[at] += np.square(errors, out=np.zeros_like(errors), where=known).sum(axis=0)
        counts += 0 if known is None else known.sum(axis=0)
    return ThetaChoice(horizon, variants, _shares(squares, counts))


def solve_theta(rows: ThetaRows, choice: ThetaChoice, *, stop: int) -> ThetaModel:
    """Fit the variants of a choice on the rows before ``stop``.

    Raises
    ------
    NoThetaError
        If no window has a row after it.
    """
    fitting = _Fitting(rows, choice.horizon, stop)
    if not len(fitting.last):
        msg = f"{stop} rows hold no {fitting.window + 1} rows in one piece, on which THETA is fitted"
        raise NoThetaError(msg)
    return fitting.model(choice.variants, choice.shares)


def _variants(table: LinearTable, stop: int) -> tuple[Variant, ...]:
    adjustments = [Adjustment("none")]
    positive = bool((table.values[:stop] > 0).all())
    for season in range(len(table.seasons)):
        adjustments += [Adjustment("additive", season)] + [Adjustment("multiplicative", season)] * positive
    return tuple(Variant(adjustment, method) for adjustment in adjustments for method in ("theta", "damped"))


def _shares(squares: FloatArray, counts: FloatArray) -> FloatArray:
    """Return the shares (k, V) by sums of squared errors (V, H, k) and the number of errors (H, k)."""
    size = np.sqrt(squares / np.maximum(counts, 1)) + TINY
    relative = np.where(counts > 0, size / size.min(axis=0), 0.0).sum(axis=1)  # (V, k)
    good = relative <= (1 + NEAR) * relative.min(axis=0)
    shares: FloatArray = (good / good.sum(axis=0)).T
    return shares


class _Fitting:
    """The rows before ``stop``, their windows and the steps after these."""

    def __init__(self, rows: ThetaRows, horizon: int, stop: int) -> None:
        self.table, self.positions = rows.table, rows.positions[:stop]
        self.horizon, self.stop = horizon, stop
        self.segments = [slice(one.start, min(one.stop, stop)) for one in rows.table.segments if one.start < stop]
        longest = max(one.stop - one.start for one in self.segments)
        self.window = max(1, min(WINDOW_ROWS, stop // WINDOW_SHARE, longest // 2))
        origins = Origins.of(rows.table)
        possible = origins.mask(None, back=self.window, after=0, ahead=1, stop=stop)
        self.last = np.flatnonzero(possible)
        self.windows = self.last[:, None] + np.arange(1 - self.window, 1)
        ahead = self.last[:, None] + np.arange(1, horizon + 1)
        self.inside = ahead < np.minimum(origins.stops[self.last], stop)[:, None]
        self.ahead = np.minimum(ahead, stop - 1)

    def model(self, variants: tuple[Variant, ...], shares: FloatArray) -> ThetaModel:
        """Return the model of variants with shares (k, V)."""
        table, columns = self.table, self.table.columns
        parts = []
        for adjustment in dict.fromkeys(variant.adjustment for variant in variants):
            own = [at for at, one in enumerate(variants) if one.adjustment == adjustment and shares[:, at].any()]
            if not own:
                continue
            profile = None
            if adjustment.kind != "none":
                profile = np.stack([self._profile(adjustment, column) for column in range(columns)], axis=1)
            weights, bias = np.zeros((columns, self.window, self.horizon)), np.zeros((columns, self.horizon))
            for column in range(columns):
                of_rows = None if profile is None else profile[table.places[: self.stop, adjustment.season], column]
                values = adjustment.adjust(table.values[: self.stop, column], of_rows)
                for at in own:
                    if shares[column, at]:
                        fitted = self._fit(variants[at].method, values, table.observed[: self.stop, column])
                        weights[column] += shares[column, at] * fitted[0]
                        bias[column] += shares[column, at] * fitted[1]
            parts.append(Part(adjustment, profile, shares[:, own].sum(axis=1), weights, bias))
        return ThetaModel(np.arange(columns), self.horizon, self.window, tuple(parts))

    def _profile(self, adjustment: Adjustment, column: int) -> FloatArray:
        season, places = self.table.seasons[adjustment.season], self.table.places[:, adjustment.season]
        return season_profile(self.table.values[:, column], self.segments, places, season, adjustment.kind)

    def _fit(self, method: Method, values: FloatArray, observed: BoolArray) -> tuple[FloatArray, FloatArray]:
        """Return the weights (L, H) and the bias (H,) of the parameters with the least error on windows of values."""
        last = values[self.last]
        # Weights of levels add up to 1 and those of trends to 0, so the last value can be subtracted first. A series
        # with small changes around a large value would lose digits otherwise.
        windows, actual = values[self.windows] - last[:, None], values[self.ahead] - last[:, None]
        known = self.inside & observed[self.ahead]
        of_level, of_trend, factors = _states(method, self.window, self.horizon)
        levels = of_level @ windows.T
        if method == "damped":
            at = _least(levels, of_trend @ windows.T, factors, actual, known)
            return of_level[at][:, None] + of_trend[at][:, None] * factors[at], np.zeros(self.horizon)
        drifts = DRIFTS * self._slope(values, observed)
        # The smoothed line of a drift of 1 is this far behind or ahead of the line at the last row.
        lag = -of_level @ np.arange(1 - self.window, 1)
        shifted = (levels + drifts[:, None, None] * lag[:, None]).reshape(-1, len(last))
        trends = np.broadcast_to(np.repeat(drifts, len(ALPHAS))[:, None], shifted.shape)
        at = _least(shifted, trends, np.tile(factors, (len(drifts), 1)), actual, known)
        drift, alpha = drifts[at // len(ALPHAS)], at % len(ALPHAS)
        steps = np.arange(1, self.horizon + 1)
        return np.repeat(of_level[alpha][:, None], self.horizon, axis=1), drift * (lag[alpha] + steps)

    def _slope(self, values: FloatArray, observed: BoolArray) -> float:
        """Return the slope of the line through the observed values, per step."""
        if observed.sum() < 2:  # noqa: PLR2004 - a line has two points
            return 0.0
        at = self.positions[observed] - self.positions[observed].mean()
        return float(at @ values[observed] / (at @ at))


@cache
def _grid(method: Method) -> FloatArray:
    """Return alpha, beta and phi of all combinations that are compared, (c, 3)."""
    betas, phis = (np.zeros(1), np.ones(1)) if method == "theta" else (BETAS, PHIS)
    return np.stack(np.meshgrid(ALPHAS, betas, phis, indexing="ij"), axis=-1).reshape(-1, 3)


def _states(method: Method, window: int, horizon: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the weights of a window in the last level and trend, (c, L) each, and the trend's factors (c, H).

    Smoothing begins before the window, at the window's line for a damped trend. For Theta, whose drift is known, it
    begins at the mean of the window without the drift, and the trend's weights are 0.
    """
    grid = _grid(method)
    level, trend = responses(grid, window)
    begin = remainders(grid, window)
    mean = np.full(window, 1 / window)
    if method == "theta":
        return level + begin[:, 0, :1] * mean, np.zeros_like(level), damping(grid, horizon)
    at = np.arange(window) - (window - 1) / 2
    slope = at / max(float(at @ at), 1.0)
    line = np.stack([mean - slope * (window + 1) / 2, slope])
    return level + begin[:, 0] @ line, trend + begin[:, 1] @ line, damping(grid, horizon)


def _least(levels: FloatArray, trends: FloatArray, factors: FloatArray, actual: FloatArray, known: BoolArray) -> int:
    """Return which of c forecasts has the least root mean square error, relative to the last value's at each step.

    Parameters
    ----------
    levels, trends : (c, b)
        Forecast ``levels + factors * trends`` less the last value.
    factors : (c, H)
    actual : (b, H)
        Less the last value.
    known : (b, H)
        False for a step that is not compared.
    """
    compared, values = known.astype(np.float64), np.where(known, actual, 0.0)
    sizes = np.square(values).sum(axis=0)
    squares = (levels**2) @ compared - 2 * (levels @ values) + sizes
    squares += 2 * factors * ((levels * trends) @ compared - trends @ values) + factors**2 * (trends**2 @ compared)
    errors = np.sqrt(np.maximum(squares, 0.0) / np.maximum(sizes, TINY))
    return int(errors.mean(axis=1).argmin())
