"""Record in MLflow the models whose trainer has no MLflow."""

from __future__ import annotations

from flts.bundle.load import fetch_bundle
from flts.contracts.events import ModelSelected, ModelTraining, TrainingData
from flts.errors import RejectedError
from flts.observability.logs import get_logger
from flts.runtime.adapters import Adapters
from flts.trainers import BASELINES, COMBINATION, RECORDED_BY_EVAL
from flts.training.record import Record

log = get_logger(__name__)


def record_candidates(adapters: Adapters, event: ModelSelected) -> None:
    """Record LINEAR, a combination, and a baseline that is promoted, as the other trainers record their models.

    A repeat continues the same run and the same version.

    Parameters
    ----------
    adapters : Adapters
    event : ModelSelected
        The decision of the run.
    """
    evaluations = adapters.run_store.evaluations
    expected = evaluations.expected(event.identifier, event.pipeline_run_id)
    if expected is None:
        return
    trained = evaluations.trained(event.identifier, event.pipeline_run_id)
    wanted = [kind for kind in (*expected["model_types"], COMBINATION) if kind in {*RECORDED_BY_EVAL, COMBINATION}]
    data = TrainingData.model_validate(expected["training_data"])
    if data.cause == "evaluate":
        wanted = []  # the run that trained the candidates has recorded them under the same run_id
    if event.decision == "promoted" and event.model_type in BASELINES:
        wanted.append(event.model_type)
    for kind in wanted:
        if kind in trained and trained[kind].mlflow_run_id is None:
            why = event.reasons[0] if kind in BASELINES and event.reasons else None
            _record(adapters, data, trained[kind], why)


def _record(adapters: Adapters, data: TrainingData, trained: ModelTraining, why_baseline: str | None) -> None:
    if trained.bundle is None:
        return
    try:
        bundle, _ = fetch_bundle(adapters.store, trained.bundle)
    except RejectedError as error:
        log.warning("candidate_not_recorded", model_type=trained.model_type, error=error)
        return
    parameters: dict[str, object] = {
        "model_type": trained.model_type,
        "config_hash": data.config_hash,
        "train_hash": bundle.train_hash,
        "horizon_steps": bundle.horizon_steps,
        "input_seq_len": bundle.input_seq_len,
    }
    if why_baseline is not None:
        parameters["baseline"] = why_baseline
    with Record(adapters.tracker, data, trained.run_id, parameters, reused=trained.reused) as record:
        record.final(bundle.metrics)
        record.close(data, trained.bundle, bundle)
