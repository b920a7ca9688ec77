"""Build the windows of several requests in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flts.errors import RejectedError
from flts.forecasting.recipe import scaled_rows
from flts.forecasting.rolling import RollState
from flts.forecasting.series import FloatArray, Series
from inference_container.domain.champion import Champion


@dataclass(frozen=True, slots=True)
class Stack:
    """Windows of the requests whose rows can be used."""

    windows: NDArray[np.float32]
    """(b, L, f)"""
    usable: list[int]
    """(b,) index of each window's request."""
    imputed_cells: dict[int, int]
    """Number of cells filled in a request's window, by the request's index; only if not 0."""
    refused: dict[int, RejectedError]
    """The error of each request whose rows cannot be used, by the request's index."""


def stack_windows(champion: Champion, requests: Sequence[Series]) -> Stack:
    """Scale the last rows of all requests at once and cut their windows.

    Without nulls a row's scaled values depend on that row alone, so all requests are scaled as one table. A request
    with nulls in its window is scaled separately, because its cells are filled from its own earlier rows.
    """
    recipe, rows = champion.bundle.recipe, champion.needs.rows_required
    values = np.array([series.values[-rows:] for series in requests])
    times = np.array([series.times[-rows:] for series in requests])
    flat = Series(times.ravel(), recipe.columns, values.reshape(-1, len(recipe.columns)), recipe.grid)
    scaled = scaled_rows(recipe, flat)[0].reshape(values.shape)
    imputed_cells: dict[int, int] = {}
    refused: dict[int, RejectedError] = {}
    for at in np.flatnonzero(np.isnan(values).any(axis=(1, 2))).tolist():
        try:
            scaled[at], imputed_cells[at] = _filled(champion, requests[at])
        except RejectedError as error:
            refused[at] = error
    usable = [at for at in range(len(requests)) if at not in refused]
    state = RollState.start(
        recipe,
        scaled=scaled[usable] if refused else scaled,
        last_times=times[usable, -1],
        input_seq_len=champion.bundle.input_seq_len,
    )
    return Stack(state.windows(), usable, imputed_cells, refused)


def _filled(champion: Champion, series: Series) -> tuple[FloatArray, int]:
    """Return a scaled window whose nulls were filled from the rows before them, and the number of filled cells."""
    rows, recipe = champion.needs.rows_required, champion.bundle.recipe
    scaled, imputed = scaled_rows(recipe, series)
    if recipe.drops_rows:
        column = recipe.columns[int(np.argwhere(imputed[-rows:])[0][1])]
        msg = f"{column}: has nulls in the last {rows} rows, and this model's recipe fills none"
        raise RejectedError(msg, code="missing_values", field=column)
    return scaled[-rows:], int(imputed[-rows:].sum())
