"""How evenly times follow each other: evidence for one of two readings of a file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flts.times.fields import DAY, civil

IntArray = NDArray[np.int64]

CLEARLY_REGULAR = 0.9
CLEARLY_IRREGULAR = 0.5
FEWEST_ROWS = 4
"""Rows. Three times have two differences, which are often equal by chance."""


def regularity(micros: IntArray) -> float:
    """Return the share of steps that have the most common length, times the share of the whole time that they cover.

    It is 1 for times without a gap, whose steps are equal or whole months, in ascending or descending order. One step
    against the order halves the value. A reading that exchanges day and month has long gaps, and its value is small.
    """
    if len(micros) < FEWEST_ROWS:
        return 0.0
    value = _evenness(np.diff(micros))
    _, _, day = civil(micros)
    if (micros % DAY == micros[0] % DAY).all() and ((day == day[0]).all() or _are_last_days(micros)):
        year, month, _ = civil(micros)
        value = max(value, _evenness(np.diff(year * 12 + month)))
    return value


def decides(values: list[float]) -> int | None:
    """Return the position of the only regular reading, or None if there is none or another may be regular too."""
    best = int(np.argmax(values))
    others = [value for at, value in enumerate(values) if at != best]
    return best if values[best] >= CLEARLY_REGULAR and max(others) < CLEARLY_IRREGULAR else None


def _evenness(steps: IntArray) -> float:
    if (steps < 0).sum() > (steps > 0).sum():
        steps = -steps
    forward = steps[steps > 0]
    if len(forward) == 0:
        return 0.0
    lengths, counts = np.unique(forward, return_counts=True)
    usual, count = int(lengths[counts.argmax()]), int(counts.max())
    covered = min(1.0, count * usual / float(forward.sum()))
    against = int((steps < 0).sum())
    return count / len(steps) * covered / (1 + against)


def _are_last_days(micros: IntArray) -> bool:
    _, _, tomorrow = civil(micros + DAY)
    return bool((tomorrow == 1).all())
