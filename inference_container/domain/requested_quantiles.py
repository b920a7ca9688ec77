"""The quantiles that a request asks for: their check, their names in the answer, and their values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from flts.errors import RejectedError
from flts.forecasting.intervals import SAME_LEVEL
from flts.forecasting.quantiles import quantiles
from inference_container.domain.batching import Answer
from inference_container.domain.champion import Champion

MOST_LEVELS = 20
MIDDLE = 0.5


def check_levels(levels: Sequence[float], champion: Champion) -> None:
    """Refuse quantiles that a champion does not have.

    A champion without intervals accepts every probability, because its quantiles are null as its bounds are.

    Raises
    ------
    RejectedError
        ``bad_quantiles`` with the field ``quantiles``: too many, twice the same, not between 0 and 1, outside of the
        champion's probabilities, or a name in the answer that a column has.
    """
    if len(levels) > MOST_LEVELS:
        _refuse(f"at most {MOST_LEVELS} probabilities; got {len(levels)}")
    for at, level in enumerate(levels):
        if not 0 < level < 1:
            _refuse(f"{level:g} is not between 0 and 1")
        if level in levels[:at]:
            _refuse(f"{level!r} is given twice")
    intervals = champion.forecaster.intervals
    if intervals is not None and intervals.steps:
        lowest, highest = intervals.probabilities[0], intervals.probabilities[-1]
        for level in levels:
            if not lowest - SAME_LEVEL <= level <= highest + SAME_LEVEL:
                _refuse(f"{level!r} is outside of {lowest:g} to {highest:g}, the range of this champion's quantiles")
    keys = [key for name in champion.targets for key in quantile_keys(name, levels)]
    taken = {*champion.answer_keys, *champion.bundle.recipe.columns}.intersection(keys)
    if taken:
        _refuse(f"{min(taken)} is the name of a column, and would be that of a quantile; ask for another probability")


def quantile_keys(target: str, levels: Sequence[float]) -> list[str]:
    """Return the names of a target's quantiles in an answer: ``<target>_q0.1``."""
    return [f"{target}_q{level!r}" for level in levels]


def quantile_values(answer: Answer, levels: Sequence[float]) -> NDArray[np.float64]:
    """Return the quantiles (h, M, q) of a forecast in raw units, within the limits; NaN without intervals.

    They are made around the forecast, as the bounds are. The quantiles of a held target are its last value at 0.5, and
    its bounds below and above.
    """
    champion = answer.champion
    forecaster = champion.forecaster
    offsets = np.zeros((*answer.mean.shape, len(levels)))
    if forecaster.varying:
        intervals = answer.widened or champion.intervals
        found = None if intervals is None else quantiles(intervals, len(answer.mean), levels)
        offsets[:, forecaster.varying] = np.nan if found is None else found
    values = answer.mean[:, :, None] + offsets
    for held in answer.held:
        ends = sorted((held.constant, held.last))
        values[:, held.position] = [
            held.last if level == MIDDLE else ends[0] if level < MIDDLE else ends[1] for level in levels
        ]
    return champion.limited(values)


def _refuse(message: str) -> NoReturn:
    msg = f"quantiles: {message}"
    raise RejectedError(msg, code="bad_quantiles", field="quantiles")
