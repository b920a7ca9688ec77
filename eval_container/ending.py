"""End a decided run. Every step can be repeated, so a kill between two steps only causes a repetition."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from eval_container.domain.gate import Reason
from flts.bundle import BUNDLE_FILE
from flts.contracts.champion_stage import (
    DECIDED,
    PROVISIONAL,
    REFITTED,
    Order,
    is_champion,
    order_of,
    pointer_order,
    selected_event_id,
)
from flts.contracts.claim_check import ClaimCheck
from flts.contracts.events import Event, ModelRefit, ModelSelected, RunId
from flts.contracts.lifecycle import CANCELLED_REASON, RunState, is_cancellation
from flts.errors import FltsError, RejectedError
from flts.killpoints import reached
from flts.observability.logs import get_logger
from flts.runtime.adapters import Adapters
from flts.storage import layout
from flts.storage.claims import read_claimed

log = get_logger(__name__)

STAGE = "eval"
SCORE_METRICS = {"test_rmse": "rmse", "test_mae": "mae", "test_mse": "mse", "test_loss": "score", "test_skill": "skill"}
"""MLflow's metric and the scoreboard's field. The errors are in scaled units, means over targets and scored steps; the
score is in units of the best baseline's error."""


_RUN_ID: TypeAdapter[str | None] = TypeAdapter(RunId | None)


class Ending:
    """Carries out a choice in this order: decision, champion pointer, MLflow record, outcome, message.

    Parameters
    ----------
    adapters : Adapters
    now : callable
        Epoch seconds.
    """

    def __init__(self, adapters: Adapters, now: Callable[[], float]) -> None:
        self._adapters = adapters
        self._evaluations = adapters.run_store.evaluations
        self._pointers = adapters.run_store.pointers
        self._runs = adapters.run_store.runs
        self._stages = adapters.run_store.stages
        self._now = now

    def decide(self, event: ModelSelected, pointer: Mapping[str, Any] | None) -> list[Event]:
        """Decide a run, or adopt the decision that exists, and end it; see `finish`.

        Parameters
        ----------
        event : ModelSelected
            The message of the decision.
        pointer : mapping, optional
            The champion pointer that belongs to the decision: the new pointer, or the pointer that stays.
        """
        document = {**event.model_dump(mode="json"), "pointer": pointer}
        decision, _ = self._evaluations.decide(event.identifier, event.pipeline_run_id, document)
        return self.finish(decision)

    def refuse(self, event: Event, reason: Reason) -> list[Event]:
        """Decide that a run is refused because it cannot be judged, and end it."""
        previous, unreadable = self._previous(event.identifier)
        selected = ModelSelected(
            event_id=selected_event_id(event.pipeline_run_id),
            identifier=event.identifier,
            pipeline_run_id=event.pipeline_run_id,
            config_hash=event.config_hash,
            created_at=at(self._now()),
            decision="refused",
            previous_run_id=previous,
            reasons=[reason.as_text(), *unreadable],
        )
        return self.decide(selected, None)

    def give_up(self, event: Event, error: FltsError | None, message: str) -> Sequence[Event]:
        """End a run or a refit whose last attempt failed, so that clients stop waiting."""
        del error
        if isinstance(event, ModelRefit):
            return self._give_up_refit(event, message)
        decision = self._evaluations.decision(event.identifier, event.pipeline_run_id)
        if decision is not None:
            return self.finish(decision)
        if self._runs.end(event.identifier, event.pipeline_run_id) is not None:
            return []
        return self.refuse(event, Reason("evaluation_failed", f"eval gave up after its last try: {message}"[:1000]))

    def finish(self, decision: Mapping[str, Any]) -> list[Event]:
        """Carry out a decision and return its event; no event for a run that ended in another way.

        If the run already has its outcome, only the event is returned again, with the same event_id.
        """
        event = ModelSelected.model_validate(decision)
        identifier, run = event.identifier, event.pipeline_run_id
        outcome = self._runs.outcome(identifier, run)
        if outcome is not None:
            return _as_ended(event, outcome)
        if is_cancellation(decision):
            # The gateway wrote this decision to cancel the run. It was killed before it wrote the outcome, or is about
            # to write the outcome, so eval writes the outcome; a second write changes nothing.
            why = event.reasons[0].removeprefix(CANCELLED_REASON)
            self._runs.put_outcome(identifier, run, RunState.CANCELLED, reason=why)
            return []
        if event.decision == "promoted":
            event = self._promote(event, decision["pointer"])
        self._record(event, decision)
        reasons = list(event.reasons)
        # The outcome comes last, because a replica that finds an outcome skips the run. If this replica is killed
        # before it writes the outcome, another replica repeats the steps.
        self._stages.put(identifier, run, STAGE, "done", decision=event.decision, reasons=reasons)
        first = self._runs.put_outcome(identifier, run, RunState(event.decision), reasons=reasons, run_id=event.run_id)
        if first:
            log.info(
                "promotion_decision",
                action=event.decision,
                score=event.score,
                run_id=event.run_id,
                model_type=event.model_type,
                reasons=reasons,
            )
            self._adapters.metrics.promotions.labels(decision=event.decision).inc()
            return [event]
        return _as_ended(event, self._runs.outcome(identifier, run) or {"outcome": event.decision})

    def carry_out(self, record: Mapping[str, Any]) -> list[Event]:
        """Carry out ``provisional.json`` or ``refit.json``, and return its event; no event if the pointer stays.

        The record has the form of a decision. It does not end the run and is no promotion in the metrics, because each
        run has exactly one decision.
        """
        event = self._promote(ModelSelected.model_validate(record), record["pointer"])
        if event.decision != "promoted":
            return []
        self._set_alias(event, record)
        log.info("champion_stage", stage=event.stage, run_id=event.run_id, model_type=event.model_type)
        return [event]

    def end_refit(self, record: Mapping[str, Any]) -> list[Event]:
        """Carry out ``refit.json``, and record the refit in MLflow; no event if the judged model stays."""
        self._record_refit(record)
        if record["pointer"] is not None:
            return self.carry_out(record)
        log.info("refit_refused", model_type=record["model_type"], reasons=record["reasons"])
        return []

    def _give_up_refit(self, event: ModelRefit, message: str) -> list[Event]:
        decision = self._evaluations.decision(event.identifier, event.pipeline_run_id)
        if decision is None or not promoted(decision, event):
            return []
        reason = Reason("refit_failed", f"eval gave up after its last try: {message}"[:1000])
        record = refit_record(event, decision, at(self._now()), reason, None)
        return self.end_refit(self._evaluations.put_refit(event.identifier, event.pipeline_run_id, record)[0])

    def _record_refit(self, record: Mapping[str, Any]) -> None:
        """Add the refit to the MLflow run of the judged model: the result as tags, the bundle as artifacts."""
        tracker = self._adapters.tracker
        if tracker is None or record["run_id"] is None:
            return
        tags = {"refit": record["decision"], "refit_reason": "; ".join(record["reasons"])[:500]}
        bundle = record["bundle"]
        artifacts = {} if bundle is None else {f"refit/{BUNDLE_FILE}": ClaimCheck.model_validate(bundle)}
        reached("refit-record.before", record["identifier"])
        tracker.append(record["run_id"], record["identifier"], tags=tags, artifacts=artifacts)
        reached("refit-record.after", record["identifier"])

    def _previous(self, identifier: str) -> tuple[str | None, list[str]]:
        """Return the champion's run_id, or None and the reason why the champion pointer cannot be read.

        A broken pointer does not prevent a refusal, because a refusal moves no pointer.
        """
        try:
            current = self._pointers.current(identifier)
            named = current[0].get("run_id") if current and is_champion(current[0]) else None
            return _RUN_ID.validate_python(named), []
        except (RejectedError, ValidationError) as error:
            log.warning("pointer_unreadable", identifier=identifier, error=str(error))
            return None, [Reason("pointer_unreadable", f"the champion's pointer of {identifier} is broken").as_text()]

    def _promote(self, event: ModelSelected, pointer: Mapping[str, Any]) -> ModelSelected:
        """Move the champion pointers to this run, or return it as superseded if a pointer above it was there first."""
        moved = self._pointers.move_current(event.identifier, pointer)
        if moved == "superseded" and not self._was_current(event):
            reason = "newer_run: a newer run was decided first, its champion stays"
            return event.model_copy(update={"decision": "superseded", "reasons": [*event.reasons, reason]})
        config_hash = pointer.get("config_hash")
        if config_hash:
            self._pointers.move_current_of_config(event.identifier, str(config_hash), pointer)
        return event

    def _was_current(self, event: ModelSelected) -> bool:
        """Return whether the champion or the one before it is of this run, at this stage or a later one.

        This is the case if eval was killed after it moved the pointer, and a newer run or a later stage of this run
        replaced the pointer before the repeat.
        """
        current = self._pointers.current(event.identifier)
        named = () if current is None else (current[0], current[0].get("previous") or {})
        return any(
            pointer.get("pipeline_run_id") == event.pipeline_run_id and order_of(pointer) >= _order(event)
            for pointer in named
        )

    def _is_current(self, event: ModelSelected) -> bool:
        """Return whether the pointer names this run at this stage; a late repeat must not move MLflow's alias back."""
        current = self._pointers.current(event.identifier)
        return current is not None and order_of(current[0]) == _order(event)

    def _record(self, event: ModelSelected, decision: Mapping[str, Any]) -> None:
        """Record LINEAR, every candidate's scores and the champion in MLflow, which may be unavailable."""
        tracker = self._adapters.tracker
        if tracker is None:
            return
        # Imported here, because the parent process, which gives runs up, needs no bundles otherwise.
        from eval_container.recording import record_candidates  # noqa: PLC0415 - see above

        record_candidates(self._adapters, event)
        if event.scoreboard is not None:
            reached("record.before", event.identifier)
            self._record_scores(event.identifier, event.scoreboard)
            reached("record.after", event.identifier)
        if event.decision == "promoted":
            self._set_alias(event, decision)

    def _set_alias(self, event: ModelSelected, decision: Mapping[str, Any]) -> None:
        """Set MLflow's alias to the champion; a provisional one has no alias."""
        tracker = self._adapters.tracker
        if tracker is None or event.run_id is None or event.stage == PROVISIONAL or not self._is_current(event):
            return
        experiment = str(decision["pointer"].get("experiment_name") or event.identifier)
        reached("alias.before", event.identifier)
        tracker.set_champion(experiment, event.run_id)
        reached("alias.after", event.identifier)

    def _record_scores(self, identifier: str, claim: ClaimCheck) -> None:
        tracker = self._adapters.tracker
        assert tracker is not None
        try:
            data = read_claimed(self._adapters.store, claim)
        except RejectedError as error:
            log.warning("scoreboard_not_recorded", object_key=claim.object_key, error=error)
            return
        for row in json.loads(data)["candidates"]:
            if row["run_id"] is None or row.get("score") is None:
                continue
            metrics = {name: row[source] for name, source in SCORE_METRICS.items() if row.get(source) is not None}
            tracker.append(row["run_id"], identifier, metrics=metrics, artifacts={"scoreboard.json": data})


def promoted(decision: Mapping[str, Any], event: ModelRefit) -> bool:
    """Return whether a decision promoted the model that an event refitted."""
    model = (decision.get("model_type"), decision.get("bundle"))
    return decision.get("decision") == "promoted" and model == (event.model_type, event.judged.model_dump(mode="json"))


def refit_record(
    event: ModelRefit, decision: Mapping[str, Any], now: datetime, reason: Reason, rows_required: int | None
) -> dict[str, Any]:
    """Return ``refit.json``: the message of the refitted champion, and its pointer; null if the judged model stays.

    Parameters
    ----------
    event : ModelRefit
    decision : mapping
        ``decision.json``. The refitted champion has its run_id and its score, which are those of the judged model.
    now : datetime
    reason : Reason
        Why the refit is promoted or thrown away.
    rows_required : int, optional
        Rows that a request to the refitted model must contain; None if it is thrown away.
    """
    bundle = None if rows_required is None else event.bundle
    selected = ModelSelected.model_validate(decision).model_copy(
        update={
            "event_id": selected_event_id(event.pipeline_run_id, REFITTED),
            "created_at": now,
            "decision": "refused" if bundle is None else "promoted",
            "bundle": bundle,
            "model_uri": bundle and f"s3://{bundle.bucket}/{layout.folder_of(bundle.object_key)}",
            "reasons": [reason.as_text()],
            "stage": REFITTED,
        }
    )
    document = selected.model_dump(mode="json")
    if bundle is None:
        return {**document, "pointer": None}
    changed = {name: document[name] for name in ("bundle", "model_uri", "stage")}
    changed |= {"timestamp": now.isoformat(), "rows_required": rows_required}
    return {**document, "pointer": {**decision["pointer"], **changed}}


def at(now: float) -> datetime:
    """Return epoch seconds as a time in UTC."""
    return datetime.fromtimestamp(now, UTC)


def _order(event: ModelSelected) -> Order:
    return pointer_order(event.pipeline_run_id, event.stage or DECIDED)


def _as_ended(event: ModelSelected, outcome: Mapping[str, Any]) -> list[Event]:
    ended = RunState.of_outcome(outcome)
    if ended == event.decision:
        return [event]
    if ended is RunState.SUPERSEDED:
        return [event.model_copy(update={"decision": "superseded", "reasons": list(outcome.get("reasons") or [])})]
    return []  # the run was cancelled, or preprocess rejected it: there is no decision to publish
