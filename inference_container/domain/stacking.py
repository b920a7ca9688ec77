"""Build the model's inputs for several requests in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flts.errors import RejectedError
from flts.forecasting.recipe import scaled_rows
from flts.forecasting.rolling import Inputs, PassInputs
from flts.forecasting.series import FloatArray, Series
from inference_container.domain.champion import Champion


@dataclass(frozen=True, slots=True)
class Stack:
    """The model's inputs for the requests whose rows can be used."""

    inputs: Inputs
    """Each array has the first dimension b; empty if no request is usable."""
    usable: list[int]
    """(b,) index of the request of each row of the inputs."""
    imputed_cells: dict[int, int]
    """Number of cells filled in a request's window, by the request's index; only if not 0."""
    refused: dict[int, RejectedError]
    """The error of each request whose rows cannot be used, by the request's index."""


def stack_inputs(
    champion: Champion, source: PassInputs, requests: Sequence[Series], futures: Sequence[FloatArray | None]
) -> Stack:
    """Scale the last rows of all requests at once and make the model's inputs from them.

    Without nulls a row's scaled values depend on that row alone, so all requests are scaled as one table. A request
    with nulls in its window is scaled separately, because its cells are filled from its own earlier rows.

    Parameters
    ----------
    futures : sequence of (h, q) or None
        Values that are known ahead, of each request; each is as long as its forecast.
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
    if not usable:  # nothing to make inputs of
        return Stack({}, usable, imputed_cells, refused)
    ahead = _ahead(champion, source, [futures[at] for at in usable])
    state = source.start(scaled[usable] if refused else scaled, times[usable, -1], ahead)
    return Stack(state.inputs(), usable, imputed_cells, refused)


def _ahead(champion: Champion, source: PassInputs, futures: Sequence[FloatArray | None]) -> FloatArray | None:
    """Return the scaled values that are known ahead, (b, h, q), the last ones repeated in shorter forecasts."""
    if not len(source.known_columns):
        return None
    given = [future for future in futures if future is not None]
    longest = max(map(len, given))
    padded = [np.concatenate([each, np.repeat(each[-1:], longest - len(each), axis=0)]) for each in given]
    return champion.forecaster.scaled_future(np.array(padded))


def _filled(champion: Champion, series: Series) -> tuple[FloatArray, int]:
    """Return a scaled window whose nulls were filled from the rows before them, and the number of filled cells."""
    rows, recipe = champion.needs.rows_required, champion.bundle.recipe
    scaled, imputed = scaled_rows(recipe, series)
    if recipe.drops_rows:
        column = recipe.columns[int(np.argwhere(imputed[-rows:])[0][1])]
        msg = f"{column}: has nulls in the last {rows} rows, and this model's recipe fills none"
        raise RejectedError(msg, code="missing_values", field=column)
    return scaled[-rows:], int(imputed[-rows:].sum())
