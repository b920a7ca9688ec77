"""A fitted direct network, and its forecasts without an ONNX file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flts.forecasting.linear.calendar import Calendar
from flts.forecasting.linear.known import Effects
from flts.forecasting.linear.model import LinearModel
from flts.forecasting.series import IntArray
from flts.forecasting.windows import Float32Array
from train_container.domain.direct.blend import Blend
from train_container.domain.direct.correction import Correction, CorrectionReads
from train_container.domain.direct.segments import SegmentReads, Segments
from train_container.domain.direct.table import NetworkTable, Paths, Units

BATCH_ROWS = 64
"""Origins that a network forecasts at once."""


@dataclass(frozen=True, slots=True, eq=False)
class DirectNetwork:
    """LINEAR, its correction and the segments with their weights.

    Parameters
    ----------
    linear : LinearModel
    effects : Effects, optional
        Effects of the inputs known ahead, which are taken out of the rows before all else.
    calendar : Calendar
    places : int
        Seasons of the input ``places``.
    units : Units
        Of the rows that the networks were fitted on.
    unit : (H, k)
        LINEAR's error at each step on these rows, scaled.
    blend : Blend
    correction : Correction, optional
        None if no block gives it a weight.
    correction_reads : CorrectionReads
    segments : Segments, optional
        None if no block gives them a weight.
    segment_reads : SegmentReads
    """

    linear: LinearModel
    effects: Effects | None
    calendar: Calendar
    places: int
    units: Units
    unit: Float32Array
    blend: Blend
    correction: Correction | None
    correction_reads: CorrectionReads
    segments: Segments | None
    segment_reads: SegmentReads

    @property
    def rows_required(self) -> int:
        """Rows L of the past that a forecast needs."""
        rows = [self.linear.rows_required]
        if self.correction is not None:
            rows.append(self.correction_reads.rows)
        if self.segments is not None:
            rows.append(self.segment_reads.look_back)
        return max(rows)

    def forecasts(self, table: NetworkTable, origins: IntArray) -> Tensor:
        """Return forecasts without the effects of the inputs known ahead, in the table's own units, (b, H, k)."""
        paths = Paths.of(table, self.linear, origins, len(table.rows))
        correction = segments = None
        if self.correction is not None:
            correction = corrected(self.correction, self.correction_reads, paths, self.unit)
        if self.segments is not None:
            segments = segmented(self.segments, self.segment_reads, paths)
        scaled = self.blend(paths.linear, correction, segments)
        return scaled * torch.from_numpy(self.units.target_scale) + torch.from_numpy(self.units.target_mean)


@torch.inference_mode()
def corrected(network: Correction, reads: CorrectionReads, paths: Paths, unit: Float32Array) -> Tensor:
    """Return the corrected forecasts of LINEAR, scaled, (n, H, k)."""
    parts = [paths.linear]
    for at in range(0, len(paths), BATCH_ROWS):
        some = paths.some(slice(at, at + BATCH_ROWS))
        known = reads(some.table, some.origins, some.all_steps(), some.linear)
        parts.append(some.linear + torch.from_numpy(unit) * network(*known))
    return torch.cat(parts[1:]) if len(paths) else parts[0]


@torch.inference_mode()
def segmented(network: Segments, reads: SegmentReads, paths: Paths) -> Tensor:
    """Return the forecasts of the segments, scaled, (n, H, k)."""
    table, targets = paths.table, paths.linear.shape[2]
    found = torch.empty_like(paths.linear)
    for at in range(0, len(paths), BATCH_ROWS):
        origins = paths.origins[at : at + BATCH_ROWS]
        for target in range(targets):
            forecast = network(*reads(table, origins, np.full(len(origins), target)))
            found[at : at + BATCH_ROWS, :, target] = forecast[:, : paths.horizon]
    return found
