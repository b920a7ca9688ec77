"""The sizes of a network's input and output."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """A window (L, f) in, forecasts (H, m) out."""

    window_steps: int
    features: int
    horizon_steps: int
    targets: int

    @property
    def outputs(self) -> int:
        """Numbers per forecast, H x m."""
        return self.horizon_steps * self.targets
