"""The profile of a season: the mean of the fit rows at each place, smoothed over neighbouring places."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from flts.forecasting.linear.table import LinearTable
from flts.forecasting.series import BoolArray, FloatArray, IntArray

SMOOTHED_SHARE = 36
"""A profile is smoothed over at most 1/36 of a season: neighbours up to 1/72 of it to each side."""


def season_profile(table: LinearTable, z: FloatArray, season: int, stop: int) -> tuple[FloatArray, FloatArray]:
    """Return a season's profile and each row's value of it.

    A fit row's own value, and its neighbours that smoothing adds, are left out of its value of the profile; otherwise
    the profile would contain a part of what it predicts. The smoothing is the one of those that the lengths of the
    seasons suggest with the least squared error of these values; none is possible too.

    Parameters
    ----------
    table : LinearTable
    z : (n, m)
        Scaled values.
    season : int
        Position among the table's seasons.
    stop : int
        Only observed cells before this row are used.

    Returns
    -------
    profile : (places, m)
        0 at a place without a value.
    at_rows : (n, m)
    """
    place = table.places[:, season]
    size = max(table.seasons[season], int(place.max()) + 1)
    seen = table.observed[:stop]
    segments = [slice(each.start, min(each.stop, stop)) for each in table.segments if each.start < stop]
    halves = sorted({0} | {length // (2 * SMOOTHED_SHARE) for length in table.seasons[: season + 1]})
    fitted = np.where(seen, z[:stop], 0.0)
    totals = _at_places(fitted, place[:stop], size), _at_places(seen.astype(float), place[:stop], size)
    best, least = None, np.inf
    for half in halves:
        found = _left_out(fitted, seen, place[:stop], totals, half, segments)
        error = float(np.square(np.where(seen, found - fitted, 0.0)).sum())
        if error < least:
            best, least = (half, found), error
    assert best is not None
    half, left_out = best
    smooth, weight = (_around(total, half) for total in totals)
    profile = smooth / np.maximum(weight, 1)
    at_rows = profile[place]
    at_rows[:stop] = left_out
    return profile, at_rows


def _left_out(  # noqa: PLR0917 - the state of one loop
    fitted: FloatArray,
    seen: BoolArray,
    place: IntArray,
    totals: tuple[FloatArray, FloatArray],
    half: int,
    segments: list[slice],
) -> FloatArray:
    """Return each row's value of the profile without the rows that are at most ``half`` away from it."""
    own, own_count = np.empty_like(fitted), np.empty_like(fitted)
    own[:], own_count[:] = fitted, seen
    for rows in segments if half else ():
        own[rows] = _moving(fitted[rows], half)
        own_count[rows] = _moving(seen[rows].astype(float), half)
    # A clock that is put back or forward makes neighbours in time strangers in the season: a count may come out low.
    weight = _around(totals[1], half)[place] - own_count
    left = _around(totals[0], half)[place] - own
    return np.where(weight >= 1, left / np.maximum(weight, 1), 0.0)


def _at_places(values: FloatArray, place: IntArray, size: int) -> FloatArray:
    return np.stack([np.bincount(place, column, minlength=size) for column in values.T], axis=1)


def _around(at_places: FloatArray, half: int) -> FloatArray:
    """Return the sum of the values at most ``half`` places away, the last place next to the first."""
    if not half:
        return at_places
    padded = np.concatenate([at_places[-half:], at_places, at_places[:half]])
    around: FloatArray = sliding_window_view(padded, 2 * half + 1, axis=0).sum(axis=-1)
    return around


def _moving(values: FloatArray, half: int) -> FloatArray:
    padded = np.pad(values, ((half, half), (0, 0)))
    around: FloatArray = sliding_window_view(padded, 2 * half + 1, axis=0).sum(axis=-1)
    return around
