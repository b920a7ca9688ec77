"""Expanding folds of the training rows: their rows, and the residuals of forecasts from many origins in them.

A fold is fitted on the first rows and forecasts from origins in the rows after them (Hyndman and Athanasopoulos,
Forecasting: Principles and Practice, section 5.10). The residuals of several folds show errors at several times, and
those of one tail only at one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from flts.forecasting.intervals import LEAST_RESIDUALS, LEVELS, Intervals, calibrate, nearest_steps
from flts.forecasting.series import FloatArray, IntArray
from flts.forecasting.splits import Tails, tails

EDGES = (0.4, 0.55, 0.7, 0.85, 1.0)
"""Shares of the training rows: a fold is fitted on the rows before an edge and forecasts the rows up to the next."""
LEAST_WINDOWS = 20
"""Forecasts without a common row behind an interval, below which it is shown with a warning. Of 20 residuals the
largest and the smallest are the ends of a 90 % interval."""
WINDOWS_METRIC = "interval_windows"
"""Name of that number among a bundle's metrics."""
LEAST_TIMES = 3
"""Forecasts without a common row that a step needs to be calibrated."""
MOST_ORIGINS, LEAST_ORIGINS, MOST_PATHS = 256, 16, 3_000
"""Origins of a fold at most and at least, and paths of all targets, which limit them in between."""


@dataclass(frozen=True, slots=True)
class FoldRows:
    """A fold: its number from 0 on, the split of the rows to fit on, and the end of its origins."""

    number: int
    own: Tails
    end: int


@dataclass(frozen=True, slots=True, eq=False)
class FoldResiduals:
    """The residuals of one fold.

    Parameters
    ----------
    number : int
        Of the fold, from 0 on.
    rows : (n,)
        Training rows of the first forecast steps, increasing.
    residuals : (n, H, m)
        Actual minus forecast, raw; NaN where the actual is missing, imputed, after a gap or after the training rows.
    """

    number: int
    rows: IntArray
    residuals: FloatArray


def fold_rows(n_rows: int, *, shares: tuple[float, float]) -> Iterator[FoldRows]:
    """Yield the folds that have rows to fit on before their tails, and an origin.

    Parameters
    ----------
    n_rows : int
        Training rows.
    shares : (2,)
        Of the stopping tail and of the calibration tail among a fold's own rows.
    """
    if min(shares) <= 0:
        return
    for number, (stop, end) in enumerate(pairwise(int(n_rows * edge) for edge in EDGES)):
        if 0 < stop < end:
            own = tails(stop, stop_tail=shares[0], calibration_tail=shares[1])
            if own.fit_stop >= 1:
                yield FoldRows(number, own, end)


def most_origins(targets: int) -> int:
    """Return the most origins of a fold. It is the same number for every model, so that they share their origins."""
    return max(LEAST_ORIGINS, min(MOST_ORIGINS, MOST_PATHS // max(targets, 1)))


def fold_intervals(folds: Sequence[FoldResiduals]) -> Intervals:
    """Return intervals whose quantiles are those of the residuals of several folds, per block of steps.

    The quantiles are those at steps 1, 2, 4, 8 and so on, and at the last one. Each is taken from the residuals of the
    steps that are nearer to it than to another. Steps that the folds do not contain `LEAST_TIMES` times, or that fewer
    than `LEAST_RESIDUALS` forecasts reach, are left out; their bounds are extrapolated.
    """
    reach = _reach(folds)
    if not reach:
        return calibrate({})
    steps = calibrated_steps(reach)
    targets = folds[0].residuals.shape[2]
    blocks = [
        np.concatenate([fold.residuals[:, near].reshape(-1, targets) for fold in folds])
        for near in nearest_steps(steps)
    ]
    return calibrate(dict(zip(steps, blocks, strict=True)), levels=LEVELS)


def calibrated_steps(horizon: int) -> list[int]:
    """Return the steps that have quantiles: 1, 2, 4, 8 and so on, and the horizon; the last two are a third apart."""
    return [*(2**power for power in range(horizon.bit_length()) if 2**power * 4 <= horizon * 3), horizon]


def independent_windows(folds: Sequence[FoldResiduals], step: int) -> int:
    """Return the number of forecasts of ``step`` steps without a common row; the last step's actual is known.

    It is the fewest of all targets.
    """
    if not folds:
        return 0
    counts = np.zeros(folds[0].residuals.shape[2], dtype=np.int64)
    for fold in folds:
        known = np.isfinite(fold.residuals[:, step - 1])
        free_from = np.zeros(len(counts), dtype=np.int64)
        for row, cells in zip(fold.rows.tolist(), known, strict=True):
            counted = cells & (row >= free_from)
            counts += counted
            free_from[counted] = row + step
    return int(counts.min())


def windows_metric(windows: int) -> dict[str, float | None]:
    """Return the metric of a bundle that states the number of forecasts without a common row behind its intervals."""
    return {WINDOWS_METRIC: float(windows)}


def few_windows(metrics: Mapping[str, float | None]) -> str | None:
    """Return the warning of a bundle with these metrics, or None if enough forecasts are behind its intervals."""
    windows = metrics.get(WINDOWS_METRIC)
    if windows is None or windows >= LEAST_WINDOWS:
        return None
    return (
        f"{windows:.0f} forecasts of the horizon without a common row are behind the intervals; with fewer than "
        f"{LEAST_WINDOWS} the share of values inside them is uncertain"
    )


def _reach(folds: Sequence[FoldResiduals]) -> int:
    """Return the longest calibrated step that the folds contain often enough; 0 if there is none."""
    for step in reversed(calibrated_steps(folds[0].residuals.shape[1]) if folds else []):
        known = sum(np.isfinite(fold.residuals[:, step - 1]).sum(axis=0) for fold in folds)
        often = step == 1 or independent_windows(folds, step) >= LEAST_TIMES
        if often and np.min(known) >= LEAST_RESIDUALS:
            return step
    return 0
