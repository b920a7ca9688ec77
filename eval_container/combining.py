"""Make a candidate of several candidates: a bundle whose forecast is the weighted sum of theirs.

The weights come from forecasts of the calibration tail by models that were not fitted on it. Networks are not fitted on
it anyway. LINEAR, which its trainer solves on all training rows, is solved again on the rows before the tail.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np

from eval_container.domain.combining import combined_weights
from eval_container.domain.promotion import Candidate
from eval_container.domain.step_scores import step_blocks
from eval_container.settings import EvalSettings
from flts.bundle.forecaster import Forecaster
from flts.bundle.format import Bundle
from flts.bundle.load import fetch_bundle
from flts.bundle.model import BundleModel
from flts.bundle.write import find_bundle, store_bundle
from flts.contracts.events import TrainingData
from flts.contracts.ids import derived_run_id
from flts.errors import RejectedError
from flts.forecasting.borrowed import borrowed_intervals
from flts.forecasting.expanding import WINDOWS_METRIC
from flts.forecasting.folds import forecast_after
from flts.forecasting.intervals import LEVELS, Intervals, calibrate, calibration_steps
from flts.forecasting.linear.folds import LINEAR_FORM
from flts.forecasting.recipe import measured_only, raw_rows
from flts.forecasting.series import FloatArray, IntArray
from flts.forecasting.splits import tails
from flts.observability.logs import get_logger
from flts.storage import layout
from flts.storage.ports import ObjectStore
from flts.trainers import COMBINATION
from flts.training.announce import Announcement, model_training
from flts.training.fitting import TrainingSet

LINEAR = "LINEAR"
TAIL_ORIGINS = 256
"""Origins of the calibration tail from which the members forecast; more would change the weights little."""
LEAST_ORIGINS = 16
"""Origins below which nothing is combined: the choice of members would be luck."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Member:
    """A candidate with its files, and its errors in the calibration tail."""

    model_type: str
    bundle: Bundle
    model_bytes: bytes
    errors: FloatArray
    """(n, H, m) raw: observed less forecast; NaN where either is missing."""


def combination(
    store: ObjectStore,
    data: TrainingData,
    candidates: Sequence[Candidate],
    train: TrainingSet,
    settings: EvalSettings,
    *,
    horizon: int,
    alive: Callable[[], None],
) -> Candidate | None:
    """Return a combination of the candidates as a further candidate, or None where there is nothing to combine.

    The same candidates give the same bundle, so a repeated decision finds it in the store.

    Parameters
    ----------
    candidates : sequence of Candidate
        Loaded; those without a forecaster are no members.
    train : TrainingSet
        The run's training rows.
    settings : EvalSettings
        With the run's overrides.
    horizon : int
        H, steps that models are judged at.
    alive : callable
        Called before each step of the work.
    """
    # Imported here, because importing onnx takes 0.1 s, and many decisions have nothing to combine.
    from flts.training.combination import combinable  # noqa: PLC0415 - see above

    began = time.perf_counter()
    able = [one for one in candidates if one.forecaster is not None and one.forecaster.bundle.horizon_steps == horizon]
    chosen = combinable([one.forecaster.bundle for one in able if one.forecaster is not None])
    members = [able[at] for at in chosen]
    if len(members) < 2 or LINEAR not in {one.model_type for one in members}:  # noqa: PLR2004 - a sum has two terms
        return None
    alive()
    try:
        found = list(_members(store, members, train, settings, horizon))
        errors = np.array([one.errors for one in found])
        if len(found) < 2:  # noqa: PLR2004 - see above
            return None
        alive()
        weights = combined_weights(errors / train.recipe.scales_of_targets, step_blocks(horizon), settings.weights())
        if sum(bool(of_member.any()) for of_member in weights) < 2:  # noqa: PLR2004 - see above
            return None
        return _stored(store, settings.bucket_model_bundles, data, found, weights, train, horizon=horizon, began=began)
    except RejectedError as error:
        log.warning("combination_left_out", model_type=COMBINATION, reason=error.message)
        return None


def _members(
    store: ObjectStore, candidates: Sequence[Candidate], train: TrainingSet, settings: EvalSettings, horizon: int
) -> Iterator[_Member]:
    """Yield the candidates that have forecasts of the calibration tail by a model that was not fitted on it."""
    recipe, features = measured_only(train.recipe, train.features)
    own = tails(train.tails.stop_stop, stop_tail=settings.stop_tail, calibration_tail=settings.calibration_tail)
    fold = forecast_after(
        LINEAR_FORM,
        own,
        recipe,
        features,
        horizon=horizon,
        season=None,
        most=TAIL_ORIGINS,
        limit_rules=settings.limit_rules,
    )
    if len(fold.rows) < LEAST_ORIGINS:
        return
    last_fitted = int(features.times[train.tails.stop_stop - 1])
    for one in candidates:
        assert one.event is not None
        assert one.event.bundle is not None
        bundle, model_bytes = fetch_bundle(store, one.event.bundle)
        if one.model_type == LINEAR:
            yield _Member(one.model_type, bundle, model_bytes, fold.actual - fold.candidate)
        elif bundle.fitted_until is not None and bundle.fitted_until <= last_fitted:
            # The members' means are added, and the sum is moved by its own median residual, if that is asked for.
            forecaster = Forecaster(BundleModel(replace(bundle, point="mean"), model_bytes))
            errors = fold.actual - _forecast(forecaster, train, fold.rows, horizon)
            yield _Member(one.model_type, bundle, model_bytes, errors)


def _forecast(forecaster: Forecaster, train: TrainingSet, rows: IntArray, horizon: int) -> FloatArray:
    """Return the raw forecasts (n, H, m) of training rows; NaN where the rows before have a gap."""
    series = raw_rows(train.recipe, train.features)
    varying = train.recipe.varying_targets
    found = np.full((len(rows), horizon, len(varying)), np.nan)
    whole = np.isin(rows, forecaster.valid_origins(series, 0))
    columns = [forecaster.bundle.targets.index(name) for name in varying]
    found[whole] = forecaster.forecast_origins(series, rows[whole], horizon)[..., columns]
    return found


def _stored(  # noqa: PLR0917 - all that one bundle is made of
    store: ObjectStore,
    bucket: str,
    data: TrainingData,
    members: Sequence[_Member],
    weights: FloatArray,
    train: TrainingSet,
    *,
    horizon: int,
    began: float,
) -> Candidate:
    from flts.training.bundling import identity_of, point_of  # noqa: PLC0415 - see `combination`
    from flts.training.combination import (  # noqa: PLC0415 - see `combination`
        COMBINATION_VERSION,
        CombinedAnswer,
        make_combination,
    )

    made = [(one.bundle, one.model_bytes) for one in members]
    shares = _shares([one.model_type for one in members], weights)
    residuals: FloatArray = np.einsum("khm,knhm->nhm", weights, np.array([one.errors for one in members]))
    [linear] = [one for one in members if one.model_type == LINEAR]
    intervals = borrowed_intervals(residuals, linear.errors, _intervals_of(linear, train))
    windows = {} if intervals is None else {WINDOWS_METRIC: linear.bundle.metrics.get(WINDOWS_METRIC)}
    if intervals is None:
        steps = {step for step in calibration_steps(train.tails.calibration_rows) if step <= horizon} | {horizon}
        intervals = calibrate({step: residuals[:, step - 1] for step in sorted(steps)}, levels=LEVELS)
    known = residuals[np.isfinite(residuals).all(axis=2)] / train.recipe.scales_of_targets
    metrics = (
        {f"weight_{name}": share for name, share in shares.items()}
        | windows
        | {
            "val_rmse": float(np.sqrt(np.square(known).mean())) if len(known) else None,
            "val_mae": float(np.abs(known).mean()) if len(known) else None,
        }
    )
    parts = {
        "members": [bundle.model_sha256 for bundle, _ in made],
        "weights": weights.round(6).tolist(),
        "combination_version": COMBINATION_VERSION,
    }
    answer = CombinedAnswer(intervals, train.limits, point_of(train, intervals), metrics)
    identity = identity_of(data, COMBINATION, parts)
    reused = find_bundle(store, bucket, layout.BUNDLE(*astuple(identity))) is not None
    bundle, model_bytes = make_combination(
        made,
        weights,
        answer,
        identity,
        recipe=train.recipe,
        features=train.features,
        threads=1,
    )
    claim = store_bundle(store, bucket, bundle, model_bytes)
    done = Announcement(
        model_type=COMBINATION,
        run_id=derived_run_id(data.event_id, COMBINATION),
        mlflow_run_id=None,
        bundle=claim,
        metrics=dict(bundle.metrics),
        duration_seconds=time.perf_counter() - began,
        reused=reused,
    )
    log.info("combination_made", model_type=COMBINATION, weights=shares, object_key=claim.object_key)
    return Candidate(
        COMBINATION,
        model_training(data, done),
        forecaster=Forecaster(BundleModel(bundle, model_bytes)),
        members=shares,
    )


def _shares(names: Sequence[str], weights: FloatArray) -> Mapping[str, float]:
    """Return the mean weight of each member over steps and targets."""
    return {name: round(float(own.mean()), 4) for name, own in zip(names, weights, strict=True) if own.any()}


def _intervals_of(linear: _Member, train: TrainingSet) -> Intervals:
    """Return the intervals of LINEAR's bundle, with the run's varying targets in their order."""
    bundle = BundleModel(linear.bundle, linear.model_bytes).bundle
    assert bundle.intervals is not None  # LINEAR's trainer always writes them
    return bundle.intervals.select([bundle.recipe.varying_targets.index(name) for name in train.recipe.varying_targets])
