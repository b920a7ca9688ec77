"""Refits by a trainer without Kafka: a data set with test rows, its judged bundle, and the request of eval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flts.bundle.forecaster import Forecaster
from flts.bundle.load import fetch_bundle
from flts.bundle.model import BundleModel
from flts.bundle.widening import widened_by
from flts.contracts.claim_check import ClaimCheck
from flts.contracts.events import ModelRefit, ModelTraining, RefitRequest
from flts.contracts.ids import derived_event_id
from flts.forecasting.recipe import RecipeSpec
from flts.forecasting.series import Series
from flts.service import Handler
from tests.training_sets import Progress, Stored, store_dataset


def stored_with_test(
    folder: Path, series: Series, *, test_rows: int, spec: RecipeSpec | None = None, **changes: Any
) -> Stored:
    """Store a series whose last rows are the test rows; the event of its training rows is that of `store_dataset`."""
    train = series.rows(0, len(series) - test_rows)
    return store_dataset(folder, train, spec, test=series.rows(len(train)), **changes)


def request_of(stored: Stored, trained: ModelTraining, **changes: Any) -> RefitRequest:
    """Return eval's request to refit a model of a trainer."""
    fields = {
        **stored.event.model_dump(),
        "event_id": derived_event_id(stored.event.pipeline_run_id, "refit-request"),
        "model_type": trained.model_type,
        "judged": trained.bundle,
    }
    return RefitRequest(**{**fields, **changes})


def refitted(
    stored: Stored, handler: Handler, model_type: str, progress: Progress | None = None
) -> tuple[ModelRefit, Forecaster, Forecaster]:
    """Train on the training rows and refit on all; return the refit's event, the refitted and the judged bundle."""
    trained = {one.model_type: one for one in handler(stored.event, Progress()) if isinstance(one, ModelTraining)}
    (event,) = handler(request_of(stored, trained[model_type]), progress or Progress())
    assert isinstance(event, ModelRefit)
    assert event.status == "SUCCESS", event.error
    return event, loaded(stored, event.bundle), loaded(stored, event.judged)


def loaded(stored: Stored, claim: ClaimCheck | None) -> Forecaster:
    """Return a stored bundle as inference loads it."""
    assert claim is not None
    return Forecaster(BundleModel(*fetch_bundle(stored.store, claim)))


def assert_is_refit(refit: Forecaster, judged: Forecaster, series: Series) -> None:
    """Assert the fields of a refitted bundle that are those of the judged bundle, and those of a refit."""
    made, of_judged = refit.bundle, judged.bundle
    for name in ("model_type", "config_hash", "train_hash", "recipe", "targets", "input_kind", "point"):
        assert getattr(made, name) == getattr(of_judged, name), name
    assert (made.fit, of_judged.fit, made.format_version) == ("refitted", "judged", 2)
    assert made.fitted_until == series.times[-1]
    assert made.intervals is not None
    assert of_judged.intervals is not None
    assert made.intervals.to_head() == of_judged.intervals.to_head()
    if of_judged.point == "mean":
        widened = widened_by(judged, series) or of_judged.intervals
        assert made.intervals.values == pytest.approx(widened.values, rel=1e-5)
    assert not [name for name in made.metrics if name.startswith("val_")]
