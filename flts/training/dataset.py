"""Read the rows and the recipe that an event's claim checks name, and log their shapes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from flts.bundle.format import Bundle
from flts.contracts.events import TrainingData
from flts.errors import RejectedError
from flts.forecasting.fitted import FittedRecipe
from flts.forecasting.limits import find_limits, named_limits
from flts.forecasting.recipe import Features
from flts.forecasting.splits import tails
from flts.forecasting.windows import target_rows
from flts.observability.logs import get_logger
from flts.settings import WindowSettings
from flts.storage.claimed_frames import read_claimed_features
from flts.storage.claims import read_claimed
from flts.storage.ports import ObjectStore
from flts.training.fitting import TrainingSet
from flts.training.threads import resident_bytes

log = get_logger(__name__)


def claimed_training_set(store: ObjectStore, event: TrainingData, settings: WindowSettings) -> TrainingSet:
    """Read an event's rows and check them against their claim check.

    Raises
    ------
    HashMismatchError, ObjectNotFoundError
        If the claimed object is missing or differs from its claim check.
    RejectedError
        ``bad_meta`` if the recipe does not match the rows; ``bad_setting`` if a row is outside ``LOWER_BOUND`` or
        ``UPPER_BOUND``.
    """
    log.info("download_start", object_key=event.object_key, size_bytes=event.size)
    recipe = _claimed_recipe(store, event)
    features = read_claimed_features(store, event.claim())
    if features.names != recipe.feature_names:
        msg = f"the rows have the columns {features.names}, their recipe makes {recipe.feature_names}"
        raise RejectedError(msg, code="bad_meta")
    log.info(
        "download_done",
        rows=len(features),
        columns=len(features.names),
        rss_bytes=resident_bytes(),
    )
    return training_set(features, recipe, settings)


def claimed_refit_set(store: ObjectStore, event: TrainingData, settings: WindowSettings, judged: Bundle) -> TrainingSet:
    """Read an event's training rows and test rows for a refit of a judged bundle; raises as `claimed_training_set`.

    The limits are those of all rows. Raises `RejectedError` ``overlapping_times`` too, if the test rows do not follow
    the training rows.
    """
    train = claimed_training_set(store, event, settings)
    test = read_claimed_features(store, event.test)
    rows = train.features
    if test.names != rows.names or not len(test) or test.times[0] <= rows.times[-1]:
        msg = "the test rows do not continue the training rows, so the model cannot be fitted on both"
        raise RejectedError(msg, code="overlapping_times")
    features = Features(
        times=np.concatenate([rows.times, test.times]),
        names=rows.names,
        values=np.concatenate([rows.values, test.values]),
        imputed=np.concatenate([rows.imputed, test.imputed]),
        grid=rows.grid,
    )
    return replace(training_set(features, train.recipe, settings), tails=train.tails, judged=judged)


def training_set(features: Features, recipe: FittedRecipe, settings: WindowSettings) -> TrainingSet:
    """Return training rows with their tails and the limits of their targets; raises as `find_limits`."""
    shares = tails(len(features), stop_tail=settings.stop_tail, calibration_tail=settings.calibration_tail)
    limits = named_limits(recipe, find_limits(recipe, features, settings.limit_rules))
    return TrainingSet(features, recipe, shares, limits, settings.point)


def horizon_steps(event: TrainingData, settings: WindowSettings) -> int:
    """Return the steps that models of an event's rows are judged at: those of the event, or else of one pass."""
    return event.horizon_steps or settings.pass_steps


def log_feature_summary(data: TrainingSet, settings: WindowSettings) -> None:
    """Log the shapes of the windows of all training rows, tails included."""
    features, horizon = data.features, settings.pass_steps
    windows = len(
        target_rows(
            features.segments(),
            context_rows=settings.window_rows,
            horizon_steps=horizon,
            last_row=len(features),
        )
    )
    targets = len(data.recipe.varying_targets)
    log.info(
        "feature_summary",
        num_features=len(features.names),
        n_exogenous=len(features.names) - targets,
        X_shape=[windows, settings.window_rows, len(features.names)],
        y_shape=[windows, horizon, targets],
    )


def _claimed_recipe(store: ObjectStore, event: TrainingData) -> FittedRecipe:
    try:
        meta = json.loads(read_claimed(store, event.meta))
        return FittedRecipe.from_dict(meta["recipe"])
    except (ValueError, LookupError, TypeError) as error:
        msg = f"{event.meta.object_key} holds no recipe: {error!r}"
        raise RejectedError(msg[:500], code="bad_meta") from error
