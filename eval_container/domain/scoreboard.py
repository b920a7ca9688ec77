"""The scoreboard: the document with all scores of a run, the decision and its reasons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from eval_container.domain.gate import Reason
from eval_container.domain.many_series import ManySeries, many_series
from eval_container.domain.promotion import Candidate, Champion, Choice
from eval_container.domain.scoring import HeldOut, Scorecard
from flts.contracts.events import TrainingData
from flts.forecasting.expanding import few_windows

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
    best: str | None = None,
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
    best : str, optional
        Model type of the best baseline, whose score is 1.
    """
    composites = {one.model_type: one.card.composite for one in baselines if one.card}
    persistence = composites.get("PERSISTENCE")
    linear = next((one.score for one in candidates if one.model_type == "LINEAR" and one.card), None)
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
        "horizon_steps": None,
        "best_baseline": best,
        "blocks": [],
        "origins": 0,
        "left_out_cells": 0,
    }
    many: ManySeries | None = None
    if held_out is not None:
        many = many_series(held_out.targets, choice.winner, (*candidates, *baselines))
        board["targets"] = list(held_out.targets if many is None else many.shown)
        if many is not None:
            board["series"] = len(held_out.targets)
        board["score_horizons"] = list(held_out.scored.steps)
        board["horizon_steps"] = held_out.scored.horizon
        board["seasons"] = list(held_out.seasons)
        board["blocks"] = [{"first": block.first, "last": block.last} for block in held_out.blocks]
        board["origins"] = len(held_out.scored.origins)
        board["informative"] = [
            {"steps": extra.horizon, "origins": len(extra.origins)} for extra in held_out.informative
        ]
        board["left_out_cells"] = max((one.card.left_out for one in baselines if one.card), default=0)
    board["candidates"] = [_candidate(one, persistence, linear, many) for one in candidates]
    # The key of the baselines is ``references``, the name that earlier releases used, because readers of those releases
    # must find it.
    board["references"] = [_baseline(one, persistence, many) for one in baselines]
    board["champion"] = None if champion is None else _champion(champion, persistence, many)
    return board


def _candidate(
    candidate: Candidate, persistence: float | None, linear: float | None, many: ManySeries | None
) -> dict[str, Any]:
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
    if candidate.members:
        document["members"] = dict(candidate.members)
    if candidate.card is not None:
        document |= _scores(candidate.card, persistence, many)
        test = candidate.verdict and candidate.verdict.comparison
        document["p_value"] = test.p_value if test else None
        document["pieces"] = test.pieces if test else None
        document["warnings"] = [
            *_warnings(candidate.card, linear if candidate.model_type != "LINEAR" else None),
            *_few_windows(candidate),
        ]
    return document


def _baseline(baseline: Candidate, persistence: float | None, many: ManySeries | None) -> dict[str, Any]:
    event = baseline.event
    document: dict[str, Any] = {
        "name": row_name(baseline.model_type),
        "baseline": True,
        "model_type": baseline.model_type,
        "run_id": event.run_id if event else None,
        "bundle": event.bundle.model_dump(mode="json") if event and event.bundle else None,
        "warnings": _few_windows(baseline),
    }
    return document | (_scores(baseline.card, persistence, many) if baseline.card else {"score": None})


def _champion(champion: Champion, persistence: float | None, many: ManySeries | None) -> dict[str, Any]:
    fields = ("model_type", "run_id", "config_hash", "pipeline_run_id", "bundle")
    document: dict[str, Any] = {name: champion.pointer.get(name) for name in fields}
    document["reasons"] = [champion.why_not_scored.as_dict()] if champion.why_not_scored else []
    return document | (_scores(champion.card, persistence, many) if champion.card else {"score": None})


def _scores(card: Scorecard, persistence: float | None, many: ManySeries | None) -> dict[str, Any]:
    scores = {
        "score": _finite(card.score),
        "composite": _finite(card.composite),
        "rmse": _finite(card.rmse),
        "mae": _finite(card.mae),
        "mse": _finite(card.mse),
        "skill": None if persistence is None else _finite(_skill(card.composite, persistence)),
        "blocks": [_finite(score) for score in card.blocks],
        "seconds": round(card.seconds, 3),
        "notes": list(card.notes),
        "table": [dict(row) for row in card.table],
        "coverage": [dict(row) for row in card.coverage],
    }
    return scores if many is None else scores | many.of(card)


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
        text = f"it scores {card.score:.4f}, no better than LINEAR's {linear:.4f}"
        warnings.append(Reason("no_better_than_linear", text).as_dict())
    return warnings


def _few_windows(candidate: Candidate) -> list[dict[str, str]]:
    bundle = candidate.forecaster and candidate.forecaster.bundle
    text = few_windows(bundle.metrics) if bundle and bundle.calibrated_steps else None
    return [] if text is None else [Reason("few_interval_windows", text).as_dict()]


def _skill(composite: float, persistence: float) -> float:
    """Return the share of persistence's composite that is saved; if it is 0, 0 for a composite of 0, else -infinity."""
    if persistence == 0:
        return 0.0 if composite == 0 else -math.inf
    return 1.0 - composite / persistence


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
