"""Judge a run: score candidates, baselines and champion on the same held-out rows, and choose the decision."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from eval_container.candidates import PERSISTENCE, load_baselines, load_candidates, load_champion, reaching
from eval_container.combining import combination
from eval_container.contenders import card_by, contender_of, with_history
from eval_container.domain import scoring
from eval_container.domain.folds import fold_contests
from eval_container.domain.gate import Contest, GateRules, Reason, cut_pieces, unseen
from eval_container.domain.gate import judge as gate
from eval_container.domain.promotion import LEAST_COMPARED_ROWS, Candidate, Champion, Choice, choose
from eval_container.domain.scoreboard import build_scoreboard
from eval_container.domain.scoring import Contender, HeldOut, Measured, Scorecard, card_of, measure_contender
from eval_container.domain.step_scores import best_baseline, scoreboard_blocks, step_divisors
from eval_container.settings import EvalSettings
from flts.contracts.events import ModelTraining, TrainingData
from flts.errors import RejectedError, RetryableError
from flts.forecasting.folds import ClosedForm, expanding_folds
from flts.forecasting.linear.folds import LINEAR_FORM
from flts.forecasting.recipe import FittedRecipe, observed_targets, raw_rows
from flts.forecasting.scores import naive_errors
from flts.forecasting.season_tests import table_seasons
from flts.forecasting.series import FloatArray, IntArray, Series
from flts.forecasting.theta.folds import THETA_FORM
from flts.forecasting.windows import target_rows
from flts.observability.logs import get_logger
from flts.service import Progress
from flts.storage.claimed_frames import read_claimed_features, read_claimed_series
from flts.storage.claims import read_claimed
from flts.storage.ports import ObjectStore
from flts.trainers import BASELINES, NETWORKS
from flts.training.dataset import training_set
from flts.training.fitting import TrainingSet

log = get_logger(__name__)

STAGE = "eval"
LEAST_SHARED_ORIGINS = 0.5
"""Share of the origins; a candidate or champion that can forecast from fewer of them is not compared."""
REPLACED_BY_LINEAR = "RIDGE"
"""Baseline that leaves the scoreboard where LINEAR is on it, because LINEAR is the same model over the horizon."""
FOLDED: Mapping[str, ClosedForm] = {"LINEAR": LINEAR_FORM, "THETA": THETA_FORM}
"""Model types that eval can solve again on folds of the training rows."""
BEST = tuple(name for name in BASELINES if name != REPLACED_BY_LINEAR)
"""Baselines one of which is the best baseline."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The result of judging a run."""

    choice: Choice
    scoreboard: dict[str, Any]
    card: Scorecard | None = None
    """Scores of the model that is promoted or kept; None where nothing was scored."""
    winner: Candidate | None = None
    """The candidate or baseline of the choice."""
    horizon_steps: int | None = None
    """Steps at which models were judged."""
    made: tuple[ModelTraining, ...] = ()
    """Events of the candidates that eval made itself, in place of a trainer's."""


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
    if not recipe.varying_targets:
        if any(candidate.forecaster for candidate in candidates):
            return evaluation.judge_constants(candidates, champion)
        return evaluation.refuse(candidates)
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
        self._rules = GateRules(
            min_gain=settings.gate_min_skill,
            significance=settings.gate_significance,
            against_champion=settings.gate_against_champion,
        )
        self._steps = settings.scored_steps(data.horizon_steps or settings.pass_steps)

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
        train = self._training_set()
        candidates = [*candidates, *self._combined(candidates, train)]
        baselines, notes = self._load_baselines(train, trained)
        candidates, usable = self._usable(test, [reaching(one, max(self._steps)) for one in candidates])
        champion, usable = self._load_champion(champion, candidates, test, usable)
        held_out = self._held_out(test, train, usable, _passes([*candidates, champion], max(self._steps)))
        if len(held_out.scored.origins) == 0:
            reason = Reason(
                "no_test_rows",
                f"none of the {test_rows} test rows has a row before it and {max(self._steps)} rows from it on",
            )
            return self.refuse([one.refused(reason) if one.forecaster else one for one in candidates])
        measured = self._measure_baselines(baselines, test, train, held_out)
        rows = len(train.features) + test_rows
        compared = BEST if rows >= LEAST_COMPARED_ROWS else (PERSISTENCE,)
        best = best_baseline({name: one.steps for name, one in measured.items() if name in compared})
        if best is None:
            return self.refuse(candidates)
        divisors = step_divisors(measured[best].steps, self._deviations(train))
        del train
        baselines = [replace(one, card=card_of(measured[one.model_type], divisors, held_out)) for one in baselines]
        candidates = [self._score(one, test, held_out, divisors) for one in candidates]
        champion = self._score_champion(champion, candidates, test, held_out, divisors)
        losses = {one.model_type: one.card.losses for one in baselines if one.card and one.model_type in BEST}
        folds = self._folds(candidates, baselines, best, divisors, held_out)
        candidates = self._gate(candidates, losses, best, held_out.scored.origins, folds)
        served = next((one for one in baselines if one.model_type == best and one.event is not None), None)
        choice = choose(candidates, champion, self._rules, best=served, rows=rows, origins=held_out.scored.origins)
        if any(one.model_type == "LINEAR" and one.card for one in candidates):
            baselines = [one for one in baselines if one.model_type != REPLACED_BY_LINEAR]
        board = build_scoreboard(
            self._data,
            choice,
            candidates,
            baselines=baselines,
            best=best,
            champion=champion,
            held_out=held_out,
            weights=held_out.weights,
            test_rows=test_rows,
            seconds=time.perf_counter() - self._began,
            notes=notes,
        )
        winner = next((one for one in (*candidates, *baselines) if one.model_type == choice.winner), None)
        named = champion if choice.decision == "kept" else winner
        card = None if named is None else named.card
        made = tuple(one.event for one in candidates if one.members and one.event is not None)
        return Judgement(choice, board, card, winner, max(self._steps), made)

    def _unscored(self, choice: Choice, candidates: Sequence[Candidate]) -> Judgement:
        weights, seconds = self._settings.weights(), time.perf_counter() - self._began
        board = build_scoreboard(self._data, choice, candidates, weights=weights, seconds=seconds)
        winner = next((one for one in candidates if one.model_type == choice.winner), None)
        return Judgement(choice, board, winner=winner, horizon_steps=max(self._steps))

    def _usable(self, test: Series, candidates: Sequence[Candidate]) -> tuple[list[Candidate], IntArray]:
        """Return the candidates, and the rows from which each of them and Ridge can forecast the horizon.

        A candidate that can forecast from few rows is refused, because the others would be scored on these few rows. If
        no row has Ridge's window before it, rows with one row before them are used, so that a baseline can be served.
        """
        first, segments = self._data.raw_test_context_rows, test.segments()
        window = self._settings.window_rows + self._recipe.warmup_rows
        for context in (window, 1):
            rows = target_rows(segments, context_rows=context, first_row=first, last_row=len(test))
            usable = scoring.origins_for(rows, segments, first_row=first, horizon=max(self._steps))
            if len(usable):
                break
        every, checked = len(usable), []
        for candidate in candidates:
            if candidate.forecaster is not None:
                shared = np.intersect1d(usable, candidate.forecaster.valid_origins(test, first), assume_unique=True)
                if len(shared) < LEAST_SHARED_ORIGINS * every:
                    needed = candidate.forecaster.rows_required
                    few = f"it needs {needed} rows, which {len(shared)} of {every} origins have"
                    checked.append(candidate.refused(Reason("needs_more_rows", few)))
                    continue
                usable = shared
            checked.append(candidate)
        return checked, usable

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
            few = f"the champion can forecast from {len(shared)} of the {len(usable)} origins that the candidates can"
            return champion.refused(Reason("champion_needs_more_rows", few)), usable
        return champion, shared

    def _training_set(self) -> TrainingSet:
        features = read_claimed_features(self._store, self._data.claim())
        return training_set(features, self._recipe, self._settings)

    def _held_out(self, test: Series, train: TrainingSet, usable: IntArray, passes: int) -> HeldOut:
        features, fit_stop = train.features, train.tails.fit_stop
        observed = observed_targets(self._recipe, features)
        seasons = table_seasons(observed[:fit_stop], features.times[:fit_stop], features.grid)
        targets = self._recipe.varying_targets
        scored, informative = scoring.plan_passes(
            usable,
            test.segments(),
            first_row=self._data.raw_test_context_rows,
            scored_steps=self._steps,
            targets=len(targets),
            season_steps=next(iter(seasons), None),
            passes=passes,
        )
        actual = test.select(targets).values
        return HeldOut(
            values=np.where(np.isfinite(actual), actual, np.nan),
            targets=targets,
            scale=self._recipe.scales_of_targets,
            naive_error=naive_errors(observed, features.segments()),
            weights=self._settings.weights(),
            scored=scored,
            informative=informative,
            seasons=seasons,
            blocks=scoreboard_blocks(max(self._steps), seasons),
        )

    def _combined(self, candidates: Sequence[Candidate], train: TrainingSet) -> list[Candidate]:
        """Return the combination of the candidates, if there is one."""
        alive = partial(self._progress, STAGE, "running", detail="combining the candidates")
        made = combination(
            self._store, self._data, candidates, train, self._settings, horizon=max(self._steps), alive=alive
        )
        return [] if made is None else [made]

    def _deviations(self, train: TrainingSet) -> FloatArray:
        """Return the standard deviation of each target in the training rows, scaled, (m,)."""
        deviations: FloatArray = np.nanstd(observed_targets(self._recipe, train.features), axis=0)
        return deviations / self._recipe.scales_of_targets

    def _load_baselines(
        self, train: TrainingSet, trained: Mapping[str, ModelTraining]
    ) -> tuple[list[Candidate], list[str]]:
        """Return the baselines, persistence first, and notes on those that are left out."""
        alive = partial(self._progress, STAGE, "running", detail="fitting the baselines")
        return load_baselines(
            self._store, self._data, trained, train, self._settings, horizon=max(self._steps), alive=alive
        )

    def _measure_baselines(
        self, baselines: Sequence[Candidate], test: Series, train: TrainingSet, held_out: HeldOut
    ) -> dict[str, Measured]:
        """Return the errors of the baselines by model type."""
        history = raw_rows(self._recipe, train.features)
        persistence: Contender | None = None
        measured = {}
        for one in baselines:
            forecaster = one.forecaster
            assert forecaster is not None
            if persistence is None or forecaster.rows_required <= 1:
                contender = contender_of(forecaster, test, held_out.targets)
            else:
                contender = with_history(forecaster, test, history, held_out.targets, persistence)
            persistence = persistence or contender
            measured[one.model_type] = measure_contender(contender, held_out)
        return measured

    def _score(self, candidate: Candidate, test: Series, held_out: HeldOut, divisors: FloatArray) -> Candidate:
        if candidate.forecaster is None:
            return candidate
        self._progress(STAGE, "running", detail=f"scoring {candidate.model_type}")
        try:
            return replace(candidate, card=card_by(candidate.forecaster, test, held_out, divisors))
        except RetryableError:
            raise
        except Exception as error:  # noqa: BLE001 - a hostile or broken model must not fail the run
            log.warning("candidate_not_scored", model_type=candidate.model_type, error=error)
            return candidate.refused(Reason("not_scored", f"its model failed on the test rows: {error}"[:500]))

    def _score_champion(
        self,
        champion: Champion | None,
        candidates: Sequence[Candidate],
        test: Series,
        held_out: HeldOut,
        divisors: FloatArray,
    ) -> Champion | None:
        if champion is None or not self._rules.against_champion:
            return champion
        if champion.forecaster is None:
            same = (one.card for one in candidates if one.bundle_sha256 == champion.bundle_sha256)
            return replace(champion, card=next(same, None))
        self._progress(STAGE, "running", detail="scoring the champion")
        fitted_until = champion.forecaster.bundle.fitted_until
        later = None if fitted_until is None else unseen(test.times[held_out.scored.origins], fitted_until)
        try:
            return replace(champion, card=card_by(champion.forecaster, test, held_out, divisors), unseen=later)
        except RejectedError as error:
            return champion.refused(Reason("champion_not_scored", error.message))

    def _folds(
        self,
        candidates: Sequence[Candidate],
        baselines: Sequence[Candidate],
        best: str,
        divisors: FloatArray,
        held_out: HeldOut,
    ) -> Mapping[str, list[Contest]]:
        """Return the folds of the closed forms by their model types; nothing where folds cannot change the result."""
        able = [one.model_type for one in candidates if one.model_type in FOLDED and one.card and one.card.score < 1]
        pieces = cut_pieces(held_out.scored.origins, max(self._steps), least_pieces=self._rules.least_pieces)
        if len(pieces.bounds) >= self._rules.least_pieces or not able or self._rules.min_gain < 0:
            return {}
        train = self._training_set()
        seasonal = next((one.forecaster for one in baselines if one.model_type == "SEASONAL_NAIVE"), None)
        found = {}
        for model_type in able:
            folds = expanding_folds(
                FOLDED[model_type],
                train.recipe,
                train.features,
                horizon=max(self._steps),
                shares=(self._settings.stop_tail, self._settings.calibration_tail),
                season=None if seasonal is None else seasonal.bundle.input_seq_len,
                most=scoring.most_origins(max(self._steps), len(held_out.targets)),
                alive=partial(
                    self._progress, STAGE, "running", detail=f"fitting {model_type} on folds of the training rows"
                ),
                limit_rules=self._settings.limit_rules,
            )
            found[model_type] = fold_contests(folds, best, divisors, held_out)
        return found

    def _gate(
        self,
        candidates: Sequence[Candidate],
        baselines: Mapping[str, FloatArray],
        best: str,
        origins: IntArray,
        folds: Mapping[str, Sequence[Contest]],
    ) -> list[Candidate]:
        """Return the candidates with the gate's verdicts, and with the reasons why they do not pass."""
        scored = sum(one.card is not None for one in candidates)
        judged = []
        for one in candidates:
            if one.card is not None:
                verdict = gate(
                    Contest(one.card.losses, baselines, origins),
                    best,
                    closed_form=not {one.model_type, *one.members} & set(NETWORKS),
                    candidates=scored,
                    rules=self._rules,
                    folds=folds.get(one.model_type, ()),
                )
                one = replace(one, verdict=verdict, reasons=(*one.reasons, *verdict.reasons))  # noqa: PLW2901
            judged.append(one)
        return judged


def _passes(contenders: Sequence[Candidate | Champion | None], horizon: int) -> int:
    """Return the most passes in which a contender forecasts the horizon."""
    forecasters = [one.forecaster for one in contenders if one is not None and one.forecaster is not None]
    return max((-(-horizon // one.bundle.output_seq_len) for one in forecasters if one.inputs is not None), default=1)
