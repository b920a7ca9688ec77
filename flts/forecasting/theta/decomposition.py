"""Classical decomposition: the profile of a season."""

from __future__ import annotations

import numpy as np

from flts.forecasting.series import FloatArray, IntArray
from flts.forecasting.theta.model import Kind


def season_profile(values: FloatArray, segments: list[slice], places: IntArray, season: int, kind: Kind) -> FloatArray:
    """Return the mean at each place of the values less, or divided by, their centred moving average, (season,).

    The profile adds nothing on average: its mean is 0, or 1 for factors. A place without a value has this mean. The
    moving average of an even season has half the weight at both ends (Hyndman and Athanasopoulos, Forecasting:
    Principles and Practice, section 3.4).

    Parameters
    ----------
    values : (n,)
        Positive for ``multiplicative``.
    segments : list of slices
        Rows without a gap.
    places : (n,)
        From 0 to ``season - 1``.
    season : int
        Rows.
    kind : {"additive", "multiplicative"}
    """
    half = season // 2
    weights = np.ones(season + 1 - season % 2)
    if season % 2 == 0:
        weights[[0, -1]] = 0.5
    sums, counts = np.zeros((2, season))
    for segment in segments:
        own = values[segment]
        if len(own) < len(weights):
            continue
        average = np.convolve(own, weights / season, mode="valid")
        middle = slice(segment.start + half, segment.start + half + len(average))
        rest = values[middle] / average if kind == "multiplicative" else values[middle] - average
        sums += np.bincount(places[middle], rest, season)
        counts += np.bincount(places[middle], minlength=season)
    neutral = 1.0 if kind == "multiplicative" else 0.0
    profile: FloatArray = np.where(counts > 0, sums / np.maximum(counts, 1), neutral)
    mean = float(profile.mean())
    return profile / mean if kind == "multiplicative" else profile - mean
