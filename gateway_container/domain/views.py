"""The API's views of runs, as pure functions of the records in the store."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from flts.contracts.champion_stage import DECIDED, PROVISIONAL, REFITTED, stage_of
from flts.contracts.ids import GLOBAL_IDENTIFIER
from flts.contracts.lifecycle import RunState, run_state
from flts.trainers import DEPLOYMENTS

Record = Mapping[str, Any]

STAGE_ORDER = ("upload", "preprocess", *DEPLOYMENTS, "eval", "refit", "forecast")
TRAINED_SHOWN = (
    "model_type",
    "status",
    "run_id",
    "mlflow_run_id",
    "experiment_name",
    "model_uri",
    "metrics",
    "duration_seconds",
    "error",
    "reused",
    "created_at",
)


@dataclass(frozen=True, slots=True)
class RunRecords:
    """The records of one run in the store."""

    run: Record
    stages: Mapping[str, Record] = field(default_factory=dict)
    announced: bool = False
    expected: Record | None = None
    trained: Mapping[str, Record] = field(default_factory=dict)
    provisional: Record | None = None
    decision: Record | None = None
    refit: Record | None = None
    scoreboard: Record | None = None
    outcome: Record | None = None
    deleted: bool = False

    @property
    def state(self) -> RunState:
        """The run's state, derived from its records."""
        return run_state(
            announced=self.announced,
            stages=self.stages,
            decision=self.decision,
            outcome=self.outcome,
            deleted=self.deleted,
        )

    @property
    def verdict(self) -> Record:
        """The decision; empty for a cancelled run, whose decision only prevents a decision by eval."""
        return {} if self.decision is None or self.state is RunState.CANCELLED else self.decision


def run_view(records: RunRecords, progress: Mapping[str, Record], *, now: datetime) -> dict[str, Any]:
    """Return the complete view of a run.

    Parameters
    ----------
    records : RunRecords
        From the store.
    progress : mapping
        Latest live progress by stage.
    now : datetime
        For the time elapsed so far.
    """
    run = records.run
    view = {
        "pipeline_run_id": run["pipeline_run_id"],
        "identifier": run["identifier"],
        "cause": run.get("cause"),
        "of_run": run.get("of_run"),
        "reason": run.get("reason"),
        "created_at": run.get("created_at"),
        "config_hash": _config_hash(records),
        "state": shown_state(records, progress),
        "lifecycle": records.state,
        "outcome": records.outcome.get("outcome") if records.outcome else None,
        "outcome_details": dict(records.outcome) if records.outcome else None,
        "elapsed_seconds": elapsed_seconds(records, now=now),
        "settings": dict(run.get("settings") or {}),
        "force": bool(run.get("force")),
        "train": run.get("train"),
        "test": run.get("test"),
        "announced": records.announced,
        "stages": [stage_view(name, record, now=now) for name, record in ordered_stages(records.stages)],
        "expected": expected_types(records.expected),
        "trained": {name: _trained_view(record) for name, record in sorted(records.trained.items())},
        "decision": dict(records.verdict) or None,
        "scoreboard": dict(records.scoreboard) if records.scoreboard else None,
        "progress": {name: dict(record) for name, record in progress.items()},
    }
    stages = {PROVISIONAL: records.provisional, REFITTED: records.refit}
    if any(stages.values()):
        view["champion_stages"] = {stage: dict(record) for stage, record in stages.items() if record}
    return plain_record(view)


def summary_view(records: RunRecords, progress: Mapping[str, Record], *, now: datetime) -> dict[str, Any]:
    """Return the view of a run in the list of runs."""
    return plain_record(
        {
            "pipeline_run_id": records.run["pipeline_run_id"],
            "identifier": records.run["identifier"],
            "cause": records.run.get("cause"),
            "of_run": records.run.get("of_run"),
            "reason": records.run.get("reason"),
            "created_at": records.run.get("created_at"),
            "state": shown_state(records, progress),
            "outcome": records.outcome.get("outcome") if records.outcome else None,
            "model_type": records.verdict.get("model_type"),
            "score": records.verdict.get("score"),
            "elapsed_seconds": elapsed_seconds(records, now=now),
            "stages": {name: str(record.get("status")) for name, record in ordered_stages(records.stages)},
        }
    )


def shown_state(records: RunRecords, progress: Mapping[str, Record]) -> str:
    """Return ``finished``, ``running`` or ``waiting`` (no service has begun to work on the run)."""
    if records.state.over:
        return "finished"
    return "running" if progress or records.state not in {RunState.RECORDED, RunState.ANNOUNCED} else "waiting"


def ordered_stages(stages: Mapping[str, Record]) -> list[tuple[str, Record]]:
    """Return the stages in the order of the pipeline, unknown ones last, by name."""
    return sorted(stages.items(), key=lambda item: (_rank(item[0]), item[0]))


def stage_view(name: str, record: Record, *, now: datetime) -> dict[str, Any]:
    """Return a stage with its seconds from start to end, or to now if the stage has not ended."""
    start, end = moment(record.get("start")), moment(record.get("end"))
    seconds = None
    if start is not None:
        seconds = round(max(0.0, ((end or now) - start).total_seconds()), 3)
    return plain_record({"stage": name, **record, "seconds": seconds})


def changed_stages(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the stages that are new or changed; the growing seconds of a running stage are not a change."""
    known = {stage["stage"]: _steady(stage) for stage in before}
    return [stage for stage in after if known.get(stage["stage"]) != _steady(stage)]


def expected_types(expected: Record | None) -> list[str]:
    """Return the model types that eval waits for; an empty list until eval has recorded them."""
    if expected is None:
        return []
    return [str(name) for name in expected.get("model_types") or expected.get("expected") or ()]


def elapsed_seconds(records: RunRecords, *, now: datetime) -> float | None:
    """Return the seconds from the upload to the outcome, or to now if the run has no outcome."""
    starts = [moment(records.stages.get("upload", {}).get("start")), moment(records.run.get("created_at"))]
    known = [start for start in starts if start is not None]
    if not known:
        return None
    end = now
    if records.outcome is not None:
        end = moment(records.outcome.get("at")) or now
    return round(max(0.0, (end - min(known)).total_seconds()), 3)


def champion_view(pointer: Record) -> dict[str, Any]:
    """Return a champion pointer without its claim checks.

    ``stage`` is shown only if it is not ``decided``, ``horizon_steps`` only if the pointer has it, and ``baseline``,
    the reason, only if a baseline is served.
    """
    stage = {} if stage_of(pointer) == DECIDED else {"stage": stage_of(pointer)}
    shown = ("run_id", "model_type", "config_hash", "score", "timestamp", "pipeline_run_id", "model_uri")
    given = {name: pointer[name] for name in ("horizon_steps", "baseline") if pointer.get(name) is not None}
    return plain_record({name: pointer.get(name) for name in shown} | stage | given)


def default_identifier(identifier: str | None) -> str:
    """Return the identifier of an upload that names none."""
    return identifier or GLOBAL_IDENTIFIER


def moment(value: object) -> datetime | None:
    """Return a record's time, or None if the value is not an ISO 8601 time with a zone."""
    if not isinstance(value, str):
        return None
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        return None
    return parsed if parsed.tzinfo is not None else None


def plain(value: Any) -> Any:
    """Return the value with null for every number that is not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return plain_record(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def plain_record(record: Record) -> dict[str, Any]:
    """Return the record with null for every number that is not finite, because JSON has no such numbers."""
    return {str(name): plain(value) for name, value in record.items()}


def _trained_view(record: Record) -> dict[str, Any]:
    return {name: record.get(name) for name in TRAINED_SHOWN if name in record}


def _config_hash(records: RunRecords) -> Any:
    candidates = [records.verdict, records.expected, *records.trained.values(), records.run]
    return next((record["config_hash"] for record in candidates if record and record.get("config_hash")), None)


def _rank(name: str) -> int:
    return STAGE_ORDER.index(name) if name in STAGE_ORDER else len(STAGE_ORDER)


def _steady(stage: Record) -> dict[str, Any]:
    return {name: value for name, value in stage.items() if name != "seconds" or stage.get("end")}
