"""Judge a run: everybody forecasts the same held-out rows, and the gate says who may be promoted."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from eval_container.candidates import Candidate, load_candidates, load_champion
from eval_container.domain import references, scoring
from eval_container.domain.gate import Advantage, GateRules, Reason, advantage, skill_reasons
from eval_container.domain.promotion import Champion, Choice, Standing, choose
from eval_container.domain.scoreboard import CandidateRow, ChampionRow, build_scoreboard
from eval_container.domain.scoring import Contender, HeldOut, Scorecard
from eval_container.settings import EvalSettings
from flts.bundle.forecaster import Forecaster
from flts.contracts.events import ModelTraining, TrainingData
from flts.errors import RejectedError, RetryableError
from flts.forecasting.recipe import Features, FittedRecipe
from flts.forecasting.references import season_steps
from flts.forecasting.scores import naive_errors
from flts.forecasting.series import FloatArray, IntArray, Series
from flts.forecasting.windows import target_rows
from flts.observability.logs import get_logger
from flts.runtime.service import Progress
from flts.storage.claimed_frames import read_claimed_features, read_claimed_series
from flts.storage.claims import read_claimed
from flts.storage.ports import ObjectStore

log = get_logger(__name__)

STAGE = "eval"
LEAST_SHARED_ORIGINS = 0.5
"""A champion that needs so much history that a smaller share of the candidates' origins remains is not compared."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What judging found, ready to be written down."""

    choice: Choice
    scoreboard: dict[str, Any]
    cards: Mapping[str, Scorecard] = field(default_factory=dict)
    """By model type."""
    champion_card: Scorecard | None = None


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
    """Score every expected type of a run and choose.

    Parameters
    ----------
    settings : EvalSettings
        With the run's overrides.
    trained : mapping
        The final event of each type that sent one.
    missing : mapping
        Why each other type is not waited for.
    pointer : mapping, optional
        The current champion's pointer.

    Raises
    ------
    RejectedError
        If the run's own data are not what its claims promise.
    """
    began = time.perf_counter()
    recipe = FittedRecipe.from_dict(json.loads(read_claimed(store, data.meta))["recipe"])
    candidates = load_candidates(store, data, expected=expected, trained=trained, missing=missing, recipe=recipe)
    court = _Court(store, data, settings, recipe, progress=progress, began=began)
    if not any(candidate.forecaster for candidate in candidates):
        return court.refuse(candidates)
    if not recipe.varying_targets:
        return court.judge_constants(candidates, pointer)
    return court.judge(candidates, pointer)


class _Court:
    """One run's rows, and everybody who forecasts them."""

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
        self._steps = settings.horizons(settings.output_seq_len)

    def refuse(self, candidates: Sequence[Candidate]) -> Judgement:
        """Decide a run in which there is nothing to score."""
        choice = choose([_standing(one, None, ()) for one in candidates], None, self._rules)
        return Judgement(choice, self._board(choice, candidates))

    def judge_constants(self, candidates: Sequence[Candidate], pointer: Mapping[str, Any] | None) -> Judgement:
        """Promote the cheapest bundle of a data set in which nothing varies: there is nothing to score."""
        able = [one for one in candidates if one.forecaster]
        best = min(able, key=lambda one: (one.serving_cost(), one.model_type))
        reasons = [Reason("all_constant", "no target ever changes: the constants are answered")]
        same = pointer is not None and pointer["bundle"]["sha256"] == _sha256(best)
        if same:
            reasons.append(Reason("same_bundle", f"{best.model_type} is the champion already"))
        choice = Choice("kept" if same else "promoted", best.model_type, tuple(reasons))
        return Judgement(choice, self._board(choice, candidates))

    def judge(self, candidates: Sequence[Candidate], pointer: Mapping[str, Any] | None) -> Judgement:
        """Score everybody on the same origins."""
        test = read_claimed_series(self._store, self._data.raw_test)
        test_rows = len(test) - self._data.raw_test_context_rows
        self._progress(STAGE, "running", detail=f"{test_rows} test rows")
        candidates = [self._reaches(one) for one in candidates]
        usable = self._usable(test, [one.forecaster for one in candidates if one.forecaster])
        champion = _ChampionSeat(pointer)
        if pointer is not None and self._rules.against_champion:
            usable = self._seat_champion(champion, candidates, test, usable)
        train = read_claimed_features(self._store, self._data.claim())
        held_out = self._held_out(test, train, usable)
        if len(held_out.scored.origins) == 0:
            least = max((one.forecaster.rows_required for one in candidates if one.forecaster), default=1)
            reason = Reason(
                "no_test_rows",
                f"none of the {test_rows} test rows has {least} rows before it and {max(self._steps)} from it on",
            )
            return self.refuse([one.refused(reason) if one.forecaster else one for one in candidates])
        baselines, notes = self._references(test, train, held_out)
        del train
        cards: dict[str, Scorecard] = {}
        tests: dict[str, Advantage] = {}
        judged = [self._score(one, test, held_out, cards) for one in candidates]
        champion_card = self._score_champion(champion, test, held_out, cards)
        able = sum(one.forecaster is not None for one in judged)
        judged = [self._gate(one, cards, baselines[0], tests, able) for one in judged]
        standings = [_standing(one, cards.get(one.model_type), one.reasons) for one in judged]
        choice = choose(standings, champion.defender(champion_card), self._rules)
        board = self._board(
            choice,
            judged,
            cards=cards,
            tests=tests,
            references=baselines,
            champion=None if pointer is None else ChampionRow(pointer, champion_card, champion.why_not),
            held_out=held_out,
            test_rows=test_rows,
            notes=notes,
        )
        return Judgement(choice, board, cards, champion_card)

    def _reaches(self, candidate: Candidate) -> Candidate:
        forecaster, horizon = candidate.forecaster, max(self._steps)
        if forecaster is None or forecaster.max_horizon is None or forecaster.max_horizon >= horizon:
            return candidate
        reason = Reason("horizon_too_short", f"it forecasts {forecaster.max_horizon} of the {horizon} scored steps")
        return candidate.refused(reason)

    def _usable(self, test: Series, forecasters: Iterable[Forecaster]) -> IntArray:
        """Return the rows that every candidate, and Ridge, can forecast from."""
        first = self._data.raw_test_context_rows
        usable = target_rows(
            test.segments(),
            context_rows=self._settings.input_seq_len + self._recipe.warmup_rows,
            first_row=first,
            last_row=len(test),
        )
        for forecaster in forecasters:
            usable = np.intersect1d(usable, forecaster.valid_origins(test, first), assume_unique=True)
        return usable

    def _seat_champion(
        self, champion: _ChampionSeat, candidates: Sequence[Candidate], test: Series, usable: IntArray
    ) -> IntArray:
        """Load the champion and return the rows that it can forecast too; or note why it is not compared."""
        champion.candidate = next((one for one in candidates if one.forecaster and champion.is_bundle_of(one)), None)
        if champion.candidate is not None:
            return usable
        forecaster, champion.why_not = load_champion(
            self._store, champion.required_pointer(), test, self._recipe.varying_targets, max(self._steps)
        )
        if forecaster is None:
            return usable
        shared = np.intersect1d(
            usable, forecaster.valid_origins(test, self._data.raw_test_context_rows), assume_unique=True
        )
        if len(shared) < LEAST_SHARED_ORIGINS * len(usable):
            champion.why_not = Reason(
                "champion_needs_more_rows",
                f"the champion can forecast {len(shared)} of the {len(usable)} test rows that the candidates can",
            )
            return usable
        champion.forecaster = forecaster
        return shared

    def _held_out(self, test: Series, train: Features, usable: IntArray) -> HeldOut:
        targets = self._recipe.varying_targets
        scored, informative = scoring.plan_passes(
            usable,
            test.segments(),
            first_row=self._data.raw_test_context_rows,
            scored_steps=self._steps,
            targets=len(targets),
            season_steps=season_steps(self._data.step_seconds, len(train)),
        )
        actual = test.select(targets).values
        return HeldOut(
            actual=np.where(np.isfinite(actual), actual, np.nan),
            targets=targets,
            scale=self._recipe.scales_of_targets,
            naive_error=naive_errors(references.observed_train_targets(self._recipe, train), train.segments()),
            weights=self._settings.weights(),
            scored=scored,
            informative=informative,
        )

    def _references(self, test: Series, train: Features, held_out: HeldOut) -> tuple[list[Scorecard], list[str]]:
        """Return the reference rows, persistence first, and notes on those that are left out."""
        settings = self._settings
        shape = references.WindowShape(
            settings.input_seq_len, settings.output_seq_len, settings.stop_tail, settings.calibration_tail
        )
        notes = []
        contenders = [references.persistence_contender(self._recipe, test)]
        season = season_steps(self._data.step_seconds, len(train))
        if season is None:
            notes.append("no seasonal-naive row: the training rows do not hold two days or two weeks")
        else:
            contenders.append(references.seasonal_contender(self._recipe, test, train, season))
        ridge = references.ridge_contender(self._recipe, test, train, shape)
        if ridge is None or (ridge.max_horizon is not None and ridge.max_horizon < max(self._steps)):
            notes.append("no Ridge row: its windows are too wide, too few or too short")
        else:
            contenders.append(ridge)
        return [scoring.score(contender, held_out) for contender in contenders], notes

    def _score(self, candidate: Candidate, test: Series, held_out: HeldOut, cards: dict[str, Scorecard]) -> Candidate:
        if candidate.forecaster is None:
            return candidate
        self._progress(STAGE, "running", detail=f"scoring {candidate.model_type}")
        try:
            cards[candidate.model_type] = scoring.score(
                _contender(candidate.model_type, candidate.forecaster, test, held_out.targets), held_out
            )
        except RetryableError:
            raise
        except Exception as error:  # noqa: BLE001 - a hostile or broken model must not take the run along
            log.warning("candidate_not_scored", model_type=candidate.model_type, error=error)
            return candidate.refused(Reason("not_scored", f"its model failed on the test rows: {error}"[:500]))
        return candidate

    def _score_champion(
        self, champion: _ChampionSeat, test: Series, held_out: HeldOut, cards: Mapping[str, Scorecard]
    ) -> Scorecard | None:
        if champion.candidate is not None:
            return cards.get(champion.candidate.model_type)
        if champion.forecaster is None:
            return None
        self._progress(STAGE, "running", detail="scoring the champion")
        try:
            return scoring.score(_contender("champion", champion.forecaster, test, held_out.targets), held_out)
        except RejectedError as error:
            champion.why_not = Reason("champion_not_scored", error.message)
            return None

    def _gate(
        self,
        candidate: Candidate,
        cards: Mapping[str, Scorecard],
        persistence: Scorecard,
        tests: dict[str, Advantage],
        able: int,
    ) -> Candidate:
        card = cards.get(candidate.model_type)
        if candidate.forecaster is None or card is None:
            return candidate
        if math.isfinite(card.score):
            asked = 1.0 - max(self._rules.min_skill, 0.0)
            tests[candidate.model_type] = advantage(
                card.losses, asked * persistence.losses, horizon_steps=max(self._steps)
            )
        reasons = skill_reasons(
            card.score, persistence.score, tests.get(candidate.model_type), rules=self._rules, candidates=able
        )
        return replace(candidate, reasons=(*candidate.reasons, *reasons))

    def _board(
        self,
        choice: Choice,
        candidates: Sequence[Candidate],
        *,
        cards: Mapping[str, Scorecard] | None = None,
        tests: Mapping[str, Advantage] | None = None,
        references: Sequence[Scorecard] = (),
        champion: ChampionRow | None = None,
        held_out: HeldOut | None = None,
        test_rows: int = 0,
        notes: Sequence[str] = (),
    ) -> dict[str, Any]:
        rows = [
            CandidateRow(
                one.model_type,
                one.status,
                one.event,
                (cards or {}).get(one.model_type),
                (tests or {}).get(one.model_type),
                one.reasons,
            )
            for one in candidates
        ]
        return build_scoreboard(
            self._data,
            choice,
            rows,
            references=references,
            champion=champion,
            held_out=held_out,
            weights=self._settings.weights(),
            test_rows=test_rows,
            seconds=time.perf_counter() - self._began,
            notes=notes,
        )


@dataclass(slots=True)
class _ChampionSeat:
    """The current champion while a run is judged."""

    pointer: Mapping[str, Any] | None
    candidate: Candidate | None = None
    """The candidate whose bundle the champion's is."""
    forecaster: Forecaster | None = None
    why_not: Reason | None = None

    def required_pointer(self) -> Mapping[str, Any]:
        assert self.pointer is not None
        return self.pointer

    def is_bundle_of(self, candidate: Candidate) -> bool:
        return _sha256(candidate) == str(self.required_pointer()["bundle"]["sha256"])

    def defender(self, card: Scorecard | None) -> Champion | None:
        if self.pointer is None:
            return None
        return Champion(
            model_type=str(self.pointer["model_type"]),
            bundle_sha256=str(self.pointer["bundle"]["sha256"]),
            score=None if card is None else card.score,
            why_not_scored=self.why_not,
        )


def _contender(name: str, forecaster: Forecaster, test: Series, targets: tuple[str, ...]) -> Contender:
    chosen = [forecaster.bundle.targets.index(target) for target in targets]
    varying = forecaster.recipe.varying_targets
    intervals = forecaster.bundle.intervals
    if intervals is not None and intervals.lower is not None and intervals.upper is not None:
        columns = [varying.index(target) for target in targets]
        intervals = replace(intervals, lower=intervals.lower[:, columns], upper=intervals.upper[:, columns])

    def forecast(origins: IntArray, horizon: int) -> FloatArray:
        return forecaster.forecast_origins(test, origins, horizon)[..., chosen]

    return Contender(name, forecast, max_horizon=forecaster.max_horizon, intervals=intervals)


def _standing(candidate: Candidate, card: Scorecard | None, reasons: tuple[Reason, ...]) -> Standing:
    return Standing(
        model_type=candidate.model_type,
        score=math.nan if card is None else card.score,
        serving_cost=candidate.serving_cost(),
        bundle_sha256=_sha256(candidate),
        reasons=reasons or candidate.reasons,
    )


def _sha256(candidate: Candidate) -> str | None:
    bundle = None if candidate.event is None else candidate.event.bundle
    return None if bundle is None else bundle.sha256
