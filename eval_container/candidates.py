"""Load the bundles that trainers announced, check their hashes, and report why a candidate cannot be scored."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from eval_container.domain.gate import Reason
from eval_container.domain.promotion import Candidate, Champion
from eval_container.domain.scoreboard import row_name
from eval_container.settings import EvalSettings
from flts.bundle import proof
from flts.bundle.forecaster import Forecaster
from flts.bundle.load import fetch_bundle
from flts.bundle.model import BundleModel
from flts.bundle.write import store_bundle
from flts.contracts.claim_check import ClaimCheck
from flts.contracts.events import ModelTraining, TrainingData
from flts.contracts.ids import derived_run_id
from flts.errors import RejectedError
from flts.forecasting.recipe import FittedRecipe, forecast_or_known, measured_only, targets_only
from flts.forecasting.series import Series
from flts.observability.logs import get_logger
from flts.storage.claimed_frames import read_claimed_features
from flts.storage.ports import ObjectStore
from flts.trainers import BASELINES
from flts.training.announce import Announcement, model_training
from flts.training.fitting import TrainingSet

PERSISTENCE = BASELINES[0]

log = get_logger(__name__)


def load_candidates(
    store: ObjectStore,
    data: TrainingData,
    *,
    expected: tuple[str, ...],
    trained: Mapping[str, ModelTraining],
    missing: Mapping[str, Reason],
    recipe: FittedRecipe,
) -> list[Candidate]:
    """Return a candidate for every expected type, with its forecaster or with the reason why it has none."""
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
            loaded.append(_load(store, data, event, event.bundle, _recipes(store, data, recipe)))
    return loaded


def reaching(candidate: Candidate, horizon: int) -> Candidate:
    """Return the candidate with its serving cost; refuse it if its longest forecast is shorter than the horizon."""
    forecaster = candidate.forecaster
    if forecaster is None:
        return candidate
    if forecaster.max_horizon is None or forecaster.max_horizon >= horizon:
        # A forecast reads the whole model once a pass.
        passes = 1 if forecaster.inputs is None else -(-horizon // forecaster.bundle.output_seq_len)
        cost = (int(forecaster.bundle.reads_values), passes * forecaster.bundle.model_size)
        return replace(candidate, serving_cost=cost)
    reason = Reason("horizon_too_short", f"it forecasts {forecaster.max_horizon} of the {horizon} scored steps")
    return candidate.refused(reason)


def load_baselines(
    store: ObjectStore,
    data: TrainingData,
    trained: Mapping[str, ModelTraining],
    train: TrainingSet,
    settings: EvalSettings,
    *,
    horizon: int,
    alive: Callable[[], None],
) -> tuple[list[Candidate], list[str]]:
    """Return the baselines with their forecasters, persistence first, and notes on those that are left out.

    A baseline that its trainer did not deliver, or whose bundle cannot be used, is made here by the same functions. Its
    bundle is stored under the key that the trainer's has, because the best baseline may be promoted.

    Parameters
    ----------
    trained : mapping
        The final event of each model type that sent one.
    train : TrainingSet
        The run's training rows.
    settings : EvalSettings
        With the run's overrides.
    horizon : int
        Steps that each baseline must forecast.
    alive : callable
        Called while baselines are made.

    Raises
    ------
    RejectedError
        If there is no persistence, without which no candidate can be judged.
    """
    loaded, notes = [], []
    for model_type in BASELINES:
        try:
            candidate = _stored_baseline(store, data, trained.get(model_type), train, horizon)
            made = candidate or _made_baseline(store, data, model_type, train, settings, horizon=horizon, alive=alive)
            loaded.append(_reaching_baseline(made, horizon))
        except RejectedError as error:
            if model_type == PERSISTENCE:
                raise
            notes.append(f"no {row_name(model_type)} row: {error.message}")
    return loaded, notes


def load_forecaster(store: ObjectStore, claim: ClaimCheck) -> Forecaster:
    """Return the forecaster of a bundle after checking its hashes and its probe, first in a child process.

    Raises
    ------
    RejectedError
        If a hash, the document or the model is wrong, or an object is missing.
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
    if recipe.grid != series.grid:
        steps = f"the champion's rows are at steps of {recipe.grid.text}, these of {series.grid.text}"
        return champion.refused(Reason("champion_other_step", steps))
    absent = [name for name in recipe.columns if name not in series.columns]
    if absent and forecaster.bundle.reads_values:
        return champion.refused(Reason("champion_other_columns", f"the champion needs the columns {', '.join(absent)}"))
    if forecaster.max_horizon is not None and forecaster.max_horizon < horizon:
        longest = f"the champion forecasts at most {forecaster.max_horizon} steps"
        return champion.refused(Reason("champion_short_horizon", longest))
    return replace(champion, forecaster=forecaster)


def _recipes(store: ObjectStore, data: TrainingData, recipe: FittedRecipe) -> Iterator[FittedRecipe]:
    """Yield the recipes that a candidate may have: the run's, and those of LINEAR, THETA and Prophet."""
    yield recipe
    features = read_claimed_features(store, data.claim())
    yield measured_only(recipe, features)[0]
    yield targets_only(recipe, features)[0]
    yield forecast_or_known(recipe, features)[0]


def _stored_baseline(
    store: ObjectStore, data: TrainingData, event: ModelTraining | None, train: TrainingSet, horizon: int
) -> Candidate | None:
    if event is None or event.bundle is None:
        return None
    own, _ = targets_only(train.recipe, train.features)
    candidate = reaching(_load(store, data, event, event.bundle, (train.recipe, own)), horizon)
    if candidate.forecaster is not None:
        return candidate
    log.warning("baseline_refused", model_type=event.model_type, reason=candidate.reasons[0].as_text())
    return None


def _made_baseline(
    store: ObjectStore,
    data: TrainingData,
    model_type: str,
    train: TrainingSet,
    settings: EvalSettings,
    *,
    horizon: int,
    alive: Callable[[], None],
) -> Candidate:
    # Imported here, because importing onnx takes 0.1 s and this function is rarely called: usually the baselines'
    # trainer has already made the bundles.
    from flts.training.baselines import baseline_identity, make_baseline  # noqa: PLC0415 - see above

    log.info("baseline_made", model_type=model_type)
    began = time.perf_counter()
    identity = baseline_identity(data, model_type, settings)
    bundle, model_bytes = make_baseline(train, identity, settings, horizon=horizon, threads=1, alive=alive)
    claim = store_bundle(store, settings.bucket_model_bundles, bundle, model_bytes)
    done = Announcement(
        model_type=model_type,
        run_id=derived_run_id(data.event_id, model_type),
        mlflow_run_id=None,
        bundle=claim,
        duration_seconds=time.perf_counter() - began,
    )
    return Candidate(model_type, model_training(data, done), forecaster=Forecaster(BundleModel(bundle, model_bytes)))


def _reaching_baseline(baseline: Candidate, horizon: int) -> Candidate:
    checked = reaching(baseline, horizon)
    if checked.forecaster is None:
        raise RejectedError(checked.reasons[0].message)
    return checked


def _load(
    store: ObjectStore, data: TrainingData, event: ModelTraining, claim: ClaimCheck, recipes: Iterable[FittedRecipe]
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
    if bundle.recipe not in recipes:
        return candidate.refused(Reason("other_recipe", "its bundle's recipe is not this run's"))
    cost = (int(bundle.reads_values), bundle.model_size)
    return replace(candidate, forecaster=forecaster, serving_cost=cost)
