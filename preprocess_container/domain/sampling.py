"""Sampling of rows, for the whole pipeline. A sample is one block of consecutive rows, because windows need them."""

from __future__ import annotations

from typing import Literal

import numpy as np

from flts.contracts.events import Sampling
from flts.forecasting.series import Series


def sample_rows(
    series: Series,
    *,
    rows: int | None,
    strategy: Literal["head", "random"],
    seed: int,
    stream: int,
) -> tuple[Series, Sampling | None]:
    """Return ``rows`` consecutive rows and a report, or all rows and None.

    Parameters
    ----------
    rows
        Rows to keep; None, or at least as many as there are, keeps all.
    strategy
        ``head`` keeps the first rows, ``random`` a block whose start is drawn.
    stream
        Separates draws with the same seed: 0 for training, 1 for test rows.
    """
    if rows is None or rows >= len(series):
        return series, None
    start = 0
    if strategy == "random":
        start = int(np.random.default_rng([abs(seed), int(seed < 0), stream]).integers(len(series) - rows + 1))
    sampling = Sampling(strategy=strategy, original_rows=len(series), sampled_rows=rows, seed=seed)
    return series.rows(start, start + rows), sampling
