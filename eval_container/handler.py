"""The handler of eval: it collects a run's candidates and decides the run exactly once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from eval_container.candidates import load_forecaster
from eval_container.domain.gate import Reason
from eval_container.domain.promotion import moved_pointer, new_pointer
from eval_container.domain.scoring import Scorecard
from eval_container.domain.waiting import (
    EARLY,
    Patience,
    awaited_types,
    early_types,
    early_types_are_final,
    missing_types,
    why_missing,
)
from eval_container.ending import STAGE, Ending, at
from eval_container.judging import Judgement, judge
from eval_container.refitting import Refits
from eval_container.settings import EvalSettings
from flts.bundle import proof
from flts.contracts.champion_stage import DECIDED, PROVISIONAL, ChampionStage, is_champion, selected_event_id
from flts.contracts.claim_check import ClaimCheck
from flts.contracts.events import (
    EvaluateRequest,
    Event,
    ModelRefit,
    ModelSelected,
    ModelTraining,
    RollbackRequest,
    TrainingData,
)
from flts.contracts.ids import canonical_json, derived_event_id
from flts.errors import RejectedError
from flts.observability.logs import get_logger
from flts.runtime.adapters import Adapters
from flts.service import Progress
from flts.trainers import BASELINES, trained_on

log = get_logger(__name__)


def build_handler(settings: EvalSettings, adapters: Adapters) -> DecideRun:
    """Return the handler; called in the child process, where models run."""
    return DecideRun(settings, adapters)


class DecideRun:
    """Records the results of a run's trainers, and decides the run when all of them are final.

    A data set without champion has a provisional one as soon as the trainer of the baselines is done.

    The handler first records each message in the store. It then reads the state of the run from the store, so the order
    and the repetition of messages do not matter.
    """

    def __init__(self, settings: EvalSettings, adapters: Adapters, *, now: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._adapters = adapters
        self._evaluations = adapters.run_store.evaluations
        self._pointers = adapters.run_store.pointers
        self._runs = adapters.run_store.runs
        self._stages = adapters.run_store.stages
        self._now = now
        self._ending = Ending(adapters, now)
        self._refits = Refits(settings, adapters, self._ending, now)

    def __call__(self, event: Event, progress: Progress) -> Sequence[Event]:
        """Handle one event of training-data, model-training or model-refit."""
        if isinstance(event, ModelRefit):
            return self._refits.decide(event)
        selected = self._handle(event, progress)
        return [*selected, *self._refits.requests(selected)]

    def _handle(self, event: Event, progress: Progress) -> Sequence[Event]:
        decision = self._evaluations.decision(event.identifier, event.pipeline_run_id)
        if decision is not None:
            return self._ending.finish(decision)
        if self._runs.end(event.identifier, event.pipeline_run_id) is not None:
            log.info("run_ended_otherwise")
            return []
        if isinstance(event, RollbackRequest):
            return self._roll_back(event)
        if isinstance(event, EvaluateRequest):
            return self._evaluate(event, progress)
        if isinstance(event, TrainingData):
            # The provisional champion waits for the process that proves bundles. It imports its libraries while the
            # first bundle is trained.
            proof.warm_up()
            self._expect(event, trained_on(self._settings.expected_model_types, event.rows, event.columns))
        elif isinstance(event, ModelTraining):
            self._evaluations.put_trained(event)
        return self._decide_if_complete(event, progress)

    def _expect(self, data: TrainingData, model_types: tuple[str, ...]) -> None:
        """Record the model types that the run waits for. The first record counts, also if the settings change later."""
        identifier, run = data.identifier, data.pipeline_run_id
        self._evaluations.put_expected(
            identifier,
            run,
            {
                "model_types": list(model_types),
                "started": self._now(),
                "training_data": data.model_dump(mode="json"),
            },
        )

    def _decide_if_complete(self, event: Event, progress: Progress) -> Sequence[Event]:
        identifier, run = event.identifier, event.pipeline_run_id
        expected = self._evaluations.expected(identifier, run)
        if expected is None:
            # A trainer's event has arrived before the event of the topic training-data, which lists the model types to
            # wait for. The run is decided later.
            return []
        trained = self._evaluations.trained(identifier, run)
        awaited = awaited_types(expected["model_types"], trained)
        if not awaited:
            return self._decide(identifier, run, progress)
        # A result of another trainer never completes these models, so it does not publish the event once more.
        early = not isinstance(event, ModelTraining) or event.model_type in EARLY.model_types
        selected = self._serve_provisionally(expected, trained, progress) if early else []
        progress(STAGE, "waiting", detail=f"for {', '.join(awaited)}")
        return selected

    def _serve_provisionally(
        self, expected: Mapping[str, Any], trained: Mapping[str, ModelTraining], progress: Progress
    ) -> Sequence[Event]:
        """Return the event of the run's provisional champion; none if it has none or the data set has a champion.

        A repeated message adopts the record in the store and carries it out again.
        """
        data = TrainingData.model_validate(expected["training_data"])
        identifier, run = data.identifier, data.pipeline_run_id
        stage = self._stages.read(identifier, run, EARLY.deployment) or {}
        if not early_types_are_final(expected["model_types"], trained, stage.get("bundles") or ()):
            return []
        try:
            current = self._pointers.current(identifier)
            if current is not None and (is_champion(current[0]) or _is_newer(current[0], run)):
                return []
            record = self._evaluations.provisional(identifier, run) or self._choose_provisional(
                data, tuple(expected["model_types"]), trained, progress
            )
        except RejectedError as error:
            # The same error may refuse the run, but only after its last trainer.
            log.warning("provisional_left_out", error=error)
            return []
        return [] if record is None else self._ending.carry_out(record)

    def _choose_provisional(
        self,
        data: TrainingData,
        model_types: tuple[str, ...],
        trained: Mapping[str, ModelTraining],
        progress: Progress,
    ) -> dict[str, Any] | None:
        """Judge the models of the baselines' trainer as a decision does; return the record in the store, or None."""
        identifier, run = data.identifier, data.pipeline_run_id
        judgement = judge(
            self._adapters.store,
            data,
            self._settings.with_overrides(data.settings),
            expected=early_types(model_types),
            trained=trained,
            missing={},
            pointer=None,
            progress=progress,
        )
        if judgement.card is None:
            log.info("provisional_left_out", reasons=[reason.as_text() for reason in judgement.choice.reasons])
            return None
        if self._has_ended(identifier, run):
            return None
        claim = self._evaluations.put_scoreboard(identifier, run, canonical_json(judgement.scoreboard))
        selected, pointer = self._selected(data, judgement, claim, None, PROVISIONAL)
        assert pointer is not None
        document = {**selected.model_dump(mode="json"), "pointer": {**pointer, "stage": PROVISIONAL}}
        return self._evaluations.put_provisional(identifier, run, document)[0]

    def _has_ended(self, identifier: str, run: str) -> bool:
        """Return whether the run was decided, cancelled or rejected meanwhile."""
        decision = self._evaluations.decision(identifier, run)
        return decision is not None or self._runs.end(identifier, run) is not None

    def _decide(self, identifier: str, run: str, progress: Progress) -> Sequence[Event]:
        """Decide a run by the results that its trainers delivered so far."""
        expected = self._evaluations.expected(identifier, run)
        if expected is None:
            log.warning("nothing_to_evaluate")
            return []
        data = TrainingData.model_validate(expected["training_data"])
        model_types = tuple(expected["model_types"])
        trained = self._evaluations.trained(identifier, run)
        patience = Patience(self._settings.eval_silence_seconds, self._settings.eval_max_seconds)
        missing = {
            kind: why_missing(kind, trained, now=self._now(), started=float(expected["started"]), patience=patience)
            for kind in missing_types(model_types, trained)
        }
        # The start of the stage is recorded here and not at the first trainer's event, so that the stage's duration
        # does not include the wait for the other trainers.
        self._stages.put(identifier, run, STAGE, "started", model_types=list(model_types))
        log.info("model_evaluate_start", model_types=sorted(trained), missing=sorted(missing))
        progress(STAGE, "running", detail="loading the candidates")
        if self._adapters.tracker is not None:
            # Imports MLflow in the background while the candidates are scored. The decision would otherwise wait for
            # the import.
            self._adapters.tracker.warm_up()
        pointer = self._pointer(identifier)
        with self._adapters.metrics.evaluation_duration.time():
            judgement = judge(
                self._adapters.store,
                data,
                self._settings.with_overrides(data.settings),
                expected=model_types,
                trained=trained,
                missing=missing,
                # If the champion comes from a newer run, this run can only end as superseded, so no champion is
                # compared.
                pointer=None
                if pointer is None or _is_newer(pointer, run)
                else self._evaluations.judged(identifier, pointer),
                progress=progress,
            )
        for event in judgement.made:
            self._evaluations.put_trained(event)  # MLflow's record finds it there
        claim = self._evaluations.put_scoreboard(identifier, run, canonical_json(judgement.scoreboard))
        selected, new = self._selected(data, judgement, claim, pointer)
        return self._ending.decide(selected, new)

    def _selected(
        self,
        data: TrainingData,
        judgement: Judgement,
        scoreboard: ClaimCheck,
        pointer: Mapping[str, Any] | None,
        stage: ChampionStage = DECIDED,
    ) -> tuple[ModelSelected, Mapping[str, Any] | None]:
        """Return the message of the decision or of the stage, and the champion pointer that belongs to it."""
        choice = judgement.choice
        now = at(self._now())
        common: dict[str, Any] = {
            "event_id": selected_event_id(data.pipeline_run_id, stage),
            "stage": None if stage == DECIDED else stage,  # the form of every release
            "identifier": data.identifier,
            "pipeline_run_id": data.pipeline_run_id,
            "config_hash": data.config_hash,
            "created_at": now,
            "weights": dict(zip(("rmse", "mae", "mse"), self._settings.weights(), strict=True)),
            "previous_run_id": pointer.get("run_id") if pointer else None,
            "scoreboard": scoreboard,
            "reasons": [reason.as_text() for reason in choice.reasons],
        }
        if choice.decision == "kept":
            assert pointer is not None
            kept = {name: pointer.get(name) for name in ("run_id", "model_type", "model_uri", "bundle")}
            return ModelSelected(**common, **kept, decision="kept", **_means(judgement.card)), pointer
        if choice.decision != "promoted" or choice.winner is None:
            return ModelSelected(**common, decision=choice.decision), None
        assert judgement.winner is not None
        winner = judgement.winner.event
        assert winner is not None
        # The record of a baseline that eval made is missing; the batch forecast and MLflow's record find it there.
        self._evaluations.put_trained(winner)
        card = judgement.card
        means = _means(card)
        selected = ModelSelected(
            **common,
            **means,
            decision="promoted",
            run_id=winner.run_id,
            model_type=winner.model_type,
            model_uri=winner.model_uri,
            bundle=winner.bundle,
        )
        coverage = None if card is None else card.least_coverage()
        score = means.get("score")
        pointer = new_pointer(
            winner,
            score=score,
            coverage=coverage,
            timestamp=now.isoformat(),
            horizon_steps=judgement.horizon_steps,
            rows_required=None if judgement.winner.forecaster is None else judgement.winner.forecaster.rows_required,
            baseline=choice.why_baseline,
        )
        return selected, pointer

    def _evaluate(self, request: EvaluateRequest, progress: Progress) -> Sequence[Event]:
        """Judge another run's candidates under a new run: eval copies the records, and no model is trained.

        If a request names its own run, eval's tick published it: the run is decided without further waiting.
        """
        if request.of_run == request.pipeline_run_id:
            return self._decide(request.identifier, request.pipeline_run_id, progress)
        old = self._evaluations.expected(request.identifier, request.of_run)
        trained = self._evaluations.trained(request.identifier, request.of_run)
        if old is None or not trained:
            reason = Reason("nothing_to_evaluate", f"run {request.of_run} of {request.identifier} has no candidates")
            return self._ending.refuse(request, reason)
        copied = {"pipeline_run_id": request.pipeline_run_id, "cause": request.cause}
        data = TrainingData.model_validate({**old["training_data"], **copied})
        wanted = {*old["model_types"], *BASELINES}
        for event in trained.values():
            if event.model_type in wanted:
                event_id = derived_event_id(request.event_id, event.header_event())
                update = {"pipeline_run_id": request.pipeline_run_id, "event_id": event_id}
                self._evaluations.put_trained(event.model_copy(update=update))
        self._expect(data, tuple(old["model_types"]))
        return self._decide(request.identifier, request.pipeline_run_id, progress)

    def _roll_back(self, request: RollbackRequest) -> Sequence[Event]:
        """Make an earlier champion the current champion again, independent of its score."""
        identifier, run = request.identifier, request.pipeline_run_id
        self._stages.put(identifier, run, STAGE, "started", cause=request.cause)
        current = self._pointer(identifier)
        target, missing = self._rollback_target(request, current)
        if target is None:
            return self._ending.refuse(request, missing)
        bundle = ClaimCheck.model_validate(target["bundle"])
        try:
            load_forecaster(self._adapters.store, bundle)
        except RejectedError as error:
            return self._ending.refuse(
                request, Reason("bundle_not_loaded", f"its bundle is not right: {error.message}")
            )
        now = at(self._now())
        came_from = f"run {request.of_run}" if request.of_run else "the predecessor"
        asked_for = Reason("rollback", f"the champion of {came_from} was asked for, {target['model_type']}")
        selected = ModelSelected(
            event_id=selected_event_id(run),
            identifier=identifier,
            pipeline_run_id=run,
            config_hash=target.get("config_hash"),
            created_at=now,
            decision="promoted",
            run_id=target["run_id"],
            model_type=target["model_type"],
            model_uri=target.get("model_uri"),
            bundle=bundle,
            score=target.get("score"),
            previous_run_id=current.get("run_id") if current else None,
            reasons=[asked_for.as_text()],
        )
        pointer = moved_pointer(target, pipeline_run_id=run, timestamp=now.isoformat())
        return self._ending.decide(selected, pointer)

    def _rollback_target(
        self, request: RollbackRequest, current: Mapping[str, Any] | None
    ) -> tuple[Mapping[str, Any] | None, Reason]:
        """Return the champion pointer to go back to, and the reason that applies if it is None."""
        if request.of_run is None:
            previous = current.get("previous") if current else None
            return previous, Reason("no_predecessor", f"{request.identifier} has no champion before the current one")
        refit = self._evaluations.refit(request.identifier, request.of_run) or {}
        decision = self._evaluations.decision(request.identifier, request.of_run) or {}
        pointer = refit.get("pointer") or decision.get("pointer")
        return pointer, Reason("no_champion", f"run {request.of_run} of {request.identifier} left no champion")

    def _pointer(self, identifier: str) -> dict[str, Any] | None:
        """Return the pointer of the champion, or None; a provisional pointer defends no place and is no predecessor."""
        current = self._pointers.current(identifier)
        return None if current is None or not is_champion(current[0]) else current[0]


def _is_newer(pointer: Mapping[str, Any], run: str) -> bool:
    return str(pointer["pipeline_run_id"]) > run


def _means(card: Scorecard | None) -> dict[str, float]:
    """Return the scores for the message of a decision; empty if no model was scored."""
    return {} if card is None else {"score": card.score, "rmse": card.rmse, "mae": card.mae, "mse": card.mse}
