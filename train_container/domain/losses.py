"""The training loss, and scores that are summed up batch by batch."""

from __future__ import annotations

import torch
from torch import Tensor

ABSOLUTE_WEIGHT = 0.2
"""Weight of the absolute error; the squared error has 1. Measured in docs/decisions/0001-training-defaults.md."""
LEAST_DEVIATION = 1e-6
"""Scaled units; dividing by a smaller deviation would make a nearly constant target dominate the loss."""


class ScaledLoss:
    """Squared error plus weighted absolute error, in units of each target's standard deviation over the fit rows.

    Parameters
    ----------
    targets : (n, H, m)
        Targets of the fit rows.
    """

    def __init__(self, targets: Tensor) -> None:
        deviation = targets.double().std(dim=(0, 1), correction=0).float()
        self._deviation = torch.where(deviation > LEAST_DEVIATION, deviation, torch.ones_like(deviation))

    def __call__(self, answer: Tensor, expected: Tensor) -> Tensor:
        """Return the mean over windows, steps and targets."""
        error = (answer - expected) / self._deviation
        return error.square().mean() + ABSOLUTE_WEIGHT * error.abs().mean()


class Scores:
    """Loss, and RMSE and MAE in scaled units (mean over targets), summed up batch by batch."""

    def __init__(self) -> None:
        self._count = 0
        self._loss = 0.0
        self._squared: Tensor | None = None
        self._absolute: Tensor | None = None

    def add(self, loss: Tensor, answer: Tensor, expected: Tensor) -> None:
        """Add a batch and its loss."""
        error = (answer - expected).flatten(0, 1)
        count = len(answer)
        squared, absolute = error.square().mean(0) * count, error.abs().mean(0) * count
        self._squared = squared if self._squared is None else self._squared + squared
        self._absolute = absolute if self._absolute is None else self._absolute + absolute
        self._loss += float(loss) * count
        self._count += count

    @property
    def loss(self) -> float:
        """Mean loss."""
        return self._loss / self._count

    def named(self, prefix: str) -> dict[str, float | None]:
        """Return loss, rmse and mae under names with this prefix."""
        assert self._squared is not None
        assert self._absolute is not None
        return {
            f"{prefix}loss": self.loss,
            f"{prefix}rmse": float((self._squared / self._count).sqrt().mean()),
            f"{prefix}mae": float((self._absolute / self._count).mean()),
        }
