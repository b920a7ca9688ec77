"""A whole run in this process: preprocess, the trainer of the baselines and LINEAR, and eval's judgement."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from eval_container.judging import Judgement, judge
from eval_container.settings import EvalSettings
from flts.bundle.write import store_bundle
from flts.contracts.events import ModelTraining, Scalar
from flts.contracts.ids import derived_run_id
from flts.errors import RejectedError
from flts.forecasting.fitted import FittedRecipe
from flts.trainers import BASELINES
from flts.training.announce import Announcement, model_training, training_failed
from flts.training.baselines import baseline_identity, make_baseline
from flts.training.dataset import training_set
from flts.training.linear import LINEAR, linear_identity, make_linear
from tests.evaluated_runs import no_progress
from tests.preprocessing import Preprocessing


def judged_upload(folder: Path, train: bytes, test: bytes | None = None, **overrides: Scalar) -> Judgement:
    """Return eval's judgement of an upload whose only candidate is LINEAR.

    Raises
    ------
    RejectedError
        If preprocess refuses the upload.
    """
    preprocessing = Preprocessing.start(folder)
    prepared = preprocessing.prepare(train, test, **overrides)
    data, store = prepared.training, prepared.store
    settings = EvalSettings(
        kafka_bootstrap_servers="unused:9092",
        mlflow_tracking_uri="http://unused",
        store="filesystem",
        store_path=folder,
        expected_model_types=(LINEAR,),
    ).with_overrides(overrides)
    store.ensure_bucket(settings.bucket_model_bundles)
    rows = training_set(prepared.train, FittedRecipe.from_dict(prepared.meta()["recipe"]), settings)
    horizon = data.horizon_steps
    assert horizon is not None

    def trained(model_type: str) -> ModelTraining:
        try:
            if model_type == LINEAR:
                identity = linear_identity(data, settings, horizon)
                made = make_linear(rows, identity, horizon=horizon, threads=1, alive=lambda: None)
            else:
                identity = baseline_identity(data, model_type, settings)
                made = make_baseline(rows, identity, settings, horizon=horizon, threads=1, alive=lambda: None)
        except RejectedError as error:
            return training_failed(data, model_type, error.message, datetime.now(UTC))
        claim = store_bundle(store, settings.bucket_model_bundles, *made)
        run_id = derived_run_id(data.event_id, model_type)
        return model_training(data, Announcement(model_type, run_id, None, claim, duration_seconds=0.0))

    return judge(
        store,
        data,
        settings,
        expected=(LINEAR,),
        trained={model_type: trained(model_type) for model_type in (*BASELINES, LINEAR)},
        missing={},
        pointer=None,
        progress=no_progress,
    )
