"""Ridge regression on flattened windows: the linear model that a network must beat."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from flts.errors import SeriesTooShortError
from flts.forecasting.series import FloatArray
from flts.forecasting.windows import Float32Array, Windows

ALPHAS = tuple(10.0 ** (power / 2) for power in range(-8, 9))
"""Penalties that are tried, for scaled values; in half decades, because whole decades are too coarse."""
CHUNK_WINDOWS = 16_384
"""Windows that are converted to float64 at once; limits the memory."""


@dataclass(frozen=True, slots=True, eq=False)
class RidgeModel:
    """A linear `WindowModel`.

    Parameters
    ----------
    coefficients : (L * f, H * m)
    intercept : (H * m,)
    horizon_steps : int
        H.
    alphas : (H * m,)
        The penalty chosen for each output.
    stop_mse : (H * m,)
        Mean squared error on the stopping windows, by which the penalty was chosen.
    """

    coefficients: FloatArray
    intercept: FloatArray
    horizon_steps: int
    alphas: FloatArray
    stop_mse: FloatArray

    def __call__(self, windows: Float32Array) -> FloatArray:
        """Forecast (b, H, m) from windows (b, L, f)."""
        flat = windows.reshape(len(windows), -1).astype(np.float64)
        return (flat @ self.coefficients + self.intercept).reshape(len(windows), self.horizon_steps, -1)


def fit_ridge(fit: Windows, stop: Windows, alphas: tuple[float, ...] = ALPHAS) -> RidgeModel:
    """Fit a linear model on flattened windows.

    Minimises ``||y - X w - c||^2 + alpha ||w||^2`` by the normal equations in float64, the intercept c unpenalised, as
    scikit-learn's ``Ridge`` does. Each output uses the penalty with the least error on the stopping windows, so that
    the penalty of a target does not depend on the other targets. One eigendecomposition serves all penalties.

    Raises
    ------
    SeriesTooShortError
        Without windows to fit on.
    """
    if not len(fit):
        msg = "there are no windows to fit Ridge on"
        raise SeriesTooShortError(msg)
    horizon_steps = fit.targets.shape[1]
    x_mean, y_mean = _mean(fit.inputs), _mean(fit.targets)
    gram = np.zeros((len(x_mean), len(x_mean)))
    moment = np.zeros((len(x_mean), len(y_mean)))
    for start in range(0, len(fit), CHUNK_WINDOWS):
        chunk = slice(start, start + CHUNK_WINDOWS)
        x = _flat(fit.inputs[chunk]) - x_mean
        gram += x.T @ x
        moment += x.T @ (_flat(fit.targets[chunk]) - y_mean)
    eigenvalues, vectors = np.linalg.eigh(gram)
    projected = vectors.T @ moment
    best: RidgeModel | None = None
    for alpha in alphas:
        # Rounding can make eigenvalues of a Gram matrix slightly negative, so negative eigenvalues are replaced by 0.
        coefficients = vectors @ (projected / (np.maximum(eigenvalues, 0) + alpha)[:, None])
        intercept = y_mean - x_mean @ coefficients
        used, unknown = np.full(len(y_mean), alpha), np.full(len(y_mean), np.nan)
        model = RidgeModel(coefficients, intercept, horizon_steps, used, unknown)
        model = replace(model, stop_mse=_stop_mse(model, stop))
        best = model if best is None else _better(best, model)
    assert best is not None
    return best


def _better(one: RidgeModel, other: RidgeModel) -> RidgeModel:
    """Return a model with, for each output, the coefficients of the model with the lower stopping error."""
    use_other = other.stop_mse < one.stop_mse
    return RidgeModel(
        np.where(use_other, other.coefficients, one.coefficients),
        np.where(use_other, other.intercept, one.intercept),
        one.horizon_steps,
        np.where(use_other, other.alphas, one.alphas),
        np.where(use_other, other.stop_mse, one.stop_mse),
    )


def _stop_mse(model: RidgeModel, stop: Windows) -> FloatArray:
    total = np.zeros(len(model.intercept))
    for start in range(0, len(stop), CHUNK_WINDOWS):
        chunk = slice(start, start + CHUNK_WINDOWS)
        errors = model(stop.inputs[chunk]) - stop.targets[chunk]
        total += np.square(errors).sum(axis=0).ravel()
    return total / max(len(stop), 1)


def _mean(windows: Float32Array) -> FloatArray:
    mean: FloatArray = windows.mean(axis=0, dtype=np.float64).ravel()
    return mean


def _flat(windows: Float32Array) -> FloatArray:
    return windows.reshape(len(windows), -1).astype(np.float64)
