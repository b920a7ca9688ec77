"""Find the seasons of a table: the calendar suggests them and the fit rows confirm them.

A season counts if its profile, the mean at each place of the season, forecasts seasons that it was not made from: the
profile without a season lowers that season's squared error, and Student's t over the seasons shows that it is no luck.
Autocorrelations are not used, because those of a random walk are large at every lag.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flts.forecasting.grid import FixedGrid, Grid
from flts.forecasting.series import FloatArray, IntArray
from flts.forecasting.student_t import upper_tail

LEVEL = 0.01
"""Significance for a table, shared among its targets and candidates."""
STRICTER = 0.1
"""Factor of the significance for few seasons, and again for short ones: their profiles agree more often by chance."""
FEW_SEASONS = 10
SHORT_STEPS = 7
"""Rows; in a shorter season a profile has so few values that both measures have to show it."""
PAIR_LEVEL = 1e-3
"""Significance where there are only two seasons."""
OBSERVED_SHARE = 0.5
"""Least share of the rows of a season that have a value; other seasons are left out."""
LEAST_SHARE = 0.005
"""Least share of the squared change inside seasons that a profile explains. A smooth trend explains less."""
ROUNDING = 1e-12
"""Deviations below this share of the largest value are rounding errors."""
LEAST_SEASONS = 3
"""Seasons from which Student's t over seasons is used."""
MOST_TARGETS = 64
"""Targets that `table_seasons` tests, 0.06 s of CPU on 1,000 rows; 1,000 targets would take 1 s."""
MOST_CELLS = 500_000
"""Cells that `table_seasons` tests, 0.2 s of CPU and 75 MB; older rows are left out."""


@dataclass(frozen=True, slots=True)
class FoundSeasons:
    """The seasons that count, in rows, the shortest first."""

    steps: tuple[int, ...]
    """Of the table: a season counts if it counts for a target."""
    by_target: tuple[tuple[int, ...], ...]
    """Of each target, in the order of the columns."""


def find_seasons(values: FloatArray, times: IntArray, grid: Grid) -> FoundSeasons:
    """Find the seasons among ``grid.seasons`` that fit rows confirm.

    A season is tested on what the profiles of the shorter ones leave. From three seasons on, the squared errors of the
    series less its trend and its mean of each season, or of the differences of the series, have to be significantly
    lower. With two seasons, both the series and its differences have to be alike in both. The significance is divided
    by the number of targets and candidates. In simulations (white noise, random walks, trends with noise and
    autoregressions on seven grids, 1,000 series each) no season was found.

    The cost grows with the number of cells times the number of candidates. Seasons whose rows are mostly missing are
    left out, and rows are placed by their position on the grid, so gaps move no season.

    Parameters
    ----------
    values : (n, m)
        Rows that models may be fitted on; NaN where a value is missing or imputed.
    times : (n,)
        Epoch seconds of the rows, strictly increasing.
    grid : Grid
    """
    n, targets = values.shape
    found: list[list[int]] = [[] for _ in range(targets)]
    candidates = [steps for steps in grid.seasons if n >= 2 * steps]
    if not candidates or targets == 0:
        return FoundSeasons((), tuple(() for _ in found))
    positions = _positions(times, grid)
    rest = np.array(values, dtype=np.float64)
    share = 1.0 / (targets * len(candidates))
    for steps in candidates:
        folded = _fold(rest, positions, steps)
        for target, own in enumerate(found):
            if _counts(folded.values[..., target], folded.changes[..., target], share=share):
                own.append(steps)
        rest -= folded.profile[folded.places]
    counted = sorted({steps for own in found for steps in own})
    return FoundSeasons(tuple(counted), tuple(tuple(own) for own in found))


def table_seasons(values: FloatArray, times: IntArray, grid: Grid) -> tuple[int, ...]:
    """Return the seasons in rows that count for a table, the shortest first, in bounded time.

    Of a table with many targets, evenly spread ones are tested, and of a long one the newest rows. See `find_seasons`
    for the parameters.
    """
    rows = min(len(values), MOST_CELLS)
    targets = values.shape[1]
    tested = min(targets, MOST_TARGETS, max(1, MOST_CELLS // max(rows, 1)))
    spread = np.arange(tested) * targets // max(tested, 1)
    return find_seasons(values[len(values) - rows :, spread], times[len(times) - rows :], grid).steps


@dataclass(frozen=True, slots=True, eq=False)
class _Folded:
    """A table cut into k seasons of s rows, the last of which ends at the last row."""

    values: FloatArray
    """(k, s, m); NaN where there is no row or no value."""
    changes: FloatArray
    """(k, s, m) differences to the row one step before."""
    profile: FloatArray
    """(s, m) mean at each place of the deviations from the trend, 0 on average."""
    places: IntArray
    """(n,) place of each row in its season."""


def _positions(times: IntArray, grid: Grid) -> IntArray:
    """Return positions (n,) that follow the local clock, so that a season of a day keeps its hours in summer."""
    if isinstance(grid, FixedGrid):
        return grid.clock(times) // grid.seconds
    return grid.split(times)[0]


def _fold(values: FloatArray, positions: IntArray, steps: int) -> _Folded:
    ago = positions.max() - positions
    seasons, places = ago // steps, steps - 1 - ago % steps
    # Only seasons with enough rows get a place in memory; a long gap gets none.
    _, index, rows = np.unique(seasons, return_inverse=True, return_counts=True)
    kept = rows >= OBSERVED_SHARE * steps
    from_oldest = np.cumsum(kept[::-1])[::-1] - 1
    inside = kept[index]
    cells = from_oldest[index][inside], places[inside]
    changes = np.full_like(values, np.nan)
    adjacent = np.diff(positions) == 1
    changes[1:][adjacent] = np.diff(values, axis=0)[adjacent]
    shape = (int(kept.sum()), steps, values.shape[1])
    folded, folded_changes = np.full(shape, np.nan), np.full(shape, np.nan)
    folded[cells], folded_changes[cells] = values[inside], changes[inside]
    profile = np.zeros(shape[1:])
    for target in range(shape[2]):
        profile[:, target] = _profile(_deviations(_enough(folded[..., target]), _rounding(folded[..., target])))
    return _Folded(folded, folded_changes, profile, places)


def _counts(values: FloatArray, changes: FloatArray, *, share: float) -> bool:
    """Return whether a season counts for a series (k, s) and its differences; ``share`` is of the significance."""
    exact = _rounding(values)
    measures = [_enough(one) for one in (values, changes)]
    k, steps = min(len(one) for one in measures), values.shape[1]
    if k < LEAST_SEASONS:
        # The oldest season may have values at half of its places but differences at fewer.
        return k > 1 and all(_alike(one[-k:], share * PAIR_LEVEL, exact) for one in measures)
    chances = [_chance(one, exact) for one in measures]
    few, short = k < FEW_SEASONS, steps < SHORT_STEPS
    level = share * LEVEL * (STRICTER if few else 1.0) * (STRICTER if short else 1.0)
    alone = 0.0 if short else level * (STRICTER if few else 1.0)
    return max(chances) < level or len(chances) * min(chances) < alone


def _chance(seasons: FloatArray, exact: float) -> float:
    """Return the p-value of the profile's gain in k seasons, (k, s).

    Every season is first divided by its root mean square, so that seasons that grow count alike and one burst does not
    decide.
    """
    deviations = _deviations(seasons, exact)
    size = np.sqrt(np.nanmean(np.square(deviations), axis=1, keepdims=True))
    gains = _gains(deviations / np.where(size > 0, size, 1.0))
    mean, k = float(gains.mean()), len(gains)
    if mean <= 0 or _is_smooth(seasons, deviations):
        return 1.0
    error = float(gains.std(ddof=1)) / math.sqrt(k)
    return upper_tail(mean / error, k - 1) if error > 0 else 0.0


def _alike(seasons: FloatArray, level: float, exact: float) -> bool:
    """Test whether two seasons (2, s) correlate and each lowers the squared error of the other."""
    deviations = _deviations(seasons, exact)
    common = np.isfinite(deviations).all(axis=0)
    first, second = deviations[:, common]
    degrees = int(common.sum()) - 2
    if degrees < 1 or (_gains(deviations) <= 0).any() or _is_smooth(seasons, deviations):
        return False
    correlation = float(np.corrcoef(first, second)[0, 1])
    unexplained = 1 - correlation**2
    return unexplained <= 0 or upper_tail(correlation * math.sqrt(degrees / unexplained), degrees) < level


def _enough(seasons: FloatArray) -> FloatArray:
    """Return the seasons (k, s) with values at `OBSERVED_SHARE` of their places."""
    kept: FloatArray = seasons[np.isfinite(seasons).mean(axis=1) >= OBSERVED_SHARE]
    return kept


def _rounding(values: FloatArray) -> float:
    """Return the size up to which deviations of values (k, s) are rounding errors."""
    return ROUNDING * float(np.max(np.abs(values), initial=0.0, where=np.isfinite(values)))


def _deviations(seasons: FloatArray, exact: float) -> FloatArray:
    """Return seasons (k, s) less their trend and their mean; deviations up to ``exact`` are 0.

    The trend of a season is the parabola through the means of the season and its neighbours (with two seasons the
    line), so a straight or a quadratic trend leaves nothing. It takes no slope from inside a season, where a season
    of the shape of a saw tooth has one.
    """
    k, steps = seasons.shape
    if k == 0:
        return seasons
    means = np.nanmean(seasons, axis=1)
    inside = (np.arange(steps) + 0.5) / steps - 0.5
    centre = np.clip(np.arange(k), 1, k - 2) if k >= LEAST_SEASONS else np.zeros(k, dtype=np.int64)
    slope, bend = np.full(k, means[-1] - means[0]), np.zeros(k)
    if k >= LEAST_SEASONS:
        before, own, after = means[centre - 1], means[centre], means[centre + 1]
        slope, bend = (after - before) / 2, (after + before - 2 * own) / 2
    at = (np.arange(k) - centre)[:, None] + inside
    deviations: FloatArray = seasons - slope[:, None] * at - bend[:, None] * at**2
    deviations -= np.nanmean(deviations, axis=1, keepdims=True)
    deviations[np.abs(deviations) <= exact] = 0.0
    return deviations


def _profile(deviations: FloatArray) -> FloatArray:
    """Return the mean of each place, (s,), less the mean of all; 0 at a place without values."""
    known = np.isfinite(deviations)
    profile: FloatArray = np.where(known, deviations, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    profile -= profile.mean()
    return profile


def _gains(deviations: FloatArray) -> FloatArray:
    """Return by how much the profile of the other seasons lowers the mean squared deviation of each season, (k,)."""
    known = np.isfinite(deviations)
    filled = np.where(known, deviations, 0.0)
    others = known.sum(axis=0) - known
    profile = (filled.sum(axis=0) - filled) / np.maximum(others, 1)
    gains: FloatArray = (np.where(known, (2 * filled - profile) * profile, 0.0)).sum(axis=1) / known.sum(axis=1)
    return gains


def _is_smooth(seasons: FloatArray, deviations: FloatArray) -> bool:
    """Return whether the profile explains too little of the changes inside the seasons.

    A trend that is no parabola leaves a small remainder of equal shape in all seasons: exponential growth does. A
    constant slope is not counted as a change, because it leaves nothing.
    """
    k, steps = seasons.shape
    own = seasons - np.nanmean(seasons, axis=1, keepdims=True)
    means = np.nanmean(seasons, axis=1)
    own = own - (means[-1] - means[0]) / max(k - 1, 1) * ((np.arange(steps) + 0.5) / steps - 0.5)
    return bool(np.square(_profile(deviations)).mean() < LEAST_SHARE * np.nanmean(np.square(own)))
