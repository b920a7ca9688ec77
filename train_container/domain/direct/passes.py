"""Train one form of a direct network: passes over samples of the fit rows, judged on the stopping tail."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from flts.forecasting.quantiles import Point
from flts.forecasting.series import IntArray
from flts.training.fitting import Report
from train_container.domain.direct.plan import Plan
from train_container.domain.losses import ABSOLUTE_WEIGHT

WARM_UP = 0.15
"""Share of all steps in which the learning rate rises to its peak."""
CLIP_NORM = 1.0
WEIGHT_DECAY = 0.01
AVERAGED = 0.99
"""Share that the moving average of the weights keeps at each step. The average of a pass forecasts better than its last
weights as long as the learning rate is high, and short series are best after few passes."""


class Samples(ABC):
    """The samples that a form is trained on, and its network."""

    name: str
    least_steps: int
    """Optimiser steps of a training at least, unless the passes are given."""
    network: nn.Module
    count: int
    """Samples of the fit rows."""
    batch: int
    """Samples of an optimiser step."""

    @abstractmethod
    def loss(self, chosen: IntArray, random: np.random.Generator) -> Tensor:
        """Return the loss of some samples of the fit rows, by number."""

    @abstractmethod
    def held_out(self) -> float:
        """Return the loss on the stopping tail; infinite if no window ends there."""


@dataclass(slots=True, eq=False)
class Passed:
    """A training that ended.

    Parameters
    ----------
    passes : int
        Passes after which the network has the kept weights; 0 for those that it began with.
    history : list
        Losses of each pass.
    """

    passes: int = 0
    history: list[dict[str, float | None]] = field(default_factory=list)


def loss_of(error: Tensor, weight: Tensor, point: Point) -> Tensor:
    """Return the weighted mean of the squared errors and a share of the absolute ones, or of the absolute ones alone.

    The first is the least for the mean of skewed values, but for the small share; the second for their median.
    """
    value = error.abs() if point == "median" else error.square() + ABSOLUTE_WEIGHT * error.abs()
    return (value * weight).sum() / weight.sum().clamp(min=1)


class Counted:
    """Numbers the passes of several forms through, and reports them.

    Parameters
    ----------
    report : Report
    total : int
        Passes of all forms.
    """

    def __init__(self, report: Report, total: int) -> None:
        self._report, self._total = report, total
        self._done = 0

    def alive(self, detail: str) -> None:
        """See `Report`."""
        self._report.alive(detail)

    def done(self, metrics: Mapping[str, float | None], loss: float | None) -> None:
        """Report that a pass is done."""
        self._done += 1
        self._report.epoch_done(self._done, self._total, metrics, loss=loss)


def train(samples: Samples, plan: Plan, report: Counted, *, passes: int | None = None) -> Passed:
    """Train a network, and keep the weights of the pass with the lowest loss on the stopping tail.

    The weights of a pass are their moving average over the optimiser's steps.

    Parameters
    ----------
    samples : Samples
    plan : Plan
    report : Counted
    passes : int, optional
        Train exactly so many passes, at the learning rates of a whole training, and keep the last weights.
    """
    network, total = samples.network, plan.passes_of(samples.count, samples.batch, samples.least_steps)
    steps = plan.steps_of(samples.count, samples.batch)
    random = np.random.default_rng(plan.seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=plan.rate, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, plan.rate, total_steps=max(2, steps * max(total, passes or 0)), pct_start=WARM_UP
    )
    average = _copied(network)
    kept, least = _copied(network), math.inf if passes else _held_out(samples)
    found = Passed()
    seen = 0
    for number in range(1, (passes or total) + 1):
        network.train()
        losses = []
        for batch in _batches(samples.count, samples.batch, steps, random):
            loss = samples.loss(batch, random)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch has not annotated it
            nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM)
            optimiser.step()
            schedule.step()
            seen += 1
            for name, weights in network.state_dict().items():
                average[name].lerp_(weights, max(1 - AVERAGED, 1 / (1 + seen)))
            losses.append(loss.detach())
            report.alive(f"{samples.name}, pass {number}, batch {len(losses)} of {steps}")
        present = _copied(network)
        network.load_state_dict(average)
        held_out = None if passes else _held_out(samples)
        shown = held_out if held_out is not None and math.isfinite(held_out) else None
        fitted = float(torch.stack(losses).mean())
        metrics = {f"{samples.name}_train_loss": fitted, f"{samples.name}_val_loss": shown}
        found.history.append(metrics)
        report.done(metrics, shown)
        if held_out is None or held_out < least:
            least, found.passes, kept = least if held_out is None else held_out, number, _copied(network)
        elif plan.passes is not None and plan.patience is not None and number - found.passes >= plan.patience:
            break
        network.load_state_dict(present)
    network.load_state_dict(kept)
    network.eval()
    return found


@torch.inference_mode()
def _held_out(samples: Samples) -> float:
    samples.network.eval()
    return samples.held_out()


def _copied(network: nn.Module) -> dict[str, Tensor]:
    return {name: weights.clone() for name, weights in network.state_dict().items()}


def _batches(count: int, size: int, steps: int, random: np.random.Generator) -> Iterator[IntArray]:
    """Yield samples in a random order, again from the first one when all were used."""
    order = random.permutation(count)
    at = 0
    for _ in range(steps):
        if at >= count:
            order, at = random.permutation(count), 0
        yield order[at : at + size]
        at += size
