"""The weights of a direct network's forms, by blocks of steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flts.forecasting.linear.choice import block_edges
from flts.forecasting.quantiles import Point
from flts.forecasting.series import FloatArray, IntArray

SHARES = 4
"""The correction's weight is a multiple of 1 / this."""
SQUARED, ABSOLUTE = 0.5, 0.3
"""Weights of the root of the mean squared error and of the mean absolute error, as in eval's composite."""
LEAST_GAIN = 0.005
"""Share by which the correction must lower the error of LINEAR in a block; smaller gains on one tail are chance."""
NEAR = 1.1
"""Forecasts whose errors differ by at most this factor are averaged. One tail does not show which of them is better on
later rows, and the mean of two different models is often better than both."""


@dataclass(frozen=True, slots=True, eq=False)
class Blend:
    """The weights of forms beside LINEAR, which has the rest.

    Parameters
    ----------
    edges : (B + 1,)
        Blocks of steps: block b has the steps after ``edges[b]`` up to ``edges[b + 1]``.
    correction, segments : (B,)
        Weights in [0, 1]; their sums too.
    """

    edges: IntArray
    correction: FloatArray
    segments: FloatArray

    @property
    def by_step(self) -> tuple[FloatArray, FloatArray]:
        """The weights of both forms at each step, (H,) each."""
        widths = np.diff(self.edges)
        return np.repeat(self.correction, widths), np.repeat(self.segments, widths)

    def __call__(self, linear: Tensor, correction: Tensor | None, segments: Tensor | None) -> Tensor:
        """Return forecasts of LINEAR and of the forms as one, (b, H, k)."""
        forecast = linear
        for form, weights in zip((correction, segments), self.by_step, strict=True):
            if form is not None:
                forecast = forecast + torch.from_numpy(weights.astype(np.float32))[:, None] * (form - linear)
        return forecast

    @property
    def metrics(self) -> dict[str, float | None]:
        """The weights as metrics of a bundle, by form and last step of each block."""
        forms = {"correction": self.correction, "segments": self.segments}
        return {
            f"{form}_weight_to_{edge}": float(weight)
            for form, weights in forms.items()
            for edge, weight in zip(self.edges[1:], weights, strict=True)
        }


def choose_blend(  # noqa: PLR0917 - all that weights are chosen by
    linear: Tensor,
    correction: Tensor | None,
    segments: Tensor | None,
    actual: Tensor,
    weight: Tensor,
    unit: Tensor,
    point: Point,
) -> Blend:
    """Return the weights by the errors on the stopping tail, in units of LINEAR's error at each step.

    In each block the correction has the weight with the least error. Its forecast and that of the segments are averaged
    if their errors are near; else the block has the better one.

    Parameters
    ----------
    linear, actual, weight : (n, H, k)
        Forecasts of LINEAR, values, and 1 where they are compared.
    correction, segments : (n, H, k), optional
        Forecasts of the forms.
    unit : (H, k)
    point : {"mean", "median"}
        For the median only absolute errors count.
    """
    edges = block_edges(linear.shape[1])
    squared = 0.0 if point == "median" else SQUARED
    missing = (actual - linear) / unit

    def costs(forecast: Tensor) -> FloatArray:
        return _costs(missing - (forecast - linear) / unit, weight, edges, squared)

    shares, least, alone = np.zeros(len(edges) - 1), costs(linear), costs(linear)
    if correction is not None:
        for number in range(1, SHARES + 1):
            found = costs(linear + number / SHARES * (correction - linear))
            better = found < np.minimum(least, (1 - LEAST_GAIN) * alone)
            shares[better], least = number / SHARES, np.where(better, found, least)
    of_segments = np.zeros_like(shares)
    if segments is not None:
        ratio = costs(segments) / np.maximum(least, np.finfo(float).tiny)
        of_segments = np.select([ratio * NEAR < 1, ratio <= NEAR], [1.0, 0.5])
    return Blend(edges, (1 - of_segments) * shares, of_segments)


def _costs(error: Tensor, weight: Tensor, edges: IntArray, squared: float) -> FloatArray:
    """Return the error of each block, (B,)."""
    every = (error.square() * weight, error.abs() * weight, weight)
    squares, sizes, counts = (each.sum(dim=0).double().numpy() for each in every)
    starts = edges[:-1]
    cells = np.maximum(np.add.reduceat(counts, starts), 1)
    root = np.sqrt(np.add.reduceat(squares, starts) / cells)
    costs: FloatArray = (squared * root + ABSOLUTE * np.add.reduceat(sizes, starts) / cells).mean(axis=1)
    return costs
