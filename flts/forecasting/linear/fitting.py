"""The sums of LINEAR's regressions on the rows before a stop: which rows, in which groups of steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from flts.forecasting.linear.choice import OTHER_ROWS, OWN_COLUMNS, LinearChoice
from flts.forecasting.linear.kinds import Base, Kind, Scaled
from flts.forecasting.linear.moments import Moments, RowSums, lagged_moments, rest_moments, written_inputs
from flts.forecasting.linear.ridge import Ridges
from flts.forecasting.linear.sampled import sampled_moments
from flts.forecasting.linear.table import LinearTable, Origins
from flts.forecasting.series import BoolArray, FloatArray, IntArray

ORIGINS_PER_STEP = 4
"""Rows to fit on per step; steps beyond those that have so many use the weights of the last step that has."""
LEAST_ORIGINS = 8
"""Rows that a regression is fitted on at least."""
MOST_CELLS = 4_000_000
"""Numbers in the series whose transforms are kept, 8 bytes each; older rows than these are not fitted."""
CORRECTED_ROWS = 4_096
"""Rows in which two groups differ, up to which their sums differ by products that are written out."""
MOST_GROUPS = 12
"""Groups of steps; rows with imputed cells cost the wider groups more rows, so groups are halved up to this number."""
STRICT_SHARE = 0.5
"""Share of the rows that must be free of imputed cells; else imputed cells are used like observed ones."""
ROW_SUMS_KEPT = 6
"""Sets of rows whose transforms are kept; a target has one for each reach of its kinds, with and without columns."""


def unreported() -> None:
    """Report nothing: the default where a fit reports that it is alive."""


class Fitting:
    """The regressions on the rows before ``stop``; ``alive`` is called for each target and kind."""

    def __init__(
        self, table: LinearTable, choice: LinearChoice, stop: int, alive: Callable[[], None] = unreported
    ) -> None:
        self.table, self.stop, self.alive = table, stop, alive
        self.window, self.horizon, self.targets = choice.window, choice.horizon, choice.targets
        self.other_rows = min(OTHER_ROWS, choice.window)
        self.scaled = Scaled(table, stop)
        self.origins = Origins.of(table)
        self.everything: BoolArray = np.all(table.observed, axis=1)
        series = 1 + table.clock.shape[1] + table.columns
        self.first = max(0, stop - MOST_CELLS // series) if table.columns <= OWN_COLUMNS else 0
        self._steps: dict[Base, int] = {}
        self._groups: dict[Base, list[tuple[int, int]]] = {}
        self._sums: dict[bytes, RowSums] = {}

    def back(self, base: Base) -> int:
        """Return the rows that the inputs and the seasonal values of a base reach back."""
        return self.window + (self.table.seasons[base.season] if base.value == "lag" else 0)

    def steps_of(self, kind: Kind) -> int:
        """Return the steps that have enough rows to fit on, at most H; 0 if none has."""
        base = kind.base
        if base not in self._steps:
            possible = self.origins.mask(None, back=self.back(base), after=0, ahead=1, stop=self.stop)
            rows = np.flatnonzero(possible[self.first :]) + self.first
            room = np.minimum(self.origins.stops[rows], self.stop) - rows - 1
            counts = np.cumsum(np.bincount(np.minimum(room, self.horizon), minlength=self.horizon + 1)[::-1])[::-1]
            steps = np.arange(1, self.horizon + 1)
            enough = (counts[1:] >= ORIGINS_PER_STEP * steps) & (counts[1:] >= LEAST_ORIGINS)
            self._steps[base] = int(steps[enough].max(initial=0))
        return self._steps[base]

    def groups(self, kind: Kind) -> list[tuple[int, int]]:
        """Return the groups of steps (after, ahead) that are fitted on the same rows."""
        base = kind.base
        if base not in self._groups:
            groups = [(0, self.steps_of(kind))]
            while len(groups) < MOST_GROUPS:
                torn = [at for at, group in enumerate(groups) if group[1] > group[0] + 1 and self._torn(base, group)]
                if not torn:
                    break
                after, ahead = groups[torn[0]]
                middle = (after + ahead) // 2
                groups[torn[0] : torn[0] + 1] = [(after, middle), (middle, ahead)]
            self._groups[base] = groups
        return self._groups[base]

    def moments(self, kind: Kind, target: int) -> list[Moments]:
        """Return the sums of a target, group by group."""
        self.alive()
        groups = self.groups(kind)
        chosen = [self.rows(kind, target, *group) for group in groups]
        found: dict[int, Moments] = {}
        for strict in (True, False):
            alike = [at for at, (_, each) in enumerate(chosen) if each == strict]
            if not alike:
                continue
            series = self._series(kind, target, strict=strict)
            base, _ = chosen[alike[-1]]
            after, ahead = groups[alike[0]][0], groups[alike[-1]][1]
            together = series.moments(self._row_sums(base, strict=strict), after, ahead)
            for at in alike:
                part = together.steps(groups[at][0] - after, groups[at][1] - after)
                found[at] = self._corrected(series, part, (base, chosen[at][0]), groups[at], strict)
        return [found[at] for at in range(len(groups))]

    def _corrected(
        self, series: Series, moments: Moments, rows: tuple[BoolArray, BoolArray], group: tuple[int, int], strict: bool
    ) -> Moments:
        """Turn a group's sums over the first of two sets of rows, mostly the same, into those over the second."""
        have, want = rows
        added, removed = np.flatnonzero(want & ~have), np.flatnonzero(have & ~want)
        if len(added) + len(removed) > CORRECTED_ROWS:
            return series.moments(self._row_sums(want, strict=strict), *group)
        steps = np.arange(group[0] + 1, group[1] + 1)
        for part, sign in ((added, 1), (removed, -1)):
            if len(part):
                moments = moments.plus(series.inputs(part), series.targets(part, steps), sign)
        return moments

    def shared_moments(self, kind: Kind) -> list[Moments]:
        """Return the sums over all targets, from a sample of their rows, group by group."""
        self.alive()
        return [
            sampled_moments(
                self.scaled,
                kind,
                [self.rows(kind, int(target), after, ahead)[0] for target in self.targets],
                self.targets,
                window=self.window,
                steps=np.arange(after + 1, ahead + 1),
            )
            for after, ahead in self.groups(kind)
        ]

    def ridges(self, groups: list[Moments]) -> list[Ridges]:
        """Return the regressions of the groups of steps."""
        return [Ridges(moments, self.window) for moments in groups]

    def rows(self, kind: Kind, target: int, after: int, ahead: int) -> tuple[BoolArray, bool]:
        """Return the rows that a group of steps is fitted on, and whether they are free of imputed cells."""
        back = self.back(kind.base)
        loose = self.origins.mask(None, back=back, after=after, ahead=ahead, stop=self.stop)
        observed = self.table.observed[:, target]
        strict = self.origins.mask(observed, back=back, after=after, ahead=ahead, stop=self.stop)
        if kind.others:
            strict &= self.origins.mask(self.everything, back=self.other_rows, after=0, ahead=0, stop=self.stop)
        loose[: self.first], strict[: self.first] = False, False
        least = max(LEAST_ORIGINS, STRICT_SHARE * loose.sum())
        return (strict, True) if strict.sum() >= least else (loose, False)

    def _torn(self, base: Base, group: tuple[int, int]) -> bool:
        """Return whether imputed cells leave too few rows for a group, but would not for single steps."""

        def strict(after: int, ahead: int) -> bool:
            kind = Kind(base)
            return all(self.rows(kind, int(target), after, ahead)[1] for target in self.targets)

        return not strict(*group) and strict(group[0], group[0] + 1)

    def _series(self, kind: Kind, target: int, *, strict: bool) -> Series:
        scaled, base = self.scaled, kind.base
        rest, z, columns = scaled.rest(base, target), scaled.z[:, target], scaled.z
        season = self.table.seasons[base.season] if base.value == "lag" else 0
        if strict:  # no sum contains these cells; they are 0 so that not even a rounding error depends on them
            observed = self.table.observed[:, target]
            before = np.concatenate([np.ones(season, dtype=bool), observed[: len(observed) - season]])
            rest, z = np.where(observed & before, rest, 0.0), np.where(observed, z, 0.0)
            columns = np.where(self.table.observed, columns, 0.0)
        return Series(rest, z, columns, self.table.clock, season, self.window, self.other_rows if kind.others else 0)

    def _row_sums(self, rows: BoolArray, *, strict: bool) -> RowSums:
        key = rows.tobytes() + bytes([strict])
        sums = self._sums.pop(key, None)
        if sums is None:
            columns = np.where(self.table.observed, self.scaled.z, 0.0) if strict else self.scaled.z
            reach = self.horizon + max(self.window, *self.table.seasons, 1) + self.window
            sums = RowSums(rows, self.table.clock, columns, reach=reach, other_rows=self.other_rows)
            if len(self._sums) == ROW_SUMS_KEPT:
                del self._sums[next(iter(self._sums))]
        self._sums[key] = sums  # the last used one is last
        return sums


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """What the sums of a kind and a target are taken over; the names are those of `lagged_moments`."""

    rest: FloatArray
    z: FloatArray
    columns: FloatArray
    clock: FloatArray
    season: int
    window: int
    other_rows: int

    def moments(self, sums: RowSums, after: int, ahead: int) -> Moments:
        """Return the sums over the rows of ``sums``."""
        if not self.season:
            return rest_moments(
                sums, self.rest, window=self.window, after=after, ahead=ahead, others=bool(self.other_rows)
            )
        return lagged_moments(sums, self.z, self.rest, season=self.season, window=self.window, after=after, ahead=ahead)

    def inputs(self, rows: IntArray) -> FloatArray:
        """Return the inputs of rows (r,), (r, p)."""
        return written_inputs(self.rest, self.clock, self.columns, rows, window=self.window, other_rows=self.other_rows)

    def targets(self, rows: IntArray, steps: IntArray) -> FloatArray:
        """Return the targets of rows (r,), (r, steps)."""
        ahead = rows[:, None] + steps
        if not self.season:
            targets: FloatArray = self.rest[ahead]
            return targets
        differences: FloatArray = self.z[ahead] - self.z[ahead - self.season * -(-steps // self.season)]
        return differences
