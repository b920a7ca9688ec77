"""The season of a series: the shortest that its calendar suggests and its training rows show."""

from __future__ import annotations

from flts.forecasting.grid import Grid


def season_steps(grid: Grid, train_rows: int) -> int | None:
    """Return the season in rows: the shortest of ``grid.seasons`` that the training rows contain twice, or None."""
    return next((steps for steps in grid.seasons if train_rows >= 2 * steps), None)
