"""Cross-products of the inputs with each other and with all steps, without a matrix of inputs or targets.

An input is a series at a lag, and a target is a series at a lead. So a sum over the rows u of an input times a target
is a correlation of two series, which an FFT computes for all leads at once. The inputs at later lags follow from the
input at lag 0: with ``M[i, h] = sum over u of x[u - i] t[u + h]``, ``M[i, h]`` is ``M[i - 1, h + 1]`` plus the product
at the first row of each run of consecutive u, minus the product at the row after its last one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flts.forecasting.series import BoolArray, FloatArray, IntArray

CHUNK_ROWS = 2_048
"""Rows of inputs that are written out at once for the products of calendar and other columns."""


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Sums over rows u of inputs x (p,) and targets t (H,); input 0 is the last rest value.

    Parameters
    ----------
    count : int
        Number of rows u.
    gram : (p, p)
        Sums of ``x x'``.
    cross : (p, H)
        Sums of ``x t'``.
    x_sum : (p,)
    t_sum : (H,)
    """

    count: int
    gram: FloatArray
    cross: FloatArray
    x_sum: FloatArray
    t_sum: FloatArray

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count,
            self.gram + other.gram,
            self.cross + other.cross,
            self.x_sum + other.x_sum,
            self.t_sum + other.t_sum,
        )

    def steps(self, first: int, stop: int) -> Moments:
        """Return the sums of the targets first..stop-1 only."""
        return replace(self, cross=self.cross[:, first:stop], t_sum=self.t_sum[first:stop])

    def plus(self, x: FloatArray, t: FloatArray, sign: int) -> Moments:
        """Add (sign 1) or remove (-1) rows of inputs (r, p) and targets (r, H)."""
        return Moments(
            self.count + sign * len(x),
            self.gram + sign * (x.T @ x),
            self.cross + sign * (x.T @ t),
            self.x_sum + sign * x.sum(axis=0),
            self.t_sum + sign * t.sum(axis=0),
        )


def added(total: list[Moments] | None, more: list[Moments]) -> list[Moments]:
    """Add sums group by group; None is nothing."""
    return more if total is None else [one + other for one, other in zip(total, more, strict=True)]


class Target(NamedTuple):
    """A target series and its transform."""

    series: FloatArray
    spectrum: NDArray[np.complex128]


class RowSums:
    """Sums over one set of rows u, for any series.

    Parameters
    ----------
    rows : (n,)
        True for the rows u.
    clock : (n, c)
        Calendar; the input of row u is the calendar of row u + 1, the first one that is forecast.
    columns : (n, m)
        All columns, 0 in cells that must not matter.
    reach : int
        Largest lead or lag that is asked for.
    other_rows : int
        Last rows of all columns that are inputs of some kinds.
    """

    def __init__(self, rows: BoolArray, clock: FloatArray, columns: FloatArray, *, reach: int, other_rows: int) -> None:
        self.rows = rows
        self._other_rows = other_rows
        self.count = int(rows.sum())
        edges = np.flatnonzero(np.diff(np.concatenate([[False], rows, [False]]).astype(np.int8)))
        self._starts, self._stops = edges[0::2], edges[1::2]
        self._size = fast_length(len(rows) + reach)
        self._reach = reach
        self._columns = columns
        self._clock = clock
        known = np.zeros((len(rows), 1 + clock.shape[1]))
        known[rows] = self._first_steps(np.flatnonzero(rows))
        self._clock_spectrum = np.fft.rfft(known.T, self._size).conj()
        self.clock_gram: FloatArray = known.T @ known
        self._others: tuple[FloatArray, FloatArray] | None = None
        self._column_spectra: NDArray[np.complex128] | None = None

    def target(self, series: FloatArray) -> Target:
        """Return a series (n,) as the other methods take it."""
        return Target(series, np.fft.rfft(series, self._size))

    def clock_products(self, target: Target, first: int, last: int) -> FloatArray:
        """Return the sums of 1 and of each calendar feature with a target at leads first..last, (1 + c, leads)."""
        return self._leads(self._clock_spectrum * target.spectrum, first, last)

    def lag_products(self, series: FloatArray, target: Target, *, lags: int, first: int, last: int) -> FloatArray:
        """Return the sums of a series (n,) at lags 0..lags-1 with a target at leads first..last, (lags, leads)."""
        spectrum = np.fft.rfft(np.where(self.rows, series, 0.0), self._size).conj()
        return self._shifted(series, spectrum, target, lags=lags, first=first, last=last)

    def other_products(self, target: Target, first: int, last: int) -> FloatArray:
        """Return the sums of the last rows of all columns with a target, (m * other_rows, leads)."""
        if self._column_spectra is None:
            masked = np.where(self.rows[:, None], self._columns, 0.0)
            self._column_spectra = np.fft.rfft(masked.T, self._size).conj()
        return np.concatenate(
            [
                self._shifted(series, spectrum, target, lags=self._other_rows, first=first, last=last)
                for series, spectrum in zip(self._columns.T, self._column_spectra, strict=True)
            ]
        )

    def other_grams(self) -> tuple[FloatArray, FloatArray]:
        """Return the sums of the last rows of all columns with themselves and with 1 and the calendar."""
        if self._others is None:
            found = np.flatnonzero(self.rows)
            back = self._other_rows
            width = self._columns.shape[1] * back
            own, with_clock = np.zeros((width, width)), np.zeros((width, 1 + self._clock.shape[1]))
            for at in range(0, len(found), CHUNK_ROWS):
                part = found[at : at + CHUNK_ROWS]
                windows = self._columns[part[:, None] - np.arange(back)]
                inputs = windows.swapaxes(1, 2).reshape(len(part), width)
                own += inputs.T @ inputs
                with_clock += inputs.T @ self._first_steps(part)
            self._others = own, with_clock
        return self._others

    def _first_steps(self, rows: IntArray) -> FloatArray:
        """Return 1 and the calendar of the row after each row, (r, 1 + c)."""
        return np.concatenate([np.ones((len(rows), 1)), self._clock[rows + 1]], axis=1)

    def _leads(self, products: NDArray[np.complex128], first: int, last: int) -> FloatArray:
        circular = np.fft.irfft(products, self._size)
        if first >= 0:
            return circular[..., first : last + 1]
        return np.concatenate([circular[..., first:], circular[..., : last + 1]], axis=-1)

    def _shifted(
        self,
        series: FloatArray,
        spectrum: NDArray[np.complex128],
        target: Target,
        *,
        lags: int,
        first: int,
        last: int,
    ) -> FloatArray:
        leads = last - first + 1
        row = self._leads(spectrum * target.spectrum, first, last + lags - 1)
        behind = np.arange(1, lags)
        padded = np.concatenate([target.series, np.zeros(self._reach + 1)])
        span = np.arange(first, last + lags - 1)
        edges = series[self._starts[:, None] - behind].T @ padded[self._starts[:, None] + span]
        edges -= series[self._stops[:, None] - behind].T @ padded[self._stops[:, None] + span]
        products = np.empty((lags, leads))
        products[0] = row[:leads]
        for lag in range(1, lags):
            row = row[1:] + edges[lag - 1, : len(row) - 1]
            products[lag] = row[:leads]
        return products


def written_inputs(
    rest: FloatArray, clock: FloatArray, columns: FloatArray, rows: IntArray, *, window: int, other_rows: int
) -> FloatArray:
    """Return the inputs of rows u, (r, p): last rest value, differences to it, calendar, last rows of all columns.

    Parameters
    ----------
    rest : (n,)
    clock : (n, c)
        The calendar of row u + 1 is an input.
    columns : (n, m)
    rows : (r,)
    window : int
    other_rows : int
        0 leaves the columns out.
    """
    lags = rest[rows[:, None] - np.arange(window)]
    lags[:, 1:] -= lags[:, :1]
    others = columns[rows[:, None] - np.arange(other_rows)].swapaxes(1, 2).reshape(len(rows), -1)
    return np.concatenate([lags, clock[rows + 1], others], axis=1)


def rest_moments(sums: RowSums, rest: FloatArray, *, window: int, after: int, ahead: int, others: bool) -> Moments:
    """Return the moments of a kind whose targets are the rest series itself, for steps after+1..ahead."""
    target = sums.target(rest)
    first = 1 - window
    products = [
        sums.lag_products(rest, target, lags=window, first=first, last=ahead),
        sums.clock_products(target, first, ahead),
    ]
    if others:
        products.append(sums.other_products(target, first, ahead))
    steps = [each[:, after + window : ahead + window] for each in products]
    return _assemble(sums, steps, [each[:, window - 1 :: -1] for each in products])


def lagged_moments(
    sums: RowSums, z: FloatArray, rest: FloatArray, *, season: int, window: int, after: int, ahead: int
) -> Moments:
    """Return the moments of a kind whose rest is the difference to a season before, for steps after+1..ahead.

    The target at step h is ``z[u + h] - z[u + h - j season]`` with the fewest whole seasons j that reach back to the
    window, so its sums are those of z at the two leads.
    """
    own, of_rest = sums.target(z), sums.target(rest)
    first = 1 - season
    products = [
        sums.lag_products(rest, own, lags=window, first=first, last=ahead),
        sums.clock_products(own, first, ahead),
    ]
    steps = np.arange(after + 1, ahead + 1)
    before = steps - season * -(-steps // season)
    differences = [each[:, steps - first] - each[:, before - first] for each in products]
    behind = [
        sums.lag_products(rest, of_rest, lags=window, first=1 - window, last=0),
        sums.clock_products(of_rest, 1 - window, 0),
    ]
    return _assemble(sums, differences, [each[:, ::-1] for each in behind])


def _assemble(sums: RowSums, steps: list[FloatArray], lags: list[FloatArray]) -> Moments:
    """Join the products of lags, calendar and (if given) other columns with the steps, and those with the lags.

    The inputs at lags become the last value and the differences to it.
    """
    window, calendar = len(steps[0]), len(steps[1]) - 1
    cross = np.concatenate([steps[0], steps[1][1:], *steps[2:]])
    gram, x_sum = np.empty((len(cross), len(cross))), np.empty(len(cross))
    own, day, rest = slice(0, window), slice(window, window + calendar), slice(window + calendar, len(cross))
    gram[own, own], gram[day, own], gram[day, day] = lags[0], lags[1][1:], sums.clock_gram[1:, 1:]
    x_sum[own], x_sum[day] = lags[1][0], sums.clock_gram[0, 1:]
    if len(steps) > 2:  # noqa: PLR2004 - with other columns
        among, with_clock = sums.other_grams()
        gram[rest, own], gram[rest, day], gram[rest, rest] = lags[2], with_clock[:, 1:], among
        x_sum[rest] = with_clock[:, 0]
        gram[day, rest], gram[own, rest] = gram[rest, day].T, gram[rest, own].T
    gram[own, day] = gram[day, own].T
    for products in (gram, gram.T, cross, x_sum):
        products[1:window] -= products[:1]
    return Moments(sums.count, (gram + gram.T) / 2, cross, x_sum, steps[1][0])


def fast_length(least: int) -> int:
    """Return the smallest 2^a 3^b 5^c of at least ``least``: an FFT of such a length is fast."""
    best = 1 << max(least - 1, 0).bit_length()
    five = 1
    while five < best:
        three = five
        while three < best:
            size = three << max(-(-least // three) - 1, 0).bit_length()
            best = min(best, size)
            three *= 3
        five *= 5
    return best
