"""A network that corrects LINEAR's forecasts, in units of LINEAR's error at each step.

A recurrent encoder reads the last rows of all columns. A small head answers any step from the encoder's state and the
inputs known for the step, LINEAR's forecast among them. Its last layer begins at zero, so that the untrained network is
LINEAR. Each window is asked for a few random steps, so that a long horizon costs no more than a short one.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from flts.forecasting.series import IntArray
from train_container.domain.direct.passes import Samples, loss_of
from train_container.domain.direct.plan import LEAST_STEPS, Plan, batch_of
from train_container.domain.direct.table import NetworkTable, Paths

DECAYS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Steps in which the exponential features of a step fall to 1/e."""
LOG_UNIT = 4.0
"""Divisor of a step's logarithm: 50 steps are 1, as large as the other features."""
WIDE, NARROW = 128, 64
"""Units of the head's layers."""
ASKED_STEPS, HELD_STEPS = 12, 48
"""Random steps of a window in training, and on the stopping tail."""


class Correction(nn.Module):
    """The network.

    Parameters
    ----------
    plan : Plan
    inputs, known, targets : int
        Features of a window's row, features of a step, and targets k.
    """

    def __init__(self, plan: Plan, *, inputs: int, known: int, targets: int) -> None:
        super().__init__()
        between = plan.dropout if plan.layers > 1 else 0.0  # torch warns about dropout in a single layer
        self.encoder = getattr(nn, plan.cell)(inputs, plan.hidden, plan.layers, batch_first=True, dropout=between)
        self.of_state = nn.Linear(plan.hidden, WIDE)
        self.of_known = nn.Linear(known, WIDE, bias=False)
        self.middle = nn.Linear(WIDE, NARROW)
        self.out = nn.Linear(NARROW, targets)
        self.drop = nn.Dropout(plan.dropout)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, windows: Tensor, known: Tensor) -> Tensor:
        """Return corrections (b, J, k) in units of LINEAR's error, of windows (b, W, f) and steps (b, J, q)."""
        states, _ = self.encoder(windows)
        state = self.of_state(self.drop(states[:, -1]))[:, None]
        wide = self.drop(torch.relu(state + self.of_known(known)))
        correction: Tensor = self.out(torch.relu(self.middle(wide)))
        return correction


def step_features(steps: Tensor) -> Tensor:
    """Return the features of steps (...) as float32, (..., 7)."""
    decays = [torch.exp(-steps / each) for each in DECAYS]
    return torch.stack([torch.log(steps) / LOG_UNIT, *decays], dim=-1)


class CorrectionSamples(Samples):
    """Windows of a table, each with random steps.

    Parameters
    ----------
    paths, held : Paths
        Of the fit rows and of the stopping tail.
    unit : (H, k)
        LINEAR's error at each step.
    plan : Plan
    reads : CorrectionReads
    """

    name, least_steps = "correction", LEAST_STEPS

    def __init__(self, paths: Paths, held: Paths, unit: Tensor, plan: Plan, reads: CorrectionReads) -> None:
        self.paths, self.held, self.unit, self.reads = paths, held, unit, reads
        self.count, self._point = len(paths), plan.point
        self.batch = batch_of(self.count, plan.batch)
        first = paths.some(slice(0, 1))
        windows, known = self.reads(first.table, first.origins, np.ones((1, 1), dtype=np.int64), first.linear[:, :1])
        torch.manual_seed(plan.seed)
        self.network = Correction(plan, inputs=windows.shape[2], known=known.shape[2], targets=unit.shape[1])
        self._held_steps = self._asked(np.random.default_rng(plan.seed), len(held), HELD_STEPS)

    def loss(self, chosen: IntArray, random: np.random.Generator) -> Tensor:
        """See `Samples`."""
        return self._loss(self.paths.some(chosen), self._asked(random, len(chosen), ASKED_STEPS))

    def held_out(self) -> float:
        """See `Samples`."""
        return float(self._loss(self.held, self._held_steps)) if len(self.held) else float("inf")

    def _loss(self, paths: Paths, steps: IntArray) -> Tensor:
        at = torch.from_numpy(steps)
        linear = torch.take_along_dim(paths.linear, at[..., None] - 1, dim=1)
        actual, weight = paths.actual(steps)
        correction = self.network(*self.reads(paths.table, paths.origins, steps, linear))
        return loss_of((actual - linear) / self.unit[at - 1] - correction, weight, self._point)

    def _asked(self, random: np.random.Generator, windows: int, asked: int) -> IntArray:
        """Return the steps of each window: the first one, then half of them near, half of them anywhere."""
        horizon = self.paths.horizon
        near = np.exp(random.uniform(0, np.log(horizon), (windows, asked // 2)))
        anywhere = random.uniform(1, horizon + 1, (windows, asked - asked // 2))
        steps = np.minimum(np.concatenate([near, anywhere], axis=1).astype(np.int64), horizon)
        steps[:, 0] = 1
        return steps


class CorrectionReads:
    """Gathers what the network reads from a table.

    Parameters
    ----------
    window : int
        Rows W of a window.
    lags : tuple of int
        Seasons in rows; the values the fewest whole seasons before a step are inputs.
    """

    def __init__(self, window: int, lags: tuple[int, ...]) -> None:
        self.window, self.lags = window, lags

    @property
    def rows(self) -> int:
        """Rows of the past that the network reads."""
        return max(self.window, *self.lags, 1)

    def __call__(
        self, table: NetworkTable, origins: IntArray, steps: IntArray, linear: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the windows (b, W, f) of origins (b,), and the features (b, J, q) of steps (b, J).

        ``linear`` has the scaled forecasts of LINEAR at these steps, (b, J, k).
        """
        last = origins[:, None]
        past = torch.from_numpy(last + np.arange(1 - self.window, 1))
        rows = [table.z[past], table.calendar[past]]
        ahead = table.rows_at(last + steps)
        known = [step_features(torch.from_numpy(steps.astype(np.float32))), table.calendar[ahead], linear]
        if table.profile is not None:
            rows.append(table.own[past] - table.profile[past])
            known.append(table.profile[ahead])
        known += [table.own[torch.from_numpy(last + steps - lag * -(-steps // lag))] for lag in self.lags]
        return torch.cat(rows, dim=-1), torch.cat([*known, table.known[ahead]], dim=-1)
