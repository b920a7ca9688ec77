"""The errors of a closed form on the rows that it was not fitted on, and its metrics."""

from __future__ import annotations

import numpy as np

from flts.forecasting.intervals import calibration_steps
from flts.forecasting.linear.model import PathModel, path_residuals
from flts.forecasting.linear.table import LinearTable
from flts.forecasting.series import FloatArray
from flts.forecasting.splits import Tails

RESIDUAL_PATHS = 1_024
"""Paths of the calibration tail whose errors calibrate the intervals at most; neighbours have similar errors."""


def judged_errors(
    model: PathModel, table: LinearTable, tails: Tails, *, unit: FloatArray, scales: FloatArray
) -> tuple[dict[int, FloatArray], dict[str, float | None]]:
    """Return the residuals of the calibration tail by steps ahead, (n, k) each in raw units, and the metrics.

    Parameters
    ----------
    model : PathModel
        Fitted on the rows before the calibration tail.
    table : LinearTable
        All training rows.
    unit : (k,)
        Raw units of a difference of 1 in the table.
    scales : (k,)
        Raw units of a difference of 1 in the run's recipe, whose units the metrics have.
    """
    steps = calibrated_steps(tails.calibration_rows, model.horizon)

    def residuals(first: int, stop: int) -> FloatArray:
        compared = np.array(steps)
        return unit * path_residuals(model, table, first=first, stop=stop, most=RESIDUAL_PATHS, steps=compared)[1]

    tail = residuals(tails.stop_stop, len(table))
    metrics = error_metrics("train", residuals(0, tails.stop_stop) / scales) | error_metrics("val", tail / scales)
    return {step: tail[:, at] for at, step in enumerate(steps)}, metrics


def calibrated_steps(tail_rows: int, horizon: int) -> list[int]:
    """Return the steps to calibrate, with the longest step that the tail contains three times."""
    steps = {step for step in calibration_steps(tail_rows) if step <= horizon}
    return sorted(steps | {max(1, min(horizon, tail_rows // 3))})


def error_metrics(prefix: str, errors: FloatArray) -> dict[str, float | None]:
    """Return the metrics of errors in the scaled units of the run's recipe; None without an error."""
    known = errors[np.isfinite(errors)]
    loss = float(np.square(known).mean()) if len(known) else None
    return {
        f"{prefix}_loss": loss,
        f"{prefix}_rmse": None if loss is None else float(np.sqrt(loss)),
        f"{prefix}_mae": float(np.abs(known).mean()) if len(known) else None,
    }
