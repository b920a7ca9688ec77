"""Compute the maximum of Prophet's posterior exactly.

With a linear trend and additive seasonalities Prophet (Taylor and Letham, Forecasting at Scale, 2018) is a linear model
with normal priors, Laplace priors on the changes of the trend, and one noise level. For a given noise level the maximum
is a quadratic problem with absolute values and about 50 unknowns. The data enter it once, as a Gram matrix.
Feature-sign search (Lee et al., Efficient sparse coding algorithms, 2007) solves it exactly, and the noise level has a
closed form. L-BFGS, which Prophet uses, needs hundreds of passes over all rows and stops before the maximum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TREND_DEVIATION = 5.0
"""Prior deviation of the trend's rate and offset, in prophet.stan."""
NOISE_DEVIATION = 0.5
"""Prior deviation of the noise level, in prophet.stan."""
LEAST_NOISE = 1e-9
MAX_ROUNDS = 200
MAX_SEARCH_STEPS = 2_000
TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """One series as Prophet prepares it.

    Parameters
    ----------
    t : (n,)
        Time, scaled to 0..1 over the history.
    y : (n,)
        Values, scaled.
    changes : (s,)
        Times at which the trend may change.
    features : (n, k)
        Seasonal terms.
    deviations : (k,)
        Prior deviations of their weights.
    change_scale : float
        Scale of the Laplace prior of the changes.
    """

    t: Array
    y: Array
    changes: Array
    features: Array
    deviations: Array
    change_scale: float


@dataclass(frozen=True, slots=True, eq=False)
class Parameters:
    """Prophet's parameters."""

    rate: float
    offset: float
    changes: Array
    weights: Array
    noise: float


class NotConvergedError(ArithmeticError):
    """The search did not end; the caller falls back on Prophet's own optimiser."""


def most_likely(problem: Problem) -> Parameters:
    """Return the parameters at the posterior's maximum.

    Raises
    ------
    NotConvergedError
        If the search did not end, which numbers near the limits of doubles can cause.
    """
    n, s = len(problem.y), len(problem.changes)
    ramps = np.maximum(problem.t[:, None] - problem.changes, 0.0)
    columns = np.concatenate([problem.t[:, None], np.ones((n, 1)), ramps, problem.features], axis=1)
    gram, moments = columns.T @ columns, columns.T @ problem.y
    precision = np.concatenate([np.full(2, TREND_DEVIATION**-2.0), np.zeros(s), problem.deviations**-2.0])
    penalty = np.concatenate([np.zeros(2), np.full(s, 1 / problem.change_scale), np.zeros(len(problem.deviations))])
    solution = np.zeros(columns.shape[1])
    noise = max(float(np.std(problem.y)), LEAST_NOISE)
    for _ in range(MAX_ROUNDS):
        # `gram` and `moments` would have to be divided by the noise variance, which overflows near 0. Instead
        # `precision` and `penalty` are multiplied by the variance, which gives the same minimum.
        variance = noise**2
        solution = sparse_minimum(gram + np.diag(variance * precision), moments, variance * penalty, solution)
        errors = problem.y - columns @ solution
        fresh = max(_noise_level(float(errors @ errors), n), LEAST_NOISE)
        settled = abs(fresh - noise) <= TOLERANCE * noise
        noise = fresh
        if settled:
            break
    else:
        msg = "the noise level did not settle"
        raise NotConvergedError(msg)
    return Parameters(float(solution[0]), float(solution[1]), solution[2 : 2 + s], solution[2 + s :], noise)


def sparse_minimum(quadratic: Array, linear: Array, penalty: Array, start: Array) -> Array:
    """Return the x that minimises ``x' Q x / 2 - linear' x + penalty' |x|``.

    Parameters
    ----------
    quadratic : (p, p)
        Symmetric, positive definite on the unknowns that are not 0.
    linear : (p,)
    penalty : (p,)
        At least 0; an unknown whose penalty is 0 is free.
    start : (p,)
        Starting point of the search.

    Raises
    ------
    NotConvergedError
        After too many steps.
    """
    x = start.copy()
    free = penalty == 0
    sign = np.sign(x)
    active = free | (x != 0)
    slack = TOLERANCE * max(1.0, float(np.abs(linear).max()))
    settled = False  # whether x minimises the function over the active unknowns
    for _ in range(MAX_SEARCH_STEPS):
        gradient = quadratic @ x - linear
        if settled:
            excess = np.where(active, -np.inf, np.abs(gradient) - penalty)
            worst = int(np.argmax(excess))
            if excess[worst] <= slack:
                return x
            active[worst], sign[worst] = True, -np.sign(gradient[worst])
        x, settled = _step(quadratic, linear, penalty, (x, sign, active))
        sign = np.where(x != 0, np.sign(x), 0.0)
        active = free | (x != 0)
    msg = "the search for the trend's changes did not end"
    raise NotConvergedError(msg)


def _step(
    quadratic: Array, linear: Array, penalty: Array, state: tuple[Array, Array, NDArray[np.bool_]]
) -> tuple[Array, bool]:
    """Return the best point between ``x`` and the minimum of the active unknowns for these signs.

    The second value states whether the point is that minimum and has these signs.
    """
    x, sign, active = state
    at = np.flatnonzero(active)
    goal = np.zeros_like(x)
    try:
        goal[at] = np.linalg.solve(quadratic[np.ix_(at, at)], linear[at] - penalty[at] * sign[at])
    except np.linalg.LinAlgError as error:
        msg = "the changes of the trend are not distinct"
        raise NotConvergedError(msg) from error
    move = goal - x
    crosses = (penalty > 0) & active & (x != 0) & (np.sign(goal) != np.sign(x))
    if not crosses.any() and (np.sign(goal[at]) == sign[at])[penalty[at] > 0].all():
        return goal, True
    shares = np.unique(np.append(-x[crosses] / move[crosses], 1.0))
    best, best_value = x, np.inf
    for share in shares[(shares > 0) & (shares <= 1)]:
        point = x + share * move
        # An unknown that reaches 0 at this share of the move is set to exactly 0, because rounding would leave a tiny
        # value.
        point[crosses & np.isclose(-x / np.where(move == 0, 1.0, move), share, rtol=1e-12, atol=0)] = 0.0
        value = float(point @ quadratic @ point / 2 - linear @ point + penalty @ np.abs(point))
        if value < best_value:
            best, best_value = point, value
    return best, False


def _noise_level(squared_errors: float, n: int) -> float:
    """Return the most likely noise level: the root of ``s^4 / NOISE_DEVIATION^2 + n s^2 = squared_errors``."""
    a = NOISE_DEVIATION**-2.0
    return float(np.sqrt(2 * squared_errors / (n + np.sqrt(n**2 + 4 * a * squared_errors))))
