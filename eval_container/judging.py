"""Judge a run: score candidates, baselines and champion on the same held-out rows, and choose the decision."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from eval_container.candidates import load_baselines, load_candidates, load_champion, reaching
from eval_container.domain import scoring
from eval_container.domain.gate import GateRules, Reason, advantage, skill_reasons
from eval_container.domain.promotion import Candidate, Champion, Choice, choose
from eval_container.domain.scoreboard import build_scoreboard
from eval_container.domain.scoring import Contender, HeldOut, Scorecard
from eval_container.settings import EvalSettings
from flts.bundle.forecaster import Forecaster
from flts.contracts.events import ModelTraining, TrainingData
from flts.errors import RejectedError, RetryableError
from flts.forecasting.recipe import FittedRecipe, observed_targets, raw_rows
from flts.forecasting.scores import naive_errors
from flts.forecasting.seasons import season_steps
from flts.forecasting.series import FloatArray, IntArray, Series, segment_starts
from flts.forecasting.splits import tails
from flts.forecasting.windows import target_rows
from flts.observability.logs import get_logger
from flts.service import Progress
from flts.storage.claimed_frames import read_claimed_features, read_claimed_series
from flts.storage.claims import read_claimed
from flts.storage.ports import ObjectStore
from flts.training.fitting import TrainingSet

log = get_logger(__name__)

STAGE = "eval"
LEAST_SHARED_ORIGINS = 0.5
"""Share of the candidates' origins; a champion that can forecast fewer of them is not compared."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The result of judging a run."""

    choice: Choice
    scoreboard: dict[str, Any]
    card: Scorecard | None = None
    """Scores of the model that is promoted or kept; None where nothing was scored."""


def judge(
    store: ObjectStore,
    data: TrainingData,
    settings: EvalSettings,
    *,
    expected: tuple[str, ...],
    trained: Mapping[str, ModelTraining],
    missing: Mapping[str, Reason],
    pointer: Mapping[str, Any] | None,
    progress: Progress,
) -> Judgement:
    """Score every expected model type of a run, and choose the decision.

    Parameters
    ----------
    settings : EvalSettings
        With the run's overrides.
    trained : mapping
        The final event of each type that sent one, baselines among them.
    missing : mapping
        For each type without a final event, the reason why eval no longer waits for it.
    pointer : mapping, optional
        The champion pointer.

    Raises
    ------
    RejectedError
        If the run's own objects do not match their claim checks.
    """
    began = time.perf_counter()
    recipe = FittedRecipe.from_dict(json.loads(read_claimed(store, data.meta))["recipe"])
    candidates = load_candidates(store, data, expected=expected, trained=trained, missing=missing, recipe=recipe)
    champion = None if pointer is None else Champion(pointer)
    evaluation = _Evaluation(store, data, settings, recipe, progress=progress, began=began)
    if not any(candidate.forecaster for candidate in candidates):
        return evaluation.refuse(candidates)
    if not recipe.varying_targets:
        return evaluation.judge_constants(candidates, champion)
    return evaluation.judge(candidates, champion, trained)


class _Evaluation:
    """The data, the recipe and the rules of one run."""

    def __init__(
        self,
        store: ObjectStore,
        data: TrainingData,
        settings: EvalSettings,
        recipe: FittedRecipe,
        *,
        progress: Progress,
        began: float,
    ) -> None:
        self._store = store
        self._data = data
        self._settings = settings
        self._recipe = recipe
        self._progress = progress
        self._began = began
        self._rules = GateRules(settings.gate_min_skill, settings.gate_significance, settings.gate_against_champion)
        self._steps = settings.horizons(settings.pass_steps)

    def refuse(self, candidates: Sequence[Candidate]) -> Judgement:
        """Return the judgement of a run without a model that can be scored."""
        return self._unscored(choose(candidates, None, self._rules), candidates)

    def judge_constants(self, candidates: Sequence[Candidate], champion: Champion | None) -> Judgement:
        """Choose the cheapest bundle of a data set in which no target varies, so that no model can be scored."""
        able = [one for one in candidates if one.forecaster]
        best = min(able, key=lambda one: (one.serving_cost, one.model_type))
        reasons = [Reason("all_constant", "no target ever changes: the constants are answered")]
        same = champion is not None and champion.bundle_sha256 == best.bundle_sha256
        if same:
            reasons.append(Reason("same_bundle", f"{best.model_type} is the champion already"))
        choice = Choice("kept" if same else "promoted", best.model_type, tuple(reasons))
        return self._unscored(choice, candidates)

    def judge(
        self, candidates: Sequence[Candidate], champion: Champion | None, trained: Mapping[str, ModelTraining]
    ) -> Judgement:
        """Score candidates, baselines and champion on the same origins."""
        test = read_claimed_series(self._store, self._data.raw_test)
        test_rows = len(test) - self._data.raw_test_context_rows
        self._progress(STAGE, "running", detail=f"{test_rows} test rows")
        candidates = [reaching(one, max(self._steps)) for one in candidates]
        usable = self._usable(test, candidates)
        champion, usable = self._load_champion(champion, candidates, test, usable)
        train = self._training_set()
        held_out = self._held_out(test, train, usable)
        if len(held_out.scored.origins) == 0:
            least = max((one.forecaster.rows_required for one in candidates if one.forecaster), default=1)
            reason = Reason(
                "no_test_rows",
                f"none of the {test_rows} test rows has {least} rows before it and {max(self._steps)} from it on",
            )
            return self.refuse([one.refused(reason) if one.forecaster else one for one in candidates])
        baselines, notes = self._baselines(test, train, held_out, trained)
        del train
        candidates = [self._score(one, test, held_out) for one in candidates]
        champion = self._score_champion(champion, candidates, test, held_out)
        scored = sum(one.card is not None for one in candidates)
        persistence = baselines[0].card
        assert persistence is not None
        candidates = [self._gate(one, persistence, scored) for one in candidates]
        choice = choose(candidates, champion, self._rules)
        board = build_scoreboard(
            self._data,
            choice,
            candidates,
            baselines=baselines,
            champion=champion,
            held_out=held_out,
            weights=held_out.weights,
            test_rows=test_rows,
            seconds=time.perf_counter() - self._began,
            notes=notes,
        )
        winner = next((one for one in candidates if one.model_type == choice.winner), None)
        named = champion if choice.decision == "kept" else winner
        return Judgement(choice, board, None if named is None else named.card)

    def _unscored(self, choice: Choice, candidates: Sequence[Candidate]) -> Judgement:
        weights, seconds = self._settings.weights(), time.perf_counter() - self._began
        return Judgement(choice, build_scoreboard(self._data, choice, candidates, weights=weights, seconds=seconds))

    def _usable(self, test: Series, candidates: Sequence[Candidate]) -> IntArray:
        """Return the rows from which every candidate and Ridge can forecast."""
        first = self._data.raw_test_context_rows
        usable = target_rows(
            test.segments(),
            context_rows=self._settings.window_rows + self._recipe.warmup_rows,
            first_row=first,
            last_row=len(test),
        )
        for candidate in candidates:
            if candidate.forecaster is not None:
                usable = np.intersect1d(usable, candidate.forecaster.valid_origins(test, first), assume_unique=True)
        return usable

    def _load_champion(
        self, champion: Champion | None, candidates: Sequence[Candidate], test: Series, usable: IntArray
    ) -> tuple[Champion | None, IntArray]:
        """Return the champion, loaded if it can be compared, and the usable rows from which it can forecast too."""
        if champion is None or not self._rules.against_champion:
            return champion, usable
        if any(one.forecaster and one.bundle_sha256 == champion.bundle_sha256 for one in candidates):
            return champion, usable
        champion = load_champion(self._store, champion, test, self._recipe.varying_targets, max(self._steps))
        if champion.forecaster is None:
            return champion, usable
        first = self._data.raw_test_context_rows
        shared = np.intersect1d(usable, champion.forecaster.valid_origins(test, first), assume_unique=True)
        if len(shared) < LEAST_SHARED_ORIGINS * len(usable):
            few = f"the champion can forecast {len(shared)} of the {len(usable)} test rows that the candidates can"
            return champion.refused(Reason("champion_needs_more_rows", few)), usable
        return champion, shared

    def _training_set(self) -> TrainingSet:
        features = read_claimed_features(self._store, self._data.claim())
        settings = self._settings
        shares = tails(len(features), stop_tail=settings.stop_tail, calibration_tail=settings.calibration_tail)
        return TrainingSet(features, self._recipe, shares)

    def _held_out(self, test: Series, train: TrainingSet, usable: IntArray) -> HeldOut:
        features = train.features
        targets = self._recipe.varying_targets
        scored, informative = scoring.plan_passes(
            usable,
            test.segments(),
            first_row=self._data.raw_test_context_rows,
            scored_steps=self._steps,
            targets=len(targets),
            season_steps=season_steps(features.grid, len(features)),
        )
        actual = test.select(targets).values
        return HeldOut(
            actual=np.where(np.isfinite(actual), actual, np.nan),
            targets=targets,
            scale=self._recipe.scales_of_targets,
            naive_error=naive_errors(observed_targets(self._recipe, features), features.segments()),
            weights=self._settings.weights(),
            scored=scored,
            informative=informative,
        )

    def _baselines(
        self, test: Series, train: TrainingSet, held_out: HeldOut, trained: Mapping[str, ModelTraining]
    ) -> tuple[list[Candidate], list[str]]:
        """Return the scored baselines, persistence first, and notes on those that are left out."""
        alive = partial(self._progress, STAGE, "running", detail="fitting the baselines")
        loaded, notes = load_baselines(
            self._store, self._data, trained, train, self._settings, horizon=max(self._steps), alive=alive
        )
        history = raw_rows(self._recipe, train.features)
        context = self._settings.window_rows + self._recipe.warmup_rows
        persistence: Contender | None = None
        scored = []
        for one in loaded:
            forecaster = one.forecaster
            assert forecaster is not None
            if persistence is None or forecaster.rows_required <= context:
                contender = _contender(forecaster, test, held_out.targets)
            else:
                contender = _with_history(forecaster, test, history, held_out.targets, persistence)
            persistence = persistence or contender
            scored.append(replace(one, card=scoring.score(contender, held_out)))
        return scored, notes

    def _score(self, candidate: Candidate, test: Series, held_out: HeldOut) -> Candidate:
        if candidate.forecaster is None:
            return candidate
        self._progress(STAGE, "running", detail=f"scoring {candidate.model_type}")
        try:
            return replace(candidate, card=_card(candidate.forecaster, test, held_out))
        except RetryableError:
            raise
        except Exception as error:  # noqa: BLE001 - a hostile or broken model must not fail the run
            log.warning("candidate_not_scored", model_type=candidate.model_type, error=error)
            return candidate.refused(Reason("not_scored", f"its model failed on the test rows: {error}"[:500]))

    def _score_champion(
        self, champion: Champion | None, candidates: Sequence[Candidate], test: Series, held_out: HeldOut
    ) -> Champion | None:
        if champion is None or not self._rules.against_champion:
            return champion
        if champion.forecaster is None:
            same = (one.card for one in candidates if one.bundle_sha256 == champion.bundle_sha256)
            return replace(champion, card=next(same, None))
        self._progress(STAGE, "running", detail="scoring the champion")
        try:
            return replace(champion, card=_card(champion.forecaster, test, held_out))
        except RejectedError as error:
            return champion.refused(Reason("champion_not_scored", error.message))

    def _gate(self, candidate: Candidate, persistence: Scorecard, scored: int) -> Candidate:
        """Return a scored candidate with the gate's test, and with the reasons why it does not pass."""
        card = candidate.card
        if card is None:
            return candidate
        over_persistence = None
        if math.isfinite(card.score):
            asked = 1.0 - max(self._rules.min_skill, 0.0)
            over_persistence = advantage(card.losses, asked * persistence.losses, horizon_steps=max(self._steps))
        reasons = skill_reasons(card.score, persistence.score, over_persistence, rules=self._rules, candidates=scored)
        return replace(candidate, advantage=over_persistence, reasons=(*candidate.reasons, *reasons))


def _card(forecaster: Forecaster, test: Series, held_out: HeldOut) -> Scorecard:
    return scoring.score(_contender(forecaster, test, held_out.targets), held_out)


def _contender(forecaster: Forecaster, test: Series, targets: tuple[str, ...]) -> Contender:
    chosen = [forecaster.bundle.targets.index(target) for target in targets]
    varying = forecaster.recipe.varying_targets
    intervals = forecaster.bundle.intervals
    if intervals is not None:
        intervals = intervals.select([varying.index(target) for target in targets])

    def forecast(origins: IntArray, horizon: int) -> FloatArray:
        return forecaster.forecast_origins(test, origins, horizon)[..., chosen]

    limits = forecaster.limits
    if limits is not None:
        limits = limits[0][chosen], limits[1][chosen]
    return Contender(forecast, max_horizon=forecaster.max_horizon, intervals=intervals, limits=limits)


def _with_history(
    forecaster: Forecaster, test: Series, history: Series, targets: tuple[str, ...], otherwise: Contender
) -> Contender:
    """Return a contender whose window is longer than the test's context; training rows are put before the test.

    At an origin without a whole window before it in its segment, the contender ``otherwise`` forecasts.
    """
    required = forecaster.rows_required
    before = int(np.searchsorted(history.times, test.times[0]))
    skipped = min(required, before)
    series = history.rows(before - skipped, before).select(forecaster.recipe.columns).concat(test)
    whole = _contender(forecaster, series, targets)
    starts = segment_starts(series.times, series.grid)

    def forecast(origins: IntArray, horizon: int) -> FloatArray:
        answer = otherwise.forecast(origins, horizon)
        at = origins + skipped
        known = at - starts[at - 1] >= required
        answer[known] = whole.forecast(at[known], horizon)
        return answer

    return replace(whole, forecast=forecast)
