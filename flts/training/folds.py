"""The residuals in expanding folds of a training set, from which intervals are calibrated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from flts.bundle.forecaster import Forecaster
from flts.bundle.format import MAX_PASS_STEPS, Bundle
from flts.bundle.model import BundleModel
from flts.forecasting.borrowed import borrowed_folds
from flts.forecasting.direct import PAST
from flts.forecasting.expanding import FoldResiduals
from flts.forecasting.linear.choice import LinearChoice
from flts.forecasting.linear.folds import linear_residuals
from flts.forecasting.recipe import observed_targets, raw_rows
from flts.forecasting.series import paths_from, segment_starts
from flts.training.bundling import Identity, make_bundle
from flts.training.fitting import FittedModel, TrainingSet


def linear_folds_of(
    data: TrainingSet, horizon: int, alive: Callable[[], None], choice: LinearChoice | None = None
) -> list[FoldResiduals]:
    """Return LINEAR's residuals in the folds of the training rows; ``alive`` is called before each fold.

    ``choice`` is LINEAR's of the training rows, if it is known. A horizon that no bundle can have, and a data set in
    which no target varies, have no folds.
    """
    if not data.recipe.varying_targets or not 1 <= horizon <= MAX_PASS_STEPS:
        return []
    pairs = [data.limits.get(name, (None, None)) for name in data.recipe.varying_targets]
    lowest = np.array([-np.inf if lower is None else lower for lower, _ in pairs])
    highest = np.array([np.inf if upper is None else upper for _, upper in pairs])
    return linear_residuals(
        data.recipe,
        data.features,
        horizon=horizon,
        whole=data.tails,
        limits=(lowest, highest),
        alive=alive,
        choice=choice,
    )


def make_with_folds(
    fitted: FittedModel,
    data: TrainingSet,
    identity: Identity,
    *,
    horizon: int,
    threads: int,
    alive: Callable[[], None],
) -> tuple[Bundle, bytes]:
    """Return the bundle of a fitted model and its file, with the intervals of LINEAR's folds if its errors are alike.

    A direct model that reads past values and was fitted on the rows before the calibration tail is compared with LINEAR
    there. If its errors are like LINEAR's, its intervals are those of LINEAR's folds in the size of its own errors. The
    bundle of any other model is that of `make_bundle`. Parameters and errors as there.
    """

    def bundled(folds: Sequence[FoldResiduals]) -> tuple[Bundle, bytes]:
        return make_bundle(fitted, data, identity, threads=threads, alive=alive, folds=folds, horizon=horizon)

    made = bundled(())
    comparable = fitted.input_kind == "direct" and PAST in fitted.check_inputs
    if not comparable or fitted.fitted_rows > data.tails.stop_stop:
        return made
    linear = linear_folds_of(data, horizon, alive)
    tails = tail_residuals(made, data, linear, threads=threads)
    if tails is None:
        return made
    own, theirs = tails
    borrowed = borrowed_folds(own.residuals, theirs.residuals, linear)
    return made if borrowed is None else bundled(borrowed)


def tail_residuals(
    made: tuple[Bundle, bytes], data: TrainingSet, folds: Sequence[FoldResiduals], *, threads: int
) -> tuple[FoldResiduals, FoldResiduals] | None:
    """Return the residuals of a bundle and of LINEAR from the same origins of the calibration tail.

    These are the origins of LINEAR's last fold in the tail from which the bundle can forecast too. LINEAR was fitted
    on the rows before that fold, and the bundle before the tail.

    Returns
    -------
    pair of FoldResiduals, or None
        None if there are no such origins.
    """
    bundle, model_bytes = made
    forecaster = Forecaster(BundleModel(replace(bundle, point="mean"), model_bytes, threads=threads))
    features, stop = data.features, data.tails.stop_stop
    if not folds or folds[-1].rows[-1] < stop:
        return None
    last = folds[-1]
    horizon = last.residuals.shape[1]
    series = raw_rows(data.recipe, features)
    shared = np.isin(last.rows, forecaster.valid_origins(series, stop))
    rows = last.rows[shared]
    if not len(rows) or (forecaster.max_horizon is not None and forecaster.max_horizon < horizon):
        return None
    starts = segment_starts(features.times, features.grid)
    actual = paths_from(rows, horizon, observed_targets(data.recipe, features), starts)
    forecast = forecaster.forecast_origins(series, rows, horizon)[..., forecaster.varying]
    own = FoldResiduals(last.number, rows, actual - forecast)
    return own, FoldResiduals(last.number, rows, last.residuals[shared])
