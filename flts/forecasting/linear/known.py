"""The effects of inputs that are known ahead: future columns and holidays.

The effect of a row is a weighted sum of the row's own inputs. LINEAR takes it out of its targets before all else, and
adds the effect of each step to the forecast.

The weights are those of a ridge regression with autoregressive errors of order 1 (Cochrane and Orcutt, 1949), with the
calendar beside the inputs: each row is compared with the row before it as far as their errors are alike. So neither a
season nor a slowly moving level is taken for an effect. The strength is chosen by cross-validation over blocks of rows,
and inputs that do not lower the error there have no effect.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from flts.forecasting.fitted import FittedRecipe
from flts.forecasting.grid import DAY
from flts.forecasting.known_inputs import KnownInputs
from flts.forecasting.linear.table import LinearTable
from flts.forecasting.recipe import Features
from flts.forecasting.series import BoolArray, FloatArray, IntArray

DAY_WAVES = 2
"""Harmonics of the day by which the effect of a holiday changes from hour to hour, in rows of less than half a day."""
BLOCKS = 5
"""Blocks of consecutive rows for cross-validation."""
STRENGTHS = (0.001, 0.01, 0.1, 1.0)
"""Penalties of a weight, as shares of the squares of its input."""
ROUNDS = 3
"""Estimates of the autocorrelation; it changes little after the second."""
HIGHEST_CORRELATION = 0.995
LEAST_BLOCK_ROWS = 4
ROUNDING = 1e-9
"""Share of a column's squares that is added to them, so that columns which repeat each other have a solution."""
CHUNK_ROWS = 65_536


@dataclass(frozen=True, slots=True, eq=False)
class Effects:
    """The effects of a fitted model.

    Parameters
    ----------
    known : KnownInputs
    weights : (q, m)
        Of all measured columns, 0 in columns that are no targets.
    """

    known: KnownInputs
    weights: FloatArray

    def __call__(self, future: FloatArray, clock: IntArray) -> FloatArray:
        """Return the effects in the columns, (..., m); parameters as `KnownInputs`."""
        effects: FloatArray = self.known(future, clock) @ self.weights
        return effects


@dataclass(frozen=True, slots=True, eq=False)
class TakenOut:
    """Takes the effects of the inputs known ahead out of the targets of a table.

    Parameters
    ----------
    whole : LinearTable
    targets : (k,)
        Columns that are forecast.
    inputs : RowInputs, optional
        None if nothing is known ahead.
    """

    whole: LinearTable
    targets: IntArray
    inputs: RowInputs | None = None

    @classmethod
    def of(cls, table: LinearTable, recipe: FittedRecipe, features: Features) -> TakenOut:
        """Return the effects of a recipe's inputs on the rows of a table."""
        known = KnownInputs.of(recipe, waves=DAY_WAVES if 2 * recipe.grid.step_seconds < DAY else 0)
        return cls(table, recipe.varying_columns, None if known is None else RowInputs(known, features))

    def at(self, stop: int) -> tuple[LinearTable, Effects | None]:
        """Return the table less the effects, and the effects; only the rows before ``stop`` determine the weights."""
        if self.inputs is None:
            return self.whole, None
        weights = np.zeros((self.inputs.known.width, self.whole.columns))
        regression = _Regression(self.whole, self.inputs, stop)
        for target in self.targets.tolist():
            weights[:, target] = regression.weights(target)
        values = self.whole.values.copy()
        for rows in _chunks(len(values)):
            values[rows] -= self.inputs(rows) @ weights
        return replace(self.whole, values=values), Effects(self.inputs.known, weights)


@dataclass(frozen=True, slots=True, eq=False)
class RowInputs:
    """Makes the inputs of some rows at a time, because those of all rows may be many times as large as the rows."""

    known: KnownInputs
    features: Features

    def __call__(self, rows: slice | IntArray) -> FloatArray:
        """Return the inputs of rows, (r, q)."""
        features = self.features
        return self.known(features.values[rows][:, self.known.columns], features.grid.clock(features.times[rows]))

    def moments(self, stop: int) -> tuple[FloatArray, FloatArray]:
        """Return the mean and the standard deviation of each input in the rows before ``stop``, (q,) each."""
        mean = sum(self(rows).sum(axis=0) for rows in _chunks(stop)) / stop
        squares = sum(np.square(self(rows) - mean).sum(axis=0) for rows in _chunks(stop))
        return mean, np.sqrt(squares / stop)


def _chunks(stop: int) -> Iterator[slice]:
    return (slice(at, min(at + CHUNK_ROWS, stop)) for at in range(0, stop, CHUNK_ROWS))


class _Regression:
    """The sums of products of inputs, calendar and targets, of rows and of the rows before them, by block."""

    def __init__(self, table: LinearTable, inputs: RowInputs, stop: int) -> None:
        self.table, self.inputs, self.stop = table, inputs, stop
        starts = np.zeros(len(table), dtype=bool)
        starts[[segment.start for segment in table.segments]] = True
        self.pairs = np.flatnonzero(~starts[1:stop]) + 1
        """Rows with a row before them."""
        self.mean, deviation = inputs.moments(stop)
        self.varies: BoolArray = deviation > 1e-9 * np.maximum(np.abs(self.mean), 1)  # beyond rounding errors
        self.deviation = np.where(self.varies, deviation, 1.0)

    def weights(self, target: int) -> FloatArray:
        """Return the weights of the inputs of a target, (q,)."""
        q = len(self.mean)
        observed = self.table.observed[: self.stop, target]
        rows = self.pairs[observed[self.pairs] & observed[self.pairs - 1]]
        chosen = np.zeros(q)
        if not self.varies.any() or len(rows) < LEAST_BLOCK_ROWS * BLOCKS:
            return chosen
        blocks = [self._sums(target, part) for part in np.array_split(rows, BLOCKS)]
        together = _Sums.together(blocks)
        used = np.append(self.varies, np.ones(1 + self.table.clock.shape[1], dtype=bool))
        alone = used & (np.arange(len(used)) >= q)
        correlation = 0.0
        for _ in range(ROUNDS):
            correlation = together.correlation(_solved(together.products(correlation), used, q, STRENGTHS[0]))
        held_out = [block.products(correlation) for block in blocks]
        total = together.products(correlation)

        def error(columns: BoolArray, strength: float) -> float:
            return sum(_loss(part, _solved(total - part, columns, q, strength)) for part in held_out)

        least = error(alone, 0.0)
        for strength in STRENGTHS:
            if (found := error(used, strength)) < least:
                least, chosen = found, _solved(total, used, q, strength)[:q] / self.deviation
        return chosen

    def _sums(self, target: int, rows: IntArray) -> _Sums:
        width = len(self.mean) + self.table.clock.shape[1] + 2
        now, lagged, before = (np.zeros((width, width)) for _ in range(3))
        for at in range(0, len(rows), CHUNK_ROWS):
            part = rows[at : at + CHUNK_ROWS]
            here, earlier = self._design(target, part), self._design(target, part - 1)
            now += here.T @ here
            lagged += earlier.T @ here
            before += earlier.T @ earlier
        return _Sums(now, lagged, before)

    def _design(self, target: int, rows: IntArray) -> FloatArray:
        """Return the standardised inputs, the calendar, 1 and the target, (r, p + 1)."""
        inputs = (self.inputs(rows) - self.mean) / self.deviation
        one, values = np.ones((len(rows), 1)), self.table.values[rows, target, None]
        return np.concatenate([inputs, self.table.clock[rows], one, values], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    """The sums of products of columns, the last one being the target, each (p + 1, p + 1).

    Parameters
    ----------
    now : array
        Of rows with themselves.
    lagged : array
        Of the rows before with rows.
    before : array
        Of the rows before with themselves.
    """

    now: FloatArray
    lagged: FloatArray
    before: FloatArray

    @staticmethod
    def together(blocks: list[_Sums]) -> _Sums:
        return _Sums(
            np.sum([block.now for block in blocks], axis=0),
            np.sum([block.lagged for block in blocks], axis=0),
            np.sum([block.before for block in blocks], axis=0),
        )

    def products(self, correlation: float) -> FloatArray:
        """Return the sums for rows less ``correlation`` times the rows before them."""
        mixed: FloatArray = self.now - correlation * (self.lagged + self.lagged.T) + correlation**2 * self.before
        return mixed

    def correlation(self, weights: FloatArray) -> float:
        """Return the correlation of the errors of neighbouring rows, from 0 to `HIGHEST_CORRELATION`."""
        error = np.append(-weights, 1.0)
        size = np.sqrt((error @ self.now @ error) * (error @ self.before @ error))
        return float(np.clip(error @ self.lagged @ error / size, 0, HIGHEST_CORRELATION)) if size > 0 else 0.0


def _solved(products: FloatArray, used: BoolArray, inputs: int, strength: float) -> FloatArray:
    """Return the weights of the columns, (p,): a ridge on the first ``inputs`` columns, 0 for unused ones."""
    at = np.flatnonzero(used)
    gram = products[np.ix_(at, at)]
    sizes = np.diag(gram)
    penalty = np.where(at < inputs, strength, ROUNDING) * sizes
    weights = np.zeros(len(used))
    weights[at] = np.linalg.solve(gram + np.diag(penalty + ROUNDING * sizes.max(initial=1)), products[at, -1])
    return weights


def _loss(products: FloatArray, weights: FloatArray) -> float:
    error = np.append(-weights, 1.0)
    return float(error @ products @ error)
