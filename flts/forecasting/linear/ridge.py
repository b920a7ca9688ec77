"""Ridge regressions of all steps on one set of inputs, for every anchor and strength."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from flts.forecasting.linear.moments import Moments
from flts.forecasting.series import FloatArray
from flts.forecasting.windows import Float32Array

STRENGTHS = (1e-4, 2e-3, 3e-2, 0.5, 8.0)
"""Penalties of scaled values, per row that is fitted on."""
OPTIONS = tuple((anchor, strength) for anchor in (0, 1) for strength in STRENGTHS)
"""Anchor (0: the rest returns to its mean; 1: it starts at its last value) and penalty of each choice."""


class Ridges:
    """The regressions of a range of steps; one eigendecomposition serves all of them.

    Minimises ``||t - a last - X w - c||^2 + strength rows ||w||^2`` with the intercept c unpenalised and the anchor a.

    Parameters
    ----------
    moments : Moments
    window : int
        Inputs that are lags, the first ones.
    """

    def __init__(self, moments: Moments, window: int) -> None:
        self._window = window
        count = max(moments.count, 1)
        self._count = count
        self._x_mean = moments.x_sum / count
        self._t_mean = moments.t_sum / count
        gram = moments.gram - np.outer(moments.x_sum, self._x_mean)
        eigenvalues, self._vectors = np.linalg.eigh(gram)
        # Rounding can make eigenvalues of a Gram matrix slightly negative.
        self._eigenvalues = np.maximum(eigenvalues, 0.0)
        self._targets = self._vectors.T @ (moments.cross - np.outer(moments.x_sum, self._t_mean))
        self._last = self._vectors.T @ gram[0]

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self._t_mean)

    def weights(self, shares: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the weights of inputs at raw lags (p, H) and the intercepts (H,) of a mean of options.

        The anchor and the differences to the last value are part of the weights.

        Parameters
        ----------
        shares : (options, H)
            Share of each option in each step; the shares of a step add up to 1. Steps after the last one that was
            fitted are forecast like that one.
        """
        columns = np.minimum(np.arange(shares.shape[1]), self.steps - 1)
        turned = np.zeros((len(self._eigenvalues), len(columns)))
        anchors = np.zeros(len(columns))
        for (anchor, strength), share in zip(OPTIONS, shares, strict=True):
            at = np.flatnonzero(share)
            if len(at):
                shrunk = share[at] / (self._eigenvalues + strength * self._count)[:, None]
                turned[:, at] += (self._targets[:, columns[at]] - anchor * self._last[:, None]) * shrunk
                anchors[at] += anchor * share[at]
        weights = self._vectors @ turned
        intercepts = self._t_mean[columns] - anchors * self._x_mean[0] - self._x_mean @ weights
        weights[0] += anchors - weights[1 : self._window].sum(axis=0)
        return weights, intercepts

    def forecasts(self, inputs: FloatArray, steps: slice) -> Iterator[Float32Array]:
        """Yield the forecasts (rows, steps) of each option from inputs (rows, p)."""
        turned = ((inputs - self._x_mean) @ self._vectors).astype(np.float32)
        last = inputs[:, :1] - self._x_mean[0]
        for anchor, strength in OPTIONS:
            shrunk = 1 / (self._eigenvalues + strength * self._count)
            forecast = turned @ (self._targets[:, steps] * shrunk[:, None]).astype(np.float32)
            if anchor:
                forecast += (last - turned @ (self._last * shrunk)[:, None]).astype(np.float32)
            yield forecast + self._t_mean[steps].astype(np.float32)
