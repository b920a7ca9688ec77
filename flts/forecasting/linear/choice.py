"""The choices that LINEAR makes on the stopping tail, and the size of the model that they lead to."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from flts.forecasting.linear.kinds import Kind
from flts.forecasting.linear.table import LinearTable, refuse
from flts.forecasting.series import FloatArray, IntArray

OTHER_ROWS = 10
"""Last rows of all columns that some kinds add."""
OWN_COLUMNS = 32
"""Columns up to which each target has its own weights; the products of columns with targets grow as the square."""
NOISE = 1.0
"""Kinds whose squared error is at most 1 + this / sqrt(n) of a block's least one are averaged, n being the number of
times that the stopping tail contains the block's last step. Errors overlap, so that about n of them are independent,
and the ratio of two means of n squared errors is as inexact as that."""
LEAST_POWER, POWER, LEAST_WEIGHT = 4.0, 2.0, 0.05
"""Options of a kind are averaged with weights of (least error / error) to a power: the first plus the second times the
same number. Smaller weights are 0. The likelihood of normal errors has such a power; the best option alone is a choice
by chance where blocks are narrow or the tail is short."""
MAX_BYTES = 31 * 2**20
"""Bytes of the weights; the ONNX file has at most 32 MiB."""


@dataclass(frozen=True, slots=True, eq=False)
class LinearChoice:
    """What the stopping tail decided.

    Parameters
    ----------
    horizon, window : int
        H, and W rows of the rest.
    fit_stop, stop_stop : int
        The stopping tail's first row and end.
    targets : (k,)
        Columns.
    kinds : tuple of K
    edges : (B + 1,)
        Blocks of steps: block b has the steps after ``edges[b]`` up to ``edges[b + 1]``.
    options : (k, K, options, B)
        Share of each of `OPTIONS` in its kind.
    mix : (k, K, B)
        Share of each kind; the shares of a block add up to 1.
    sharing : float
        Far steps share weights: a bucket that begins at step h has ``sharing * h`` steps; 0 for none.
    """

    horizon: int
    window: int
    fit_stop: int
    stop_stop: int
    targets: IntArray
    kinds: tuple[Kind, ...]
    edges: IntArray
    options: FloatArray
    mix: FloatArray
    sharing: float = 0.0


def block_edges(horizon: int) -> IntArray:
    """Return the edges of blocks of steps that choose together: narrow near the origin, geometric from step 12 on."""
    far = np.geomspace(12, max(horizon, 13), 12).astype(np.int64)
    edges = np.unique(np.concatenate([[0, 1, 2, 4, 8], far, [horizon]]))
    return edges[edges <= horizon].astype(np.int64)


def step_buckets(horizon: int, sharing: float) -> IntArray:
    """Return which weights each step uses, (H,): bucket numbers from 0 on."""
    buckets, at = np.empty(horizon, dtype=np.int64), 0
    number = 0
    while at < horizon:
        width = max(1, int(sharing * at))
        buckets[at : at + width] = number
        at, number = at + width, number + 1
    return buckets


def decide(choice: LinearChoice, table: LinearTable, errors: FloatArray, max_bytes: int) -> LinearChoice:
    """Complete a choice by the mean squared errors (k, K, options, B) of the stopping tail.

    Kinds are left out, the worst first, and then far steps share weights, until the model's numbers need at most
    ``max_bytes``.
    """
    noise = np.minimum(1.0, choice.edges[1:] / max(choice.stop_stop - choice.fit_stop, 1))
    # Shared weights have shared options.
    together = errors if table.columns <= OWN_COLUMNS else np.broadcast_to(errors.sum(axis=0), errors.shape)
    tiny = np.maximum(together, 1e-30)  # a series without noise has no error
    ratios = tiny.min(axis=2, keepdims=True) / tiny
    weights = ratios ** (LEAST_POWER + POWER / noise)
    weights[weights < LEAST_WEIGHT] = 0
    options = weights / weights.sum(axis=2, keepdims=True)
    of_kinds = (errors * options).sum(axis=2)
    near = 1 + NOISE * np.sqrt(noise)
    choice = replace(choice, options=options, mix=_mix(of_kinds, near))
    return _within(table, choice, of_kinds, near, max_bytes)


def _mix(errors: FloatArray, near: FloatArray) -> FloatArray:
    good = errors <= near * errors.min(axis=1, keepdims=True)
    mix: FloatArray = good / good.sum(axis=1, keepdims=True)
    return mix


def _within(
    table: LinearTable, choice: LinearChoice, errors: FloatArray, near: FloatArray, max_bytes: int
) -> LinearChoice:
    """Leave out kinds, the worst first, then share far steps, until the numbers fit into ``max_bytes``."""
    relative = (errors / np.maximum(errors.min(axis=1, keepdims=True), 1e-30)).mean(axis=(0, 2))
    worst_first = sorted(range(len(choice.kinds)), key=lambda at: (-relative[at], at))
    kept = np.ones(len(choice.kinds), dtype=bool)
    while _bytes(table, choice) > max_bytes:
        if kept.sum() > 1:
            kept[next(at for at in worst_first if kept[at])] = False
            choice = replace(choice, mix=_mix(np.where(kept[:, None], errors, np.inf), near))
        elif choice.sharing < 1:
            choice = replace(choice, sharing=max(1 / 64, 2 * choice.sharing))
        else:
            refuse(f"its weights for {len(choice.targets):,} targets do not fit into {max_bytes:,} bytes")
    return choice


def _bytes(table: LinearTable, choice: LinearChoice) -> int:
    used = [kind for at, kind in enumerate(choice.kinds) if choice.mix[:, at].any()]
    bases = {kind.base for kind in used}
    targets = len(choice.targets)
    groups = targets if table.columns <= OWN_COLUMNS else 1
    calendar = table.clock.shape[1]
    inputs = choice.window * len(bases) + calendar * (1 if groups > 1 else len(bases))
    if any(kind.others for kind in used):
        inputs += min(OTHER_ROWS, choice.window) * table.columns
    buckets = int(step_buckets(choice.horizon, choice.sharing)[-1]) + 1
    numbers = groups * inputs * buckets + targets * choice.horizon * (len(bases) + 1)
    profiles = {base.season for base in bases if base.value == "profile"}
    numbers += sum(targets * max(table.seasons[at], int(table.places[:, at].max()) + 1) for at in profiles)
    return 4 * int(numbers)
