"""Scores of forecasts.

Missing actuals (NaN) are left out and counted. A forecast that is NaN scores NaN, so that it passes no gate.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np

from flts.errors import RejectedError
from flts.forecasting.series import BoolArray, FloatArray


@dataclass(frozen=True, slots=True)
class Metrics:
    """Scores of one target. NaN where nothing could be scored, None where the number is not defined."""

    n: int
    """Actuals that were scored."""
    left_out: int
    """Actuals that were missing."""
    rmse: float
    mae: float
    mse: float
    mape: float | None
    """Mean absolute error relative to the actual, over the actuals that are not 0; 0.1 is 10 %."""
    mape_share: float
    """Share of the scored actuals that are not 0."""
    mase: float | None
    """MAE divided by the naive forecast's MAE in the training rows."""
    r2: float | None
    coverage: float | None
    """Share of the scored actuals inside the interval."""

    def as_dict(self) -> dict[str, float | int | None]:
        """Return the metrics as JSON values: NaN becomes null."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }


def measure(
    actual: FloatArray,
    forecast: FloatArray,
    *,
    naive_scale: FloatArray | None = None,
    lower: FloatArray | None = None,
    upper: FloatArray | None = None,
) -> tuple[Metrics, ...]:
    """Score each target separately.

    Parameters
    ----------
    actual, forecast : (n, m)
        In the same units; ``actual`` is NaN where it was missing.
    naive_scale : (m,), optional
        The result of `naive_errors`; without it MASE is None.
    lower, upper : (n, m), optional
        Bounds of the interval; without them coverage is None.
    """
    _same_shape(actual, forecast)
    scored = []
    for target in range(actual.shape[1]):
        seen = np.isfinite(actual[:, target])
        truth, guess = actual[seen, target], forecast[seen, target]
        percentage, share = mape(truth, guess)
        error = mae(truth, guess)
        scored.append(
            Metrics(
                n=len(truth),
                left_out=len(seen) - len(truth),
                rmse=rmse(truth, guess),
                mae=error,
                mse=mse(truth, guess),
                mape=percentage,
                mape_share=share,
                mase=None if naive_scale is None else mase(error, float(naive_scale[target])),
                r2=r2(truth, guess),
                coverage=None
                if lower is None or upper is None
                else coverage(truth, lower[seen, target], upper[seen, target]),
            )
        )
    return tuple(scored)


def rmse(actual: FloatArray, forecast: FloatArray) -> float:
    """Return the root of the mean squared error over all cells with an actual."""
    return math.sqrt(mse(actual, forecast))


def mae(actual: FloatArray, forecast: FloatArray) -> float:
    """Return the mean absolute error over all cells with an actual."""
    errors = _errors(actual, forecast)
    return float(np.abs(errors).mean()) if errors.size else math.nan


def mse(actual: FloatArray, forecast: FloatArray) -> float:
    """Return the mean squared error over all cells with an actual."""
    errors = _errors(actual, forecast)
    return float(np.square(errors).mean()) if errors.size else math.nan


def mape(actual: FloatArray, forecast: FloatArray) -> tuple[float | None, float]:
    """Return the mean of |error / actual| where the actual is not 0, and the share of actuals where it is not."""
    seen = np.isfinite(actual)
    usable = seen & (actual != 0)
    share = float(usable.sum() / seen.sum()) if seen.any() else 0.0
    if not usable.any():
        return None, share
    return float(np.abs((actual[usable] - forecast[usable]) / actual[usable]).mean()), share


def mase(mean_absolute_error: float, naive_error: float) -> float | None:
    """Return the MAE divided by the naive forecast's MAE in training; None if the divisor is 0 or not finite."""
    return mean_absolute_error / naive_error if naive_error > 0 and math.isfinite(naive_error) else None


def r2(actual: FloatArray, forecast: FloatArray) -> float | None:
    """Return 1 - squared error / squared deviation from the mean; None where the actuals do not vary."""
    seen = np.isfinite(actual)
    truth = actual[seen]
    if not len(truth) or truth.min() == truth.max():
        return None
    return float(1 - np.square(truth - forecast[seen]).sum() / np.square(truth - truth.mean()).sum())


def coverage(actual: FloatArray, lower: FloatArray, upper: FloatArray) -> float | None:
    """Return the share of actuals inside their interval, bounds included; None without actuals."""
    seen: BoolArray = np.isfinite(actual)
    if not seen.any():
        return None
    return float(((actual >= lower) & (actual <= upper))[seen].mean())


def naive_errors(values: FloatArray, segments: list[slice], season_steps: int = 1) -> FloatArray:
    """Return the mean absolute error of the naive forecast (the value one season earlier), (m,): the scale of MASE.

    Parameters
    ----------
    values : (n, m)
        Training rows; NaN is left out.
    segments : list of slices
        Differences are computed within each segment only.
    """
    differences = [
        np.abs(values[segment][season_steps:] - values[segment][:-season_steps])
        for segment in segments
        if segment.stop - segment.start > season_steps
    ]
    if not differences:
        return np.full(values.shape[1], np.nan)
    together = np.concatenate(differences)
    seen = np.isfinite(together)
    counts = seen.sum(axis=0)
    sums = np.where(seen, together, 0.0).sum(axis=0)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _errors(actual: FloatArray, forecast: FloatArray) -> FloatArray:
    _same_shape(actual, forecast)
    seen = np.isfinite(actual)
    return actual[seen] - forecast[seen]


def _same_shape(actual: FloatArray, forecast: FloatArray) -> None:
    if actual.shape != forecast.shape:  # numpy would broadcast, and the scores would be wrong
        msg = f"actuals have the shape {actual.shape}, forecasts {forecast.shape}"
        raise RejectedError(msg, code="bad_shape")
