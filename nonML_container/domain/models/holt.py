"""HOLT: damped-trend exponential smoothing of each varying target. The parameters minimise the error on the fit rows.

The recursion (`flts.forecasting.smoothing`) runs over the rows of a window. It starts with the level of the first row
and no trend. Level and trend are then linear in the window, and the squared one-step error is a quadratic form of the
second moments of windows and targets. The moments are computed once, so that trying a parameter needs no pass over the
rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from flts.errors import SeriesTooShortError
from flts.forecasting.rolling import WINDOW_INPUT
from flts.forecasting.series import FloatArray, IntArray
from flts.forecasting.smoothing import damping, responses, smooth
from flts.forecasting.windows import target_rows
from flts.training.fitting import FittedModel, Report, TrainingSet
from flts.training.onnx_file import GraphBuilder, to_bytes
from nonML_container.domain.errors import error_metrics

if TYPE_CHECKING:
    from nonML_container.settings import NonmlSettings

FIT_VERSION = 1
"""Version; a change of this module that makes another model of the same rows raises it."""
LOWEST, HIGHEST = np.array([0.01, 0.0, 0.8]), np.array([1.0, 1.0, 0.98])
"""Bounds of alpha, beta, phi; a phi below 0.8 damps a trend too soon, a phi above 0.98 hardly at all (FPP3)."""
PERSISTENCE = np.array([1.0, 0.0, 0.8])
"""Parameters that repeat the last value; used unless other parameters have a smaller error."""
FIRST_POINTS, POINTS, HALVINGS = 13, 5, 6
"""Values per parameter in the first grid, values per parameter in each finer grid, number of finer grids."""
LONGEST_WINDOW = 128
"""Rows; even with an alpha of 0.05 the first row has a weight of 0.0015."""
START_TOLERANCE = 0.01
"""Most root mean square change of a forecast by a shorter window, as a share of the root mean square one-step error."""
CHUNK_WINDOWS = 8192
CHECKED_WINDOWS = 32
"""Held-out windows on which the ONNX file must repeat the recursion."""
SCORED_WINDOWS, SCORED_CELLS = 4096, 4_000_000
"""Most windows (evenly spread) and most forecast values that an error is measured on."""


def hash_parts(settings: NonmlSettings, horizon: int | None) -> Mapping[str, Any]:  # noqa: ARG001 - as every Fitter
    """Return the version of this fit, which uses no forecasting library."""
    return {"holt": FIT_VERSION}


def fit(data: TrainingSet, settings: NonmlSettings, report: Report) -> FittedModel:
    """Fit on the fit rows, in a refit on all rows; the stopping tail only measures the error.

    Raises
    ------
    SeriesTooShortError
        If a target has no observed value among the fit rows that have a whole window before them.
    """
    features, columns = data.features, data.recipe.varying_columns
    segments, stop = features.segments(), data.tails.fit_stop if data.judged is None else len(features)
    longest = window_limit(segments, stop)
    origins = target_rows(segments, context_rows=longest, last_row=stop)
    found, rows = np.empty((len(columns), 3)), 1
    for at, (column, name) in enumerate(zip(columns, data.recipe.varying_targets, strict=True)):
        observed = origins[~features.imputed[origins, column]]
        if not len(observed):
            msg = f"{name} has no value among the fit rows with a row before it"
            raise SeriesTooShortError(msg, field=name)
        moments = second_moments(features.values[:, column], observed, longest, report)
        found[at] = search(moments)
        rows = max(rows, window_rows(found[at], moments, settings.pass_steps))
        names = ("target_alpha", "target_beta", "target_phi", "target_loss")
        figures = [*found[at], _squared_errors(found[[at]], moments)[0]]
        report.epoch_done(at + 1, len(columns), dict(zip(names, map(float, figures), strict=True)), loss=None)
    values, horizon = features.values[:, columns], settings.pass_steps
    actual = np.where(features.imputed[:, columns], np.nan, values)

    def errors(prefix: str, first: int, last: int) -> dict[str, float | None]:
        measured = target_rows(segments, context_rows=rows, horizon_steps=horizon, first_row=first, last_row=last)
        measured = _spread(measured, min(SCORED_WINDOWS, SCORED_CELLS // (horizon * len(columns)) + 1))
        return error_metrics(
            prefix, actual[measured[:, None] + np.arange(horizon)], forecast(values, measured, found, rows, horizon)
        )

    # The ONNX file is checked on the windows of the last origins. There is no origin if every segment is shorter than a
    # window.
    checked = target_rows(segments, context_rows=rows, last_row=len(features))[-CHECKED_WINDOWS:]
    return FittedModel(
        model_bytes=_onnx(found, rows, horizon, columns, features=len(features.names)),
        input_kind="window",
        check_inputs={WINDOW_INPUT: features.values[checked[:, None] + np.arange(-rows, 0)].astype(np.float32)},
        check_outputs=forecast(values, checked, found, rows, horizon),
        metrics=errors("train_", 0, stop) | (errors("val_", stop, data.tails.stop_stop) if data.judged is None else {}),
        rows_required=rows + data.recipe.warmup_rows,
        fitted_rows=stop,
    )


def forecast(
    values: FloatArray, origins: IntArray, parameters: FloatArray, rows: int, horizon_steps: int
) -> FloatArray:
    """Forecast from the ``rows`` rows before each origin.

    Parameters
    ----------
    values : (n, m)
    origins : (b,)
        Rows of the first forecast steps.
    parameters : (m, 3)

    Returns
    -------
    (b, horizon_steps, m)
    """
    level, trend = smooth((values[origins - back] for back in range(rows, 0, -1)), parameters)
    return level[:, None] + trend[:, None] * damping(parameters, horizon_steps).T


def weights(parameters: FloatArray, rows: int) -> tuple[FloatArray, FloatArray]:
    """Return the weights of a window's rows in its level and in its trend, (c, rows) each, for parameters (c, 3).

    A row's weight depends only on its distance from the end of the window. The first row gets the remainder: the level
    weights add up to 1 and the trend weights to 0, because a constant window has its constant as level and no trend.
    """
    of_level, of_trend = responses(parameters, rows)
    of_level[:, 0] = of_trend[:, 0] = 0.0
    of_level[:, 0], of_trend[:, 0] = 1 - of_level.sum(axis=1), -of_trend.sum(axis=1)
    return of_level, of_trend


def window_limit(segments: list[slice], fit_stop: int) -> int:
    """Return the longest window, in rows, that at least half of the fit rows have completely before them."""
    for rows in range(LONGEST_WINDOW, 1, -1):
        if 2 * len(target_rows(segments, context_rows=rows, last_row=fit_stop)) >= fit_stop:
            return rows
    return 1


def second_moments(values: FloatArray, origins: IntArray, rows: int, report: Report) -> FloatArray:
    """Return the mean products of a window's rows and its target, (rows + 1, rows + 1), the target last.

    The window's last row is subtracted first. The one-step weights add up to 1, so the errors stay the same. Without
    the subtraction, a series with small changes around a large value would lose digits.
    """
    pairs = sliding_window_view(values, rows + 1)
    total = np.zeros((rows + 1, rows + 1))
    for start in range(0, len(origins), CHUNK_WINDOWS):
        chunk = pairs[origins[start : start + CHUNK_WINDOWS] - rows]
        chunk = chunk - chunk[:, [-2]]
        total += chunk.T @ chunk
        report.alive("second moments")
    return total / len(origins)


def search(moments: FloatArray) -> FloatArray:
    """Return alpha, beta and phi, (3,), of least squared error, by a grid, then finer grids around the best point."""
    best, least = PERSISTENCE, _squared_errors(PERSISTENCE[None], moments)[0]
    centre, reach, points = (LOWEST + HIGHEST) / 2, (HIGHEST - LOWEST) / 2, FIRST_POINTS
    for _ in range(1 + HALVINGS):
        axes = np.clip(centre + reach * np.linspace(-1, 1, points)[:, None], LOWEST, HIGHEST).T
        candidates = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
        errors = _squared_errors(candidates, moments)
        if errors.min() < least:
            best, least = candidates[errors.argmin()], errors.min()
        centre, reach, points = best, reach * 2 / (points - 1), POINTS
    return best


def window_rows(parameters: FloatArray, moments: FloatArray, horizon_steps: int) -> int:
    """Return the shortest window, in rows, that changes a forecast by at most `START_TOLERANCE`.

    Parameters
    ----------
    parameters : (3,)
    moments : (rows + 1, rows + 1)
        Second moments of the longest windows.
    horizon_steps : int
        The step ahead whose forecasts are compared; the weight of the trend is largest at the last step.
    """
    longest = len(moments) - 1
    [of_level], [of_trend] = weights(parameters[None], longest)
    whole = of_level + damping(parameters[None], horizon_steps)[0, -1] * of_trend
    allowed = START_TOLERANCE**2 * _squared_errors(parameters[None], moments)[0]
    for rows in range(1, longest):
        moved = -whole
        moved[longest - rows + 1 :] = 0.0
        # A window of `rows` rows lacks all earlier rows, so its first row gets the sum of their weights.
        moved[longest - rows] = whole[: longest - rows].sum()
        if moved @ moments[:-1, :-1] @ moved <= allowed:
            return rows
    return longest


def _one_step(parameters: FloatArray, rows: int) -> FloatArray:
    """Return the weights of a window's rows in the one-step forecast, (c, rows), for parameters (c, 3)."""
    of_level, of_trend = weights(parameters, rows)
    return of_level + parameters[:, [2]] * of_trend


def _squared_errors(parameters: FloatArray, moments: FloatArray) -> FloatArray:
    """Return the mean squared one-step error, (c,), for parameters (c, 3)."""
    weighted = np.column_stack([-_one_step(parameters, len(moments) - 1), np.ones(len(parameters))])
    errors: FloatArray = ((weighted @ moments) * weighted).sum(axis=1)
    return errors


def _onnx(parameters: FloatArray, rows: int, horizon_steps: int, columns: IntArray, *, features: int) -> bytes:
    """Return an ONNX file that multiplies, per target, the window by the weights and the result by the damping."""
    states = np.stack(weights(parameters, rows), axis=-1)  # (targets, rows, 2); 2: level and trend
    ahead = damping(parameters, horizon_steps)
    steps = np.stack([np.ones_like(ahead), ahead], axis=1)  # (targets, 2, horizon_steps)
    graph = GraphBuilder()
    targets = graph.node("Gather", ["window", graph.constant(columns)], axis=2)
    by_target = graph.node("Transpose", [targets], perm=[2, 0, 1])
    state = graph.node("MatMul", [by_target, graph.constant(states.astype(np.float32))])
    forecasts = graph.node("MatMul", [state, graph.constant(steps.astype(np.float32))])
    answer = graph.node("Transpose", [forecasts], perm=[1, 2, 0])
    return to_bytes(graph.window_model(answer, window=(rows, features), forecast=(horizon_steps, len(columns))))


def _spread(rows: IntArray, most: int) -> IntArray:
    chosen: IntArray = rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(np.int64))]
    return chosen
