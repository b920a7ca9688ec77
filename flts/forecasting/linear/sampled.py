"""Moments of weights that many series share, from an even sample of their rows."""

from __future__ import annotations

import numpy as np

from flts.forecasting.linear.kinds import Kind, Scaled
from flts.forecasting.linear.moments import Moments, written_inputs
from flts.forecasting.series import BoolArray, IntArray

MOST_ROWS = 200_000
"""Rows of all series together that the sums are taken over."""
CHUNK_ROWS = 4_096


def sampled_moments(
    scaled: Scaled, kind: Kind, masks: list[BoolArray], targets: IntArray, *, window: int, steps: IntArray
) -> Moments:
    """Return the moments of a kind over all series.

    Parameters
    ----------
    scaled : Scaled
    kind : Kind
        Without the rows of other columns.
    masks : list of (n,)
        The rows of each target after which a forecast can begin.
    targets : (k,)
        Columns.
    window : int
    steps : (H,)
        Consecutive steps.
    """
    counts = np.array([int(mask.sum()) for mask in masks])
    total = int(counts.sum())
    chosen = np.arange(total) if total <= MOST_ROWS else np.arange(MOST_ROWS) * total // MOST_ROWS
    stops = np.cumsum(counts)
    width = window + scaled.table.clock.shape[1]
    gram, cross = np.zeros((width, width)), np.zeros((width, len(steps)))
    x_sum, t_sum = np.zeros(width), np.zeros(len(steps))
    for at, target in enumerate(targets):
        first, stop = np.searchsorted(chosen, (stops[at] - counts[at], stops[at]))
        rows = np.flatnonzero(masks[at])[chosen[first:stop] - (stops[at] - counts[at])]
        rest = scaled.rest(kind.base, int(target))
        for begin in range(0, len(rows), CHUNK_ROWS):
            part = rows[begin : begin + CHUNK_ROWS]
            x = written_inputs(rest, scaled.table.clock, scaled.z, part, window=window, other_rows=0)
            known = scaled.known(kind.base, int(target), part, steps)
            t = scaled.z[part[:, None] + steps, target] - known
            x_sum += x.sum(axis=0)
            t_sum += t.sum(axis=0)
            single = x.astype(np.float32)
            gram += single.T @ single
            cross += single.T @ t.astype(np.float32)
    return Moments(len(chosen), gram, cross, x_sum, t_sum)
