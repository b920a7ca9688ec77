"""Results of the trainer of LINEAR, THETA and the baselines, for runs of `tests.evaluated_runs`."""

from __future__ import annotations

from flts.bundle.write import store_bundle
from flts.contracts.events import ModelTraining
from flts.storage.claimed_frames import read_claimed_features
from flts.trainers import BASELINES
from flts.training.baselines import baseline_identity, make_baseline
from flts.training.dataset import training_set
from flts.training.fitting import TrainingSet
from flts.training.linear import linear_identity, make_linear
from flts.training.theta import make_theta, theta_identity
from tests.evaluated_runs import Installation, Run, announced


def baselines(flts: Installation, run: Run, horizon: int = 1) -> list[ModelTraining]:
    """Store every baseline's bundle as the baselines' trainer does; return its events."""
    data = _training_set(flts, run)
    events = []
    for kind in BASELINES:
        identity = baseline_identity(run.data, kind, flts.settings)
        made = make_baseline(data, identity, flts.settings, horizon=horizon, threads=1, alive=lambda: None)
        claim = store_bundle(flts.store, flts.settings.bucket_model_bundles, *made)
        events.append(announced(run, kind, bundle=claim))
    return events


def linear(flts: Installation, run: Run, horizon: int) -> ModelTraining:
    """Store LINEAR's bundle as its trainer does; return its event."""
    identity = linear_identity(run.data, flts.settings, horizon)
    made = make_linear(_training_set(flts, run), identity, horizon=horizon, threads=1, alive=lambda: None)
    return announced(run, "LINEAR", bundle=store_bundle(flts.store, flts.settings.bucket_model_bundles, *made))


def theta(flts: Installation, run: Run, horizon: int) -> ModelTraining:
    """Store THETA's bundle as its trainer does; return its event."""
    identity = theta_identity(run.data, flts.settings, horizon)
    made = make_theta(_training_set(flts, run), identity, horizon=horizon, threads=1, alive=lambda: None)
    return announced(run, "THETA", bundle=store_bundle(flts.store, flts.settings.bucket_model_bundles, *made))


def _training_set(flts: Installation, run: Run) -> TrainingSet:
    features = read_claimed_features(flts.store, run.data.claim())
    return training_set(features, run.recipe, flts.settings)
