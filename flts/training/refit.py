"""Refit: a trainer fits the model that a run promoted again, on the training rows and the test rows.

The bundle is stored beside the judged one, under the same train_hash. Eval compares the two before the refit is served.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np

from flts.bundle import proof
from flts.bundle.forecaster import Forecaster
from flts.bundle.format import Bundle
from flts.bundle.load import fetch_bundle
from flts.bundle.model import BundleModel
from flts.bundle.widening import widened_by
from flts.bundle.write import store_bundle
from flts.contracts.claim_check import ClaimCheck
from flts.contracts.events import ModelRefit, RefitRequest
from flts.errors import RejectedError
from flts.forecasting.recipe import raw_rows
from flts.observability.logs import bind, get_logger
from flts.runtime.adapters import Adapters
from flts.service import Progress
from flts.storage import layout
from flts.training.announce import REFIT_STAGE, model_refit, refit_failed
from flts.training.bundling import Identity
from flts.training.dataset import claimed_refit_set
from flts.training.fitting import TrainingSet
from flts.training.patience import patiently
from flts.training.report import ProgressReport
from flts.training.reuse import reusable_bundle
from flts.training.settings import TrainerSettings

SettingsT = TypeVar("SettingsT", bound=TrainerSettings)
Make = Callable[[TrainingSet, Identity, ProgressReport], tuple[Bundle, bytes]]
"""Fits the model on all rows of a refit, and returns its bundle and its ONNX file."""

log = get_logger(__name__)


class RefitOtherError(RejectedError):
    """The trainer's release or settings are not those of the judged model, so it would fit another model."""

    code = "refit_of_other_settings"


def refit(
    adapters: Adapters,
    event: RefitRequest,
    settings: SettingsT,
    progress: Progress,
    *,
    identity: Identity,
    make: Make,
) -> list[ModelRefit]:
    """Return the event of a refit, unless eval has recorded its result; a repeated request returns the same event.

    A refit that cannot be made is no dead letter: its event has the status FAILED and the reason, and the judged model
    stays.

    Parameters
    ----------
    settings : TrainerSettings
        With the run's overrides.
    identity : Identity
        The names of the bundle that this trainer makes of the run's training rows.
    make : callable
    """
    runs, name = adapters.run_store, (event.identifier, event.pipeline_run_id)
    with bind(model_type=event.model_type):
        if runs.evaluations.refit(*name) is not None:
            log.info("refit_skip_decided")
            return []
        started = datetime.now(UTC)
        runs.stages.put(*name, REFIT_STAGE, "started", started, model_type=event.model_type)
        clock = time.perf_counter()
        try:
            report = ProgressReport(REFIT_STAGE, progress)
            claim, reused = _stored(adapters, event, settings, report, identity=identity, make=make)
        except RejectedError as error:
            return refit_failed(adapters, event, error, error.message)
        duration = time.perf_counter() - clock
        adapters.metrics.refits.labels(event.model_type, "reused" if reused else "done").inc()
        if not reused:
            adapters.metrics.refit_duration.labels(event.model_type).observe(duration)
        bundle = claim.model_dump(mode="json")
        details: dict[str, Any] = {
            "model_type": event.model_type,
            "reused": reused,
            "bundle": bundle,
            "duration_seconds": duration,
        }
        runs.stages.put(*name, REFIT_STAGE, "done", started, datetime.now(UTC), **details)
        log.info("refit_success", duration_seconds=round(duration, 3), reused=reused, object_key=claim.object_key)
        return [model_refit(event, claim, duration_seconds=duration, reused=reused)]


def _stored(
    adapters: Adapters,
    event: RefitRequest,
    settings: SettingsT,
    report: ProgressReport,
    *,
    identity: Identity,
    make: Make,
) -> tuple[ClaimCheck, bool]:
    """Return the claim check of the refitted bundle, and whether it was in the store."""
    store, bucket = adapters.store, settings.bucket_model_bundles
    report.state("downloading")
    bundle, model_bytes = fetch_bundle(store, event.judged)
    if (bundle.model_type, bundle.train_hash) != (identity.model_type, identity.train_hash):
        msg = f"the release or the settings of its trainer have changed since {event.model_type} was trained"
        raise RefitOtherError(msg)
    if settings.skip_duplicate_configs:
        found = reusable_bundle(store, bucket, event, identity, form=layout.REFITTED_BUNDLE)
        if found is not None:
            return found[0], True
    proof.prove(bundle, model_bytes)
    # The quantiles of the intervals are around the mean, also if the bundle moves its forecasts by the median residual.
    forecaster = Forecaster(BundleModel(replace(bundle, point="mean"), model_bytes))
    judged = replace(forecaster.bundle, point=bundle.point)
    data = replace(claimed_refit_set(store, event, settings, judged), horizon=event.horizon_steps)
    # The held-out rows have matured forecasts of the judged model. After the refit no stored row has any.
    series = raw_rows(data.recipe, data.features)
    observed = replace(series, values=np.where(data.features.imputed, np.nan, series.values))
    widened = widened_by(forecaster, observed)
    if widened is not None:
        data = replace(data, judged=replace(judged, intervals=widened))
    log.info("refit_start", train_hash=identity.train_hash, rows=len(data.features))
    made = make(data, identity, report)
    claim = patiently(lambda: store_bundle(store, bucket, *made), alive=lambda: report.state("storing"))
    return claim, False
