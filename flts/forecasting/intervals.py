"""Split-conformal intervals: order statistics of residuals in rows that the model was not fitted on.

Lei et al., Distribution-Free Predictive Inference for Regression (2018). Each bound is calibrated separately, because
the residuals of measured loads are skewed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from flts.errors import RejectedError
from flts.forecasting.series import FloatArray

LEAST_RESIDUALS = 9
"""Residuals per target; with fewer, not even a one-sided 90 % bound exists: (n + 1) * 0.9 > n."""
FIRST_STEPS = (1, 2, 5, 10, 30, 60)


@dataclass(frozen=True, slots=True, eq=False)
class Intervals:
    """Quantiles of residuals (actual - forecast) in raw units at some steps ahead.

    Parameters
    ----------
    nominal : float
        Share of actuals that the interval is to cover.
    steps : tuple of s step counts, increasing
    lower, upper : (s, m), or None
        None if there were too few residuals; the bounds of a forecast are then null.
    """

    nominal: float
    steps: tuple[int, ...]
    lower: FloatArray | None
    upper: FloatArray | None

    @property
    def calibrated_steps(self) -> int:
        """Longest calibrated step, 0 without one; bounds of later steps are extrapolated."""
        return self.steps[-1] if self.steps else 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "nominal": self.nominal,
            "steps": list(self.steps),
            "lower": None if self.lower is None else self.lower.tolist(),
            "upper": None if self.upper is None else self.upper.tolist(),
            "calibrated_steps": self.calibrated_steps,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Intervals:
        """Read what `to_dict` wrote.

        Raises
        ------
        RejectedError
            ``bad_intervals`` unless steps increase, both bounds are finite and of one shape, and lower <= upper.
        """
        try:
            nominal = float(values["nominal"])
            steps = tuple(int(step) for step in values["steps"])
            lower, upper = (
                None if values[name] is None else np.array(values[name], dtype=np.float64)
                for name in ("lower", "upper")
            )
        except (KeyError, TypeError, ValueError) as error:
            msg = "intervals are not readable"
            raise RejectedError(msg, code="bad_intervals", field="intervals") from error
        intervals = cls(nominal, steps, lower, upper)
        if not intervals._is_sound():
            msg = "intervals make no sense: steps must increase, bounds be finite and the lower not above the upper"
            raise RejectedError(msg, code="bad_intervals", field="intervals")
        return intervals

    def _is_sound(self) -> bool:
        if not 0 < self.nominal < 1:
            return False
        if self.lower is None or self.upper is None:
            return self.lower is None and self.upper is None and self.steps == ()
        return (
            len(self.steps) > 0
            and self.steps[0] >= 1
            and all(earlier < later for earlier, later in zip(self.steps, self.steps[1:], strict=False))
            and self.lower.ndim == 2  # noqa: PLR2004 - steps x targets
            and self.lower.shape == self.upper.shape
            and len(self.lower) == len(self.steps)
            and bool(np.isfinite(self.lower).all() and np.isfinite(self.upper).all())
            and bool((self.lower <= self.upper).all())
        )


def calibration_steps(tail_rows: int) -> tuple[int, ...]:
    """Return the steps ahead to calibrate: 1, 2, 5, 10, 30, 60, 120, 240, ... up to a third of the tail."""
    longest = tail_rows // 3
    steps = [step for step in FIRST_STEPS if step <= longest]
    while steps and steps[-1] >= FIRST_STEPS[-1] and 2 * steps[-1] <= longest:
        steps.append(2 * steps[-1])
    if not steps and tail_rows >= 1:
        steps = [1]
    return tuple(steps)


def calibrate(residuals: Mapping[int, FloatArray], nominal: float = 0.9) -> Intervals:
    """Return intervals whose bounds are order statistics of the residuals, with the finite-sample correction.

    Of n residuals the lower bound is the floor((n + 1) a / 2)-th smallest and the upper bound the
    ceil((n + 1) (1 - a / 2))-th smallest, with a = 1 - nominal. A rank below 1 becomes 1, and a rank above n becomes n.

    Parameters
    ----------
    residuals : steps ahead -> (n, m)
        Actual minus forecast in raw units; NaN (the actual was missing) is left out. A step is calibrated if every
        target has at least `LEAST_RESIDUALS`.
    nominal : float
        Share of actuals to cover.
    """
    rows = []
    for steps in sorted(residuals):
        columns = [column[~np.isnan(column)] for column in np.asarray(residuals[steps]).T]
        if columns and min(len(column) for column in columns) >= LEAST_RESIDUALS:
            rows.append((steps, [_order_statistics(column, nominal) for column in columns]))
    if not rows:
        return Intervals(nominal, (), None, None)
    pairs = np.array([bounds for _, bounds in rows])
    return Intervals(nominal, tuple(steps for steps, _ in rows), pairs[..., 0], pairs[..., 1])


def bounds(intervals: Intervals | None, mean: FloatArray, first_step: int = 1) -> tuple[FloatArray, FloatArray] | None:
    """Return lower and upper bounds of a forecast, or None if nothing was calibrated.

    Between calibrated steps the quantiles are interpolated. After the last calibrated step they continue with the slope
    between the last two, if that widens the interval.

    Parameters
    ----------
    mean : (h, m)
        Forecast in raw units.
    first_step : int
        Steps ahead of the forecast's first row.

    Raises
    ------
    RejectedError
        ``bad_shape`` if the forecast and the intervals have different numbers of targets.
    """
    if intervals is None or intervals.lower is None or intervals.upper is None:
        return None
    if mean.shape[1] != intervals.lower.shape[1]:  # numpy would broadcast one target's bounds to all targets
        msg = f"{intervals.lower.shape[1]} targets were calibrated, the forecast has {mean.shape[1]}"
        raise RejectedError(msg, code="bad_shape")
    ahead = np.arange(first_step, first_step + len(mean), dtype=np.float64)
    lower = _at_steps(ahead, intervals.steps, intervals.lower, -1.0)
    upper = _at_steps(ahead, intervals.steps, intervals.upper, 1.0)
    return mean + lower, mean + upper


def _order_statistics(residuals: FloatArray, nominal: float) -> tuple[float, float]:
    ordered = np.sort(residuals)
    n = len(ordered)
    half = (1 - nominal) / 2
    # The ranks are rounded before floor and ceil, because (1 - 0.9) / 2 * 20 is a little less than 1 in floating point
    # and its floor would be 0.
    lower = max(math.floor(round((n + 1) * half, 9)), 1)
    upper = min(math.ceil(round((n + 1) * (1 - half), 9)), n)
    return float(ordered[lower - 1]), float(ordered[upper - 1])


def _at_steps(ahead: FloatArray, steps: tuple[int, ...], quantiles: FloatArray, outward: float) -> FloatArray:
    at = np.empty((len(ahead), quantiles.shape[1]))
    for target in range(quantiles.shape[1]):
        at[:, target] = np.interp(ahead, steps, quantiles[:, target])
    if len(steps) > 1:
        slope = (quantiles[-1] - quantiles[-2]) / (steps[-1] - steps[-2])
        widening = outward * np.maximum(outward * slope, 0)
        at += np.maximum(ahead - steps[-1], 0)[:, None] * widening
    return at
