"""Join the regressions of all kinds to one model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from flts.forecasting.linear.choice import OWN_COLUMNS, LinearChoice, step_buckets
from flts.forecasting.linear.fitting import Fitting
from flts.forecasting.linear.kinds import Base, Kind
from flts.forecasting.linear.model import LinearModel, Part
from flts.forecasting.linear.moments import Moments, added
from flts.forecasting.linear.ridge import Ridges
from flts.forecasting.series import FloatArray
from flts.forecasting.windows import Float32Array


class Assembly:
    """Joins the regressions of all kinds to one model."""

    def __init__(self, fitting: Fitting, choice: LinearChoice) -> None:
        self.fitting, self.choice = fitting, choice
        self.own = fitting.table.columns <= OWN_COLUMNS
        self.buckets = step_buckets(choice.horizon, choice.sharing)
        self.in_bucket = np.bincount(self.buckets)
        self.used = [at for at in range(len(choice.kinds)) if choice.mix[:, at].any()]
        self.mix = np.repeat(choice.mix, np.diff(choice.edges), axis=2)  # (k, K, H)

    def model(self) -> LinearModel:
        """Return the model."""
        choice, fitting = self.choice, self.fitting
        table, scaled = fitting.table, fitting.scaled
        bases = list(dict.fromkeys(choice.kinds[at].base for at in self.used))
        k, window, calendar = len(choice.targets), choice.window, table.clock.shape[1]
        buckets = len(self.in_bucket)
        single = np.float32
        weights = {base: np.zeros((k if self.own else 1, window, buckets), single) for base in bases}
        share = {base: np.zeros((k, choice.horizon), single) for base in bases}
        bias = np.zeros((k, choice.horizon), single)
        clock = np.zeros((k, calendar, buckets), single) if self.own and calendar else None
        others = None
        if any(choice.kinds[at].others for at in self.used):
            others = np.zeros((k, fitting.other_rows * table.columns, buckets), single)
        shared: dict[Base, tuple[Float32Array, Float32Array]] = {}
        for at, number, solved, intercept in self._solved():
            kind = choice.kinds[at]
            mix = self.mix[number, at]
            share[kind.base][number] += mix.astype(single)
            if not self.own:
                shared[kind.base] = (self._bucketed(solved).astype(single), intercept.astype(single))
                continue
            bucketed = self._bucketed(solved * mix)
            weights[kind.base][number] += bucketed[:window]
            bias[number] += (mix * intercept).astype(single)
            if clock is not None:
                clock[number] += bucketed[window : window + calendar]
            if others is not None and kind.others:
                others[number] += bucketed[window + calendar :]
        parts = []
        for base in bases:
            profile = None
            if base.value == "profile":
                profile = scaled.profile(base.season)[0][:, choice.targets].astype(single)
            season = 0 if base.value == "none" else table.seasons[base.season]
            part = Part(base, season, profile, share[base], weights[base])
            if not self.own:
                of_all, intercepts = shared[base]
                of_clock = of_all[window:] if calendar else None
                part = replace(part, weights=of_all[None, :window], clock_weights=of_clock, bias=intercepts)
            parts.append(part)
        return LinearModel(
            scaled.mean.astype(single),
            scaled.scale.astype(single),
            choice.targets,
            window,
            choice.horizon,
            len(table.seasons),
            calendar,
            tuple(parts),
            self.buckets,
            clock,
            others,
            bias,
        )

    def _solved(self) -> Iterator[tuple[int, int, FloatArray, FloatArray]]:
        """Yield kind, target, weights at raw lags (p, H) and intercepts (H,) of everything that is used."""
        choice, fitting = self.choice, self.fitting
        together: dict[Base, list[Moments]] = {}
        if self.own:
            yield from self._own(together)
        for at in self.used:
            kind = choice.kinds[at]
            if not kind.shared:
                continue
            ridges = fitting.ridges(together[kind.base] if self.own else fitting.shared_moments(kind))
            solved = None
            for number in np.flatnonzero(choice.mix[:, at].any(axis=1)):
                if solved is None or self.own:  # many series have the same options too
                    solved = self._chosen(ridges, choice.options[number, at])
                yield at, int(number), *solved

    def _own(self, together: dict[Base, list[Moments]]) -> Iterator[tuple[int, int, FloatArray, FloatArray]]:
        """Yield the same of each target's own weights, and add up the sums that shared weights need."""
        choice, fitting = self.choice, self.fitting
        wanted = {choice.kinds[at].base for at in self.used if choice.kinds[at].shared}
        for number, target in enumerate(choice.targets):
            sums: dict[Base, list[Moments]] = {}
            for at in self.used:
                kind = choice.kinds[at]
                if kind.shared or not choice.mix[number, at].any():
                    continue
                moments = fitting.moments(kind, int(target))
                if not kind.others:
                    sums[kind.base] = moments
                yield at, number, *self._chosen(fitting.ridges(moments), choice.options[number, at])
            for base in sorted(wanted, key=lambda each: (each.value, each.season)):
                own = sums[base] if base in sums else fitting.moments(Kind(base), int(target))
                together[base] = added(together.get(base), own)

    def _chosen(self, ridges: list[Ridges], options: FloatArray) -> tuple[FloatArray, FloatArray]:
        shares = np.repeat(options, np.diff(self.choice.edges), axis=1)
        weights, intercepts = [], []
        first = 0
        for each in ridges:
            stop = self.choice.horizon if each is ridges[-1] else first + each.steps
            solved = each.weights(shares[:, first:stop])
            weights.append(solved[0])
            intercepts.append(solved[1])
            first = stop
        return np.concatenate(weights, axis=1), np.concatenate(intercepts)

    def _bucketed(self, weights: FloatArray) -> FloatArray:
        if len(self.in_bucket) == self.choice.horizon:
            return weights
        sums = np.add.reduceat(weights, np.flatnonzero(np.diff(self.buckets, prepend=-1)), axis=1)
        mean: FloatArray = sums / self.in_bucket
        return mean
