"""The upper tail of Student's t distribution, exact for any number of degrees of freedom."""

from __future__ import annotations

import math

ITERATIONS = 10_000
"""Most terms of the continued fraction; a million degrees need about 1,000."""
PRECISION = 1e-15
TINY = 1e-300
"""Replaces a denominator of 0 (Lentz's algorithm)."""


def upper_tail(statistic: float, degrees: float) -> float:
    """Return P(T > statistic) for Student's t.

    For a positive statistic it is half the regularised incomplete beta function I_x(degrees / 2, 1 / 2) at
    x = degrees / (degrees + statistic ** 2) (Abramowitz and Stegun 26.5.27). The relative error is below 1e-8 up to
    a million degrees.

    Parameters
    ----------
    statistic : float
        May be infinite; NaN gives NaN.
    degrees : float
        Degrees of freedom, above 0.
    """
    if math.isnan(statistic):
        return math.nan
    square = statistic * statistic
    # Both x and 1 - x are passed, because 1 - x loses all digits where x is close to 1.
    beyond = math.inf if math.isinf(square) else square / degrees
    x = 0.0 if math.isinf(beyond) else 1.0 / (1.0 + beyond)
    rest = 1.0 if math.isinf(beyond) else beyond / (1.0 + beyond)
    tail = 0.5 * _incomplete_beta(degrees / 2.0, 0.5, x, rest)
    return tail if statistic >= 0 else 1.0 - tail


def _incomplete_beta(a: float, b: float, x: float, rest: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b) for ``rest = 1 - x``."""
    if x <= 0.0 or rest <= 0.0:
        return 0.0 if x <= 0.0 else 1.0
    log_factor = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest)
    factor = math.exp(log_factor)
    # The fraction converges fast on this side; on the other side the symmetry I_x(a, b) = 1 - I_(1 - x)(b, a) is used.
    if x < (a + 1.0) / (a + b + 2.0):
        return factor * _fraction(a, b, x) / a
    return 1.0 - factor * _fraction(b, a, rest) / b


def _fraction(a: float, b: float, x: float) -> float:
    """Return the continued fraction of the incomplete beta function (A&S 26.5.8) by Lentz's algorithm."""
    ratio = 1.0
    inverse = 1.0 / _not_zero(1.0 - (a + b) * x / (a + 1.0))
    value = inverse
    for term in range(1, ITERATIONS):
        even = term * (b - term) * x / ((a + 2 * term - 1) * (a + 2 * term))
        odd = -(a + term) * (a + b + term) * x / ((a + 2 * term) * (a + 2 * term + 1))
        for coefficient in (even, odd):
            inverse = 1.0 / _not_zero(1.0 + coefficient * inverse)
            ratio = _not_zero(1.0 + coefficient / ratio)
            value *= inverse * ratio
        if abs(inverse * ratio - 1.0) < PRECISION:
            break
    return value


def _not_zero(value: float) -> float:
    return value if abs(value) > TINY else TINY
