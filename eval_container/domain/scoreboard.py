"""The scoreboard: the document that says how a run was decided, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval_container.domain.gate import Advantage, Reason, skill
from eval_container.domain.promotion import Choice
from eval_container.domain.references import PERSISTENCE, RIDGE
from eval_container.domain.scoring import HeldOut, Scorecard
from flts.contracts.events import ModelTraining, TrainingData

SCOREBOARD_VERSION = 1


@dataclass(frozen=True, slots=True)
class CandidateRow:
    """What the scoreboard says of a candidate beside its scores."""

    model_type: str
    status: str
    event: ModelTraining | None
    card: Scorecard | None
    test: Advantage | None
    """Of the gate, over persistence."""
    reasons: tuple[Reason, ...]
    """Why the gate does not let it pass."""


@dataclass(frozen=True, slots=True)
class ChampionRow:
    """The current champion on the same rows."""

    pointer: Mapping[str, Any]
    card: Scorecard | None
    why_not_scored: Reason | None


def build_scoreboard(
    data: TrainingData,
    choice: Choice,
    rows: Sequence[CandidateRow],
    *,
    references: Sequence[Scorecard] = (),
    champion: ChampionRow | None = None,
    held_out: HeldOut | None = None,
    weights: tuple[float, float, float],
    test_rows: int = 0,
    seconds: float,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the document as plain JSON values; numbers that are not finite become null."""
    persistence = next((card.score for card in references if card.name == PERSISTENCE), None)
    linear = next((card.score for card in references if card.name == RIDGE), None)
    board: dict[str, Any] = {
        "v": SCOREBOARD_VERSION,
        "identifier": data.identifier,
        "pipeline_run_id": data.pipeline_run_id,
        "config_hash": data.config_hash,
        "decision": choice.decision,
        "winner": choice.winner,
        "reasons": [reason.as_dict() for reason in choice.reasons],
        "weights": dict(zip(("rmse", "mae", "mse"), weights, strict=True)),
        "step_seconds": data.step_seconds,
        "test_rows": test_rows,
        "seconds": round(seconds, 3),
        "notes": list(notes),
        "targets": [],
        "score_horizons": [],
        "origins": 0,
        "left_out_cells": 0,
    }
    if held_out is not None:
        board["targets"] = list(held_out.targets)
        board["score_horizons"] = list(held_out.scored.steps)
        board["origins"] = len(held_out.scored.origins)
        board["informative"] = [
            {"steps": extra.horizon, "origins": len(extra.origins)} for extra in held_out.informative
        ]
        board["left_out_cells"] = max((card.left_out for card in references), default=0)
    board["candidates"] = [_candidate(row, persistence, linear) for row in rows]
    board["references"] = [{"name": card.name, **_scores(card, persistence)} for card in references]
    board["champion"] = None if champion is None else _champion(champion, persistence)
    return board


def _candidate(row: CandidateRow, persistence: float | None, linear: float | None) -> dict[str, Any]:
    event = row.event
    document: dict[str, Any] = {
        "model_type": row.model_type,
        "status": row.status,
        "run_id": event.run_id if event else None,
        "mlflow_run_id": event.mlflow_run_id if event else None,
        "model_uri": event.model_uri if event else None,
        "bundle": event.bundle.model_dump(mode="json") if event and event.bundle else None,
        "reused": event.reused if event else False,
        "training_seconds": event.duration_seconds if event else None,
        "passed": not row.reasons,
        "reasons": [reason.as_dict() for reason in row.reasons],
        "warnings": [],
    }
    if row.card is not None:
        document |= _scores(row.card, persistence)
        document["p_value"] = row.test.p_value if row.test else None
        document["warnings"] = _warnings(row.card, linear)
    return document


def _champion(row: ChampionRow, persistence: float | None) -> dict[str, Any]:
    document: dict[str, Any] = {
        name: row.pointer.get(name) for name in ("model_type", "run_id", "config_hash", "pipeline_run_id", "bundle")
    }
    document["reasons"] = [row.why_not_scored.as_dict()] if row.why_not_scored else []
    return document | (_scores(row.card, persistence) if row.card else {"score": None})


def _scores(card: Scorecard, persistence: float | None) -> dict[str, Any]:
    return {
        "score": _finite(card.score),
        "rmse": _finite(card.rmse),
        "mae": _finite(card.mae),
        "mse": _finite(card.mse),
        "skill": None if persistence is None else _finite(skill(card.score, persistence)),
        "seconds": round(card.seconds, 3),
        "notes": list(card.notes),
        "table": [dict(row) for row in card.table],
        "coverage": [dict(row) for row in card.coverage],
    }


def _warnings(card: Scorecard, linear: float | None) -> list[dict[str, str]]:
    """Return what people should know though the gate does not ask for it."""
    warnings = []
    low = [row for row in card.coverage if row["low"]]
    if low:
        worst = min(low, key=lambda row: float(row["coverage"]))
        text = (
            f"intervals cover less than promised at {len(low)} places, least {worst['target']} at step "
            f"{worst['step']}: {worst['coverage']:.2f} of {worst['nominal']:.2f}"
        )
        warnings.append(Reason("coverage_low", text).as_dict())
    if linear is not None and not card.score < linear:
        text = f"it scores {card.score:.6f}, no better than the linear reference's {linear:.6f}"
        warnings.append(Reason("no_better_than_ridge", text).as_dict())
    return warnings


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
