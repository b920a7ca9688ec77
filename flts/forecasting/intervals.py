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
LEVELS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99)
"""Probabilities of the quantiles in bundles of format 2, as far as there are residuals for them."""
MEDIAN = 0.5
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
        return self.at_level(edges_of(self.nominal)[0])

    @property
    def upper(self) -> FloatArray | None:
        """(s, m) upper ends of the nominal interval, or None."""
        return self.at_level(edges_of(self.nominal)[1])

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

    def knows(self, level: float) -> bool:
        """Return whether there are quantiles of a probability."""
        return bool(self.steps) and self._position(level) is not None

    def at_level(self, level: float) -> FloatArray | None:
        """Return the quantiles (s, m) of a probability, or None if it is not among `probabilities`."""
        at = self._position(level)
        return None if at is None or self.values is None else self.values[at]

    def around(self, level: float) -> Intervals:
        """Return the intervals of a forecast that is moved by one of the quantiles; the same if it is not known."""
        centre = self.at_level(level)
        return self if centre is None or self.values is None else replace(self, values=self.values - centre)

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


def calibrate(residuals: Mapping[int, FloatArray], nominal: float = 0.9, *, levels: Sequence[float] = ()) -> Intervals:
    """Return intervals whose quantiles are order statistics of the residuals, with the finite-sample correction.

    Of n residuals the quantile of a probability p below 0.5 is the floor((n + 1) p)-th smallest, above 0.5 the
    ceil((n + 1) p)-th smallest, and at 0.5 the median. At the two ends of the nominal interval a rank below 1 becomes
    1, and a rank above n becomes n.

    Parameters
    ----------
    residuals : steps ahead -> (n, m)
        Actual minus forecast in raw units; NaN (the actual was missing) is left out. A step is calibrated if every
        target has at least `LEAST_RESIDUALS`.
    nominal : float
        Share of actuals to cover.
    levels : sequence of probabilities
        Further quantiles. A probability is left out if its rank is below 1 or above n at a calibrated step.
    """
    known = {step: np.count_nonzero(~np.isnan(residuals[step]), axis=0) for step in sorted(residuals)}
    fewest = {step: int(counts.min()) for step, counts in known.items() if len(counts)}
    steps = tuple(step for step, count in fewest.items() if count >= LEAST_RESIDUALS)
    if not steps:
        return Intervals.between(nominal, (), None, None)
    edges = edges_of(nominal)
    ranks = 1 + min(fewest[step] for step in steps)
    further = [level for level in levels if round(ranks * min(level, 1 - level), 9) >= 1]
    chosen = sorted({*edges, *(level for level in further if all(abs(level - edge) > SAME_LEVEL for edge in edges))})
    values = np.array([[_quantiles(column, chosen) for column in np.asarray(residuals[step]).T] for step in steps])
    return Intervals(nominal, steps, tuple(chosen), np.ascontiguousarray(values.transpose(2, 0, 1)))


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
    lower = at_steps(ahead, intervals.steps, below, -1.0)
    upper = at_steps(ahead, intervals.steps, above, 1.0)
    return mean + np.minimum(lower, 0), mean + np.maximum(upper, 0)


def at_steps(ahead: FloatArray, steps: tuple[int, ...], quantiles: FloatArray, outward: float) -> FloatArray:
    """Return quantiles (h, m) at steps ahead (h,): interpolated, and continued by the last slope if that is outward.

    Parameters
    ----------
    ahead : (h,)
    steps : tuple of s step counts, increasing
    quantiles : (s, m)
    outward : float
        Direction in which the quantiles widen an interval, -1 or 1; 0 continues them with the last value.
    """
    at = np.empty((len(ahead), quantiles.shape[1]))
    for target in range(quantiles.shape[1]):
        at[:, target] = np.interp(ahead, steps, quantiles[:, target])
    if len(steps) > 1:
        slope = (quantiles[-1] - quantiles[-2]) / (steps[-1] - steps[-2])
        widening = outward * np.maximum(outward * slope, 0)
        at += np.maximum(ahead - steps[-1], 0)[:, None] * widening
    return at


def nearest_steps(steps: Sequence[int]) -> list[slice]:
    """Return for each calibrated step the positions of the steps that are nearer to it than to another one."""
    bounds = [0, *((before + after) // 2 for before, after in pairwise(steps)), steps[-1]]
    return [slice(first, last) for first, last in pairwise(bounds)]


def _increases(numbers: Sequence[float]) -> bool:
    return all(earlier < later for earlier, later in pairwise(numbers))


def _unsound() -> RejectedError:
    msg = (
        "intervals make no sense: steps and probabilities must increase, bounds be finite and the lower not above the "
        "upper"
    )
    return RejectedError(msg, code="bad_intervals", field="intervals")


def _quantiles(residuals: FloatArray, levels: Sequence[float]) -> list[float]:
    """Return quantiles of the residuals that are not NaN, see `calibrate`."""
    ordered = np.sort(residuals[~np.isnan(residuals)])
    n = len(ordered)
    found = []
    for level in levels:
        # The rank is rounded before floor and ceil, because (1 - 0.9) / 2 * 20 is a little less than 1 in floating
        # point and its floor would be 0.
        rank = round((n + 1) * level, 9)
        below, above = (float(ordered[min(max(whole, 1), n) - 1]) for whole in (math.floor(rank), math.ceil(rank)))
        found.append(below if level < MEDIAN else above if level > MEDIAN else below + (above - below) / 2)
    return found
