"""Split-conformal intervals: order statistics of residuals in rows that the model was not fitted on.

Lei et al., Distribution-Free Predictive Inference for Regression (2018). Each bound is calibrated separately, because
the residuals of measured loads are skewed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from flts.errors import RejectedError
from flts.forecasting.series import FloatArray

LEAST_RESIDUALS = 9
"""Residuals per target; with fewer, not even a one-sided 90 % bound exists: (n + 1) * 0.9 > n."""
SAME_LEVEL = 1e-9
"""Largest difference of two probabilities that count as equal: 0.05 is (1 - 0.9) / 2 only to the last digit."""
FIRST_STEPS = (1, 2, 5, 10, 30, 60)


@dataclass(frozen=True, slots=True, eq=False)
class Intervals:
    """Quantiles of residuals (actual - forecast) in raw units at some steps ahead.

    Parameters
    ----------
    nominal : float
        Share of actuals that the interval between ``lower`` and ``upper`` is to cover.
    steps : tuple of s step counts, increasing
    probabilities : tuple of p levels, increasing
        Shares of actuals below each quantile; the two of the nominal interval are among them.
    values : (p, s, m), or None
        None if there were too few residuals, or if they are in a model file that was not read; the bounds of a forecast
        are then null.
    """

    nominal: float
    steps: tuple[int, ...]
    probabilities: tuple[float, ...]
    values: FloatArray | None

    @classmethod
    def between(
        cls, nominal: float, steps: tuple[int, ...], lower: FloatArray | None, upper: FloatArray | None
    ) -> Intervals:
        """Return intervals with the two quantiles of the nominal interval, (s, m) each, or with None for both."""
        values = None if lower is None or upper is None else np.stack([lower, upper])
        return cls(nominal, steps, edges_of(nominal), values)

    @property
    def lower(self) -> FloatArray | None:
        """(s, m) lower ends of the nominal interval, or None."""
        return self._quantile(0)

    @property
    def upper(self) -> FloatArray | None:
        """(s, m) upper ends of the nominal interval, or None."""
        return self._quantile(1)

    @property
    def has_only_edges(self) -> bool:
        """Whether the nominal interval has the only quantiles."""
        return self.probabilities == edges_of(self.nominal)

    @property
    def calibrated_steps(self) -> int:
        """Longest calibrated step, 0 without one; bounds of later steps are extrapolated."""
        return self.steps[-1] if self.steps else 0

    def select(self, columns: list[int]) -> Intervals:
        """Return the intervals of some targets, by their positions."""
        return self if self.values is None else replace(self, values=self.values[..., columns])

    def with_values(self, values: FloatArray) -> Intervals:
        """Return the intervals with the values (p, s, m) of a model file.

        Raises
        ------
        RejectedError
            ``bad_intervals`` unless they are finite and increase with the probability.
        """
        intervals = replace(self, values=np.array(values, dtype=np.float64))
        if not intervals.is_sound():
            raise _unsound()
        return intervals

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values of the nominal interval."""
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
            intervals = cls.between(nominal, steps, lower, upper)
        except (KeyError, TypeError, ValueError) as error:
            msg = "intervals are not readable"
            raise RejectedError(msg, code="bad_intervals", field="intervals") from error
        if (lower is None) != (upper is None) or (lower is None) != (steps == ()) or not intervals.is_sound():
            raise _unsound()
        return intervals

    def to_head(self) -> dict[str, Any]:
        """Return plain JSON values of all but ``values``."""
        return {"nominal": self.nominal, "steps": list(self.steps), "probabilities": list(self.probabilities)}

    @classmethod
    def from_head(cls, values: Mapping[str, Any]) -> Intervals:
        """Read what `to_head` wrote.

        Raises
        ------
        RejectedError
            ``bad_intervals`` unless steps and probabilities increase, and the two ends of the nominal interval are
            among the probabilities.
        """
        try:
            nominal = float(values["nominal"])
            steps = tuple(int(step) for step in values["steps"])
            probabilities = tuple(float(level) for level in values["probabilities"])
        except (KeyError, TypeError, ValueError) as error:
            msg = "intervals are not readable"
            raise RejectedError(msg, code="bad_intervals", field="intervals") from error
        intervals = cls(nominal, steps, probabilities, None)
        if set(values) != {"nominal", "steps", "probabilities"} or not intervals.is_sound():
            raise _unsound()
        return intervals

    def _quantile(self, end: int) -> FloatArray | None:
        if self.values is None:
            return None
        at = self._position(edges_of(self.nominal)[end])
        return None if at is None else self.values[at]

    def _position(self, level: float) -> int | None:
        near = (at for at, known in enumerate(self.probabilities) if abs(known - level) <= SAME_LEVEL)
        return next(near, None)

    def is_sound(self) -> bool:
        """Return whether steps and probabilities increase, contain the nominal interval, and values fit to both."""
        levels, values = self.probabilities, self.values
        if not 0 < self.nominal < 1 or any(self._position(level) is None for level in edges_of(self.nominal)):
            return False
        if not 0 < levels[0] <= levels[-1] < 1 or not _increases(levels) or not _increases((0, *self.steps)):
            return False
        return (
            values is None
            or (
                len(self.steps) > 0
                and values.ndim == 3  # noqa: PLR2004 - probabilities x steps x targets
                and values.shape[:2] == (len(levels), len(self.steps))
                and bool(np.isfinite(values).all())
                and bool((np.diff(values, axis=0) >= 0).all())
            )
        )


def edges_of(nominal: float) -> tuple[float, float]:
    """Return the probabilities of the two ends of an interval that covers a share of the actuals."""
    return (1 - nominal) / 2, (1 + nominal) / 2


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
        return Intervals.between(nominal, (), None, None)
    pairs = np.array([bounds for _, bounds in rows])
    return Intervals.between(nominal, tuple(steps for steps, _ in rows), pairs[..., 0], pairs[..., 1])


def bounds(intervals: Intervals | None, mean: FloatArray, first_step: int = 1) -> tuple[FloatArray, FloatArray] | None:
    """Return lower and upper bounds of a forecast, or None if nothing was calibrated.

    Between calibrated steps the quantiles are interpolated. After the last calibrated step they continue with the slope
    between the last two, if that widens the interval. If both bounds are above or both below the forecast, the nearer
    one becomes the forecast, so that every forecast is inside its interval.

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
    below, above = (None, None) if intervals is None else (intervals.lower, intervals.upper)
    if intervals is None or below is None or above is None:
        return None
    if mean.shape[1] != below.shape[1]:  # numpy would broadcast one target's bounds to all targets
        msg = f"{below.shape[1]} targets were calibrated, the forecast has {mean.shape[1]}"
        raise RejectedError(msg, code="bad_shape")
    ahead = np.arange(first_step, first_step + len(mean), dtype=np.float64)
    lower = _at_steps(ahead, intervals.steps, below, -1.0)
    upper = _at_steps(ahead, intervals.steps, above, 1.0)
    return mean + np.minimum(lower, 0), mean + np.maximum(upper, 0)


def _increases(numbers: Sequence[float]) -> bool:
    return all(earlier < later for earlier, later in pairwise(numbers))


def _unsound() -> RejectedError:
    msg = (
        "intervals make no sense: steps and probabilities must increase, bounds be finite and the lower not above the "
        "upper"
    )
    return RejectedError(msg, code="bad_intervals", field="intervals")


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
