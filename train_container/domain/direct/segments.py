"""A network over segments of each target (SegRNN: Lin et al. 2023, arXiv 2308.11200).

The last rows of a target, less its last value, are cut into segments. A recurrent layer reads the segments;
one more step of the same layer from its last state answers each future segment, all of them in parallel. All targets
share the weights, and differ by an embedding.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from flts.forecasting.series import IntArray
from train_container.domain.direct.passes import Samples, loss_of
from train_container.domain.direct.plan import SEGMENT_STEPS, Plan, batch_of
from train_container.domain.direct.table import NetworkTable, Paths

SEASONS = 4
"""Longest seasons that the network looks back."""
LEAST_ROWS = 336
"""Rows that it looks back at least, if the fit rows are `FIT_SHARE` times as many."""
FIT_SHARE = 4
MOST_ROWS = 9_600
"""Rows that it looks back at most; a bundle takes 10,000."""
SEGMENTS = 16
"""Segments of the look-back: a quarter of a season each if it has four seasons."""
SERIES_OF_WINDOW = 2
"""Windows of single targets in a batch, for each window of the correction, which has all columns."""
EMBEDDING = 0.02
"""Deviation of the embeddings at the start."""


class Segments(nn.Module):
    """The network.

    Parameters
    ----------
    plan : Plan
    rows, ahead : int
        Rows of a segment of the past, and of the future.
    count : int
        Segments of the future, J.
    targets, known : int
        Targets k, and features of a future segment.
    """

    def __init__(self, plan: Plan, *, rows: int, ahead: int, count: int, targets: int, known: int) -> None:
        super().__init__()
        between = plan.dropout if plan.layers > 1 else 0.0  # torch warns about dropout in a single layer
        self.rows = rows
        self.project = nn.Linear(rows, plan.hidden)
        self.cell = getattr(nn, plan.cell)(plan.hidden, plan.hidden, plan.layers, batch_first=True, dropout=between)
        self.position = nn.Parameter(EMBEDDING * torch.randn(count, plan.hidden))
        self.target = nn.Parameter(EMBEDDING * torch.randn(targets, plan.hidden))
        self.of_known = nn.Linear(known, plan.hidden, bias=False) if known else None
        self.out = nn.Linear(plan.hidden, ahead)
        self.drop = nn.Dropout(plan.dropout)

    def forward(self, past: Tensor, targets: Tensor, known: Tensor) -> Tensor:
        """Return forecasts (b, J * ahead) of past values (b, L), of targets (b,) by number, with known (b, J, q)."""
        last = past[:, -1:]
        segments = torch.relu(self.project((past - last).view(len(past), -1, self.rows)))
        _, state = self.cell(segments)
        given = self.position + self.target[targets][:, None]
        if self.of_known is not None:
            given = given + self.of_known(known)
        count = len(self.position)
        repeated = (
            tuple(each.repeat_interleave(count, dim=1) for each in state)
            if isinstance(state, tuple)
            else state.repeat_interleave(count, dim=1)
        )
        answer, _ = self.cell(given.flatten(0, 1)[:, None], repeated)
        forecast: Tensor = self.out(self.drop(answer[:, 0])).view(len(past), -1) + last
        return forecast


class SegmentReads:
    """Gathers what the network reads from a table.

    Parameters
    ----------
    horizon : int
    look_back, rows, ahead : int
        Rows of the past, of a segment of it, and of a segment of the future.
    """

    def __init__(self, horizon: int, look_back: int, rows: int, ahead: int) -> None:
        self.horizon, self.look_back, self.rows, self.ahead = horizon, look_back, rows, ahead
        starts = np.arange(-(-horizon // ahead)) * ahead + 1
        self.middles = np.minimum(starts + ahead // 2, horizon)
        """Middle step of each future segment, (J,)."""
        self.steps = np.minimum(starts[:, None] + np.arange(ahead), horizon)
        """Steps of each future segment, (J, ahead); the last segment may repeat the last step."""

    @classmethod
    def of(cls, horizon: int, seasons: tuple[int, ...], fit_rows: int) -> SegmentReads:
        """Return the segments for the seasons that the fit rows show."""
        season = seasons[-1] if seasons else 0
        rows = min(max(SEASONS * season, LEAST_ROWS), max(fit_rows // FIT_SHARE, 1), MOST_ROWS)
        length = max(rows // SEGMENTS, 1)
        return cls(horizon, rows // length * length, length, min(length, horizon))

    def __call__(self, table: NetworkTable, origins: IntArray, targets: IntArray) -> tuple[Tensor, Tensor, Tensor]:
        """Return past values (b, L), the targets' numbers and the features (b, J, q) of origins and targets (b,)."""
        last, number = origins[:, None], torch.from_numpy(targets)
        past = torch.from_numpy(last + np.arange(1 - self.look_back, 1))
        middle, each = table.rows_at(last + self.middles), table.rows_at(last[..., None] + self.steps)
        known = torch.cat([table.calendar[middle], table.known[each].flatten(2)], dim=-1)
        return table.own[past, number[:, None]], number, known


class SegmentSamples(Samples):
    """Windows of single targets.

    Parameters
    ----------
    paths, held : Paths
        Of the fit rows and of the stopping tail.
    unit : (H, k)
        LINEAR's error at each step.
    plan : Plan
    reads : SegmentReads
    """

    name, least_steps = "segments", SEGMENT_STEPS

    def __init__(self, paths: Paths, held: Paths, unit: Tensor, plan: Plan, reads: SegmentReads) -> None:
        self.paths, self.held, self.unit, self.reads = paths, held, unit, reads
        self.targets, self._point = unit.shape[1], plan.point
        self.count = len(paths) * self.targets
        self.batch = batch_of(self.count, SERIES_OF_WINDOW * plan.batch)
        known = paths.table.calendar.shape[1] + reads.ahead * paths.table.known.shape[1]
        torch.manual_seed(plan.seed)
        self.network = Segments(
            plan, rows=reads.rows, ahead=reads.ahead, count=len(reads.middles), targets=self.targets, known=known
        )

    def loss(self, chosen: IntArray, random: np.random.Generator) -> Tensor:  # noqa: ARG002 - see Samples
        """See `Samples`."""
        return self._loss(self.paths, chosen // self.targets, chosen % self.targets)

    def held_out(self) -> float:
        """See `Samples`."""
        windows = np.arange(len(self.held))
        losses = [float(self._loss(self.held, windows, np.full_like(windows, each))) for each in range(self.targets)]
        return float(np.mean(losses)) if len(self.held) else float("inf")

    def _loss(self, paths: Paths, windows: IntArray, targets: IntArray) -> Tensor:
        table, origins = paths.table, paths.origins[windows]
        rows = origins[:, None] + np.arange(1, paths.horizon + 1)
        at, number = table.rows_at(rows), torch.from_numpy(targets)[:, None]
        compared = torch.from_numpy((rows < paths.stops[windows][:, None]).astype(np.float32))
        actual = table.own[at, number]
        forecast = self.network(*self.reads(table, origins, targets))[:, : paths.horizon]
        weight = table.observed[at, number] * compared
        return loss_of((actual - forecast) / self.unit.T[number[:, 0]], weight, self._point)
