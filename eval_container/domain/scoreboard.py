"""The scoreboard: the document with all scores of a run, the decision and its reasons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from eval_container.domain.gate import Reason, skill
from eval_container.domain.promotion import Candidate, Champion, Choice
from eval_container.domain.scoring import HeldOut, Scorecard
from flts.contracts.events import TrainingData

SCOREBOARD_VERSION = 1


def row_name(model_type: str) -> str:
    """Return the name of a baseline's row: ``seasonal-naive``."""
    return model_type.lower().replace("_", "-")


def build_scoreboard(
    data: TrainingData,
    choice: Choice,
    candidates: Sequence[Candidate],
    *,
    baselines: Sequence[Candidate] = (),
    champion: Champion | None = None,
    held_out: HeldOut | None = None,
    weights: tuple[float, float, float],
    test_rows: int = 0,
    seconds: float,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the document as plain JSON values; numbers that are not finite become null.

    Parameters
    ----------
    baselines : sequence
        Scored baselines in the order of their rows; each row has ``baseline``: true.
    """
    scores = {one.model_type: one.score for one in baselines}
    persistence, linear = scores.get("PERSISTENCE"), scores.get("RIDGE")
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
        board["left_out_cells"] = max((one.card.left_out for one in baselines if one.card), default=0)
    board["candidates"] = [_candidate(candidate, persistence, linear) for candidate in candidates]
    # The key of the baselines is ``references``, the name that earlier releases used, because readers of those releases
    # must find it.
    board["references"] = [_baseline(one, persistence) for one in baselines]
    board["champion"] = None if champion is None else _champion(champion, persistence)
    return board


def _candidate(candidate: Candidate, persistence: float | None, linear: float | None) -> dict[str, Any]:
    event = candidate.event
    document: dict[str, Any] = {
        "model_type": candidate.model_type,
        "status": candidate.status,
        "run_id": event.run_id if event else None,
        "mlflow_run_id": event.mlflow_run_id if event else None,
        "model_uri": event.model_uri if event else None,
        "bundle": event.bundle.model_dump(mode="json") if event and event.bundle else None,
        "reused": event.reused if event else False,
        "training_seconds": event.duration_seconds if event else None,
        "passed": not candidate.reasons,
        "reasons": [reason.as_dict() for reason in candidate.reasons],
        "warnings": [],
    }
    if candidate.card is not None:
        document |= _scores(candidate.card, persistence)
        document["p_value"] = candidate.advantage.p_value if candidate.advantage else None
        document["warnings"] = _warnings(candidate.card, linear)
    return document


def _baseline(baseline: Candidate, persistence: float | None) -> dict[str, Any]:
    event = baseline.event
    document: dict[str, Any] = {
        "name": row_name(baseline.model_type),
        "baseline": True,
        "model_type": baseline.model_type,
        "run_id": event.run_id if event else None,
        "bundle": event.bundle.model_dump(mode="json") if event and event.bundle else None,
    }
    return document | (_scores(baseline.card, persistence) if baseline.card else {"score": None})


def _champion(champion: Champion, persistence: float | None) -> dict[str, Any]:
    fields = ("model_type", "run_id", "config_hash", "pipeline_run_id", "bundle")
    document: dict[str, Any] = {name: champion.pointer.get(name) for name in fields}
    document["reasons"] = [champion.why_not_scored.as_dict()] if champion.why_not_scored else []
    return document | (_scores(champion.card, persistence) if champion.card else {"score": None})


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
    """Return warnings for people; the gate does not use them."""
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
