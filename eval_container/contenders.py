"""The forecaster of a bundle as a contender on the held-out rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from eval_container.domain.scoring import Contender, HeldOut, Scorecard, card_of, measure_contender
from flts.bundle.forecaster import Forecaster
from flts.forecasting.series import FloatArray, IntArray, Series, segment_starts


def card_by(forecaster: Forecaster, test: Series, held_out: HeldOut, divisors: FloatArray) -> Scorecard:
    """Return the scores of a forecaster in units of the best baseline's errors (H, m)."""
    return card_of(measure_contender(contender_of(forecaster, test, held_out.targets), held_out), divisors, held_out)


def contender_of(forecaster: Forecaster, test: Series, targets: tuple[str, ...]) -> Contender:
    """Return a forecaster as a contender that forecasts some of its targets from the rows of ``test``."""
    chosen = [forecaster.bundle.targets.index(target) for target in targets]
    varying = forecaster.recipe.varying_targets
    intervals = forecaster.intervals
    if intervals is not None:
        intervals = intervals.select([varying.index(target) for target in targets])

    def forecast(origins: IntArray, horizon: int) -> FloatArray:
        return forecaster.forecast_origins(test, origins, horizon)[..., chosen]

    limits = forecaster.limits
    if limits is not None:
        limits = limits[0][chosen], limits[1][chosen]
    return Contender(forecast, max_horizon=forecaster.max_horizon, intervals=intervals, limits=limits)


def with_history(
    forecaster: Forecaster, test: Series, history: Series, targets: tuple[str, ...], otherwise: Contender
) -> Contender:
    """Return a contender whose window is longer than the test's context; training rows are put before the test.

    At an origin without a whole window before it in its segment, the contender ``otherwise`` forecasts.
    """
    required = forecaster.rows_required
    before = int(np.searchsorted(history.times, test.times[0]))
    skipped = min(required, before)
    series = history.rows(before - skipped, before).select(forecaster.recipe.columns).concat(test)
    whole = contender_of(forecaster, series, targets)
    starts = segment_starts(series.times, series.grid)

    def forecast(origins: IntArray, horizon: int) -> FloatArray:
        answer = otherwise.forecast(origins, horizon)
        at = origins + skipped
        known = at - starts[at - 1] >= required
        answer[known] = whole.forecast(at[known], horizon)
        return answer

    return replace(whole, forecast=forecast)
