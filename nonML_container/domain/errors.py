"""The errors of a fit."""

from __future__ import annotations

import numpy as np

from flts.forecasting.series import FloatArray


def error_metrics(prefix: str, actual: FloatArray, forecast: FloatArray) -> dict[str, float | None]:
    """Return loss (mean squared error), rmse and mae, each the mean over targets.

    Parameters
    ----------
    prefix : str
        Start of each metric's name, for example ``val_``.
    actual, forecast : (..., m)
        Scaled. An actual that is not finite is left out; the metrics are None if no actual is finite.
    """
    error = np.where(np.isfinite(actual), actual - forecast, np.nan).reshape(-1, actual.shape[-1])
    seen = np.isfinite(error).any(axis=0)
    if not seen.any():
        return dict.fromkeys((f"{prefix}loss", f"{prefix}rmse", f"{prefix}mae"))
    squared = np.nanmean(error[:, seen] ** 2, axis=0)
    return {
        f"{prefix}loss": float(squared.mean()),
        f"{prefix}rmse": float(np.sqrt(squared).mean()),
        f"{prefix}mae": float(np.nanmean(np.abs(error[:, seen]), axis=0).mean()),
    }
