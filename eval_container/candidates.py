"""Load what trainers announced, believing nothing but hashes, and say why a candidate cannot be scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from eval_container.domain.gate import Reason
from eval_container.domain.promotion import Candidate, Champion
from flts.bundle import proof
from flts.bundle.forecaster import Forecaster
from flts.bundle.load import fetch_bundle
from flts.bundle.model import BundleModel
from flts.contracts.claim_check import ClaimCheck
from flts.contracts.events import ModelTraining, TrainingData
from flts.errors import RejectedError
from flts.forecasting.recipe import FittedRecipe
from flts.forecasting.series import Series
from flts.storage.ports import ObjectStore


def load_candidates(
    store: ObjectStore,
    data: TrainingData,
    *,
    expected: tuple[str, ...],
    trained: Mapping[str, ModelTraining],
    missing: Mapping[str, Reason],
    recipe: FittedRecipe,
) -> list[Candidate]:
    """Return every expected type with its forecaster, or with the reason why it has none."""
    loaded = []
    for model_type in expected:
        event = trained.get(model_type)
        if event is None:
            reason = missing.get(model_type) or Reason("silent", f"{model_type} sent no result")
            loaded.append(Candidate(model_type, status="missing", reasons=(reason,)))
        elif event.status == "FAILED" or event.bundle is None:
            failed = Reason("training_failed", event.error or "its trainer gave no reason")
            loaded.append(Candidate(model_type, event, status="failed", reasons=(failed,)))
        else:
            loaded.append(_load(store, data, event, event.bundle, recipe))
    return loaded


def load_forecaster(store: ObjectStore, claim: ClaimCheck) -> Forecaster:
    """Return the forecaster of a bundle, its hashes and its probe checked, and proved in a child first.

    Raises
    ------
    RejectedError
        If a hash, the document or the model is not right, or an object is gone.
    """
    bundle, model_bytes = fetch_bundle(store, claim)
    proof.prove(bundle, model_bytes)
    return Forecaster(BundleModel(bundle, model_bytes))


def load_champion(
    store: ObjectStore, champion: Champion, series: Series, targets: tuple[str, ...], horizon: int
) -> Champion:
    """Return the champion with its forecaster, or with the reason why its recipe cannot forecast these rows."""
    try:
        forecaster = load_forecaster(store, ClaimCheck.model_validate(champion.pointer["bundle"]))
    except RejectedError as error:
        return champion.refused(Reason("champion_not_loaded", f"the champion's bundle is not right: {error.message}"))
    recipe = forecaster.recipe
    lacking = [name for name in targets if name not in recipe.varying_targets]
    if lacking:
        return champion.refused(
            Reason("champion_other_targets", f"the champion does not forecast {', '.join(lacking)}")
        )
    if recipe.step_seconds != series.step_seconds:
        steps = f"the champion's rows are {recipe.step_seconds} s apart, these {series.step_seconds} s"
        return champion.refused(Reason("champion_other_step", steps))
    absent = [name for name in recipe.columns if name not in series.columns]
    if absent and forecaster.bundle.input_kind == "window":
        return champion.refused(Reason("champion_other_columns", f"the champion needs the columns {', '.join(absent)}"))
    if forecaster.max_horizon is not None and forecaster.max_horizon < horizon:
        longest = f"the champion forecasts at most {forecaster.max_horizon} steps"
        return champion.refused(Reason("champion_short_horizon", longest))
    return replace(champion, forecaster=forecaster)


def _load(
    store: ObjectStore, data: TrainingData, event: ModelTraining, claim: ClaimCheck, recipe: FittedRecipe
) -> Candidate:
    candidate = Candidate(event.model_type, event)
    if event.pipeline_run_id != data.pipeline_run_id or event.config_hash != data.config_hash:
        return candidate.refused(Reason("other_run", "it was announced for another run or configuration"))
    if event.train.sha256 != data.sha256:
        return candidate.refused(Reason("other_rows", "it was trained on other rows than this run's"))
    try:
        forecaster = load_forecaster(store, claim)
    except RejectedError as error:
        return candidate.refused(Reason(error.code, error.message))
    bundle = forecaster.bundle
    named = (bundle.identifier, bundle.config_hash, bundle.model_type)
    if named != (data.identifier, data.config_hash, event.model_type):
        return candidate.refused(Reason("other_bundle", f"its bundle names {'/'.join(map(str, named))}"))
    if bundle.recipe.to_dict() != recipe.to_dict():
        return candidate.refused(Reason("other_recipe", "its bundle's recipe is not this run's"))
    cost = (int(bundle.input_kind == "window"), bundle.model_size)
    return replace(candidate, forecaster=forecaster, serving_cost=cost)
