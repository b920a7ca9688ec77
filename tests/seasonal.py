"""A data set on which the closed form is the best model; the trainer is fast."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def seasonal_csv(path: Path) -> Path:
    """Write a clean daily season with a little noise; the closed form forecasts it better than persistence."""
    rng = np.random.default_rng(7)
    times = np.datetime64("2024-01-01T00:00:00") + np.arange(1440) * np.timedelta64(30, "m")
    phase = 2 * np.pi * (np.arange(1440) % 48) / 48
    load = 100 + 40 * np.sin(phase) + rng.normal(0, 4, 1440)
    heat = 20 + 8 * np.cos(phase) + rng.normal(0, 1, 1440)
    lines = ["time,load,heat", *(f"{t},{a:.3f},{b:.3f}" for t, a, b in zip(times, load, heat, strict=True))]
    path.write_text("\n".join(lines) + "\n")
    return path
