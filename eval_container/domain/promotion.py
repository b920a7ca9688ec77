"""Who is promoted: a pure choice among candidates that were scored on the same rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from eval_container.domain.gate import GateRules, Reason
from flts.contracts.events import ModelTraining

Decision = Literal["promoted", "kept", "refused", "superseded"]

TIE = 1e-6
"""Scores this close, relative to the best, are equal: the cost of serving decides, and a champion is not beaten."""
POINTER_FIELDS = (
    "model_uri",
    "run_id",
    "experiment_name",
    "model_type",
    "config_hash",
    "score",
    "coverage",
    "timestamp",
    "pipeline_run_id",
    "bundle",
)


@dataclass(frozen=True, slots=True)
class Standing:
    """A candidate as the choice sees it."""

    model_type: str
    score: float
    """NaN where it could not be scored."""
    serving_cost: tuple[int, int]
    """Lower is cheaper: timestamps before windows, then bytes of the model."""
    bundle_sha256: str | None = None
    reasons: tuple[Reason, ...] = ()
    """Why the gate does not let it pass; empty if it does."""


@dataclass(frozen=True, slots=True)
class Champion:
    """The current champion on the same rows."""

    model_type: str
    bundle_sha256: str
    score: float | None
    """None where its recipe cannot read these rows, so that it cannot defend its place."""
    why_not_scored: Reason | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """The outcome of a run's candidates."""

    decision: Decision
    winner: str | None
    """Model type of the candidate that was promoted, or would have been."""
    reasons: tuple[Reason, ...]


def choose(standings: Sequence[Standing], champion: Champion | None, rules: GateRules) -> Choice:
    """Choose the lowest score among those that pass the gate, unless the champion holds its place."""
    passing = ranked([standing for standing in standings if not standing.reasons])
    if not standings:
        return Choice("refused", None, (Reason("no_candidate", "no trainer delivered a model"),))
    if not passing:
        reasons = tuple(
            Reason(reason.code, f"{standing.model_type}: {reason.message}")
            for standing in standings
            for reason in standing.reasons
        )
        return Choice("refused", None, reasons)
    best = passing[0]
    if champion is None:
        return Choice("promoted", best.model_type, (_best_score(passing),))
    held, reason = _defence(best, champion, rules)
    if held:
        return Choice("kept", best.model_type, (reason,))
    return Choice("promoted", best.model_type, (_best_score(passing), reason))


def ranked(standings: Sequence[Standing]) -> list[Standing]:
    """Return candidates by score; those that tie with the best of the rest by cost of serving, then by name."""
    rest = sorted(standings, key=lambda standing: (standing.score, standing.model_type))
    ordered: list[Standing] = []
    while rest:
        limit = rest[0].score * (1 + TIE)
        tied = [standing for standing in rest if standing.score <= limit]
        tied.sort(key=lambda standing: (standing.serving_cost, standing.model_type))
        ordered += tied
        rest = rest[len(tied) :]
    return ordered


def new_pointer(
    candidate: ModelTraining, *, score: float | None, coverage: float | None, timestamp: str
) -> dict[str, Any]:
    """Return the document ``current.json`` for a promoted candidate; the store adds what it replaces.

    ``coverage`` is the least share, over targets, of test rows inside the interval one step ahead.
    """
    if candidate.bundle is None:
        msg = "a candidate without a bundle cannot be promoted"
        raise ValueError(msg)
    return {
        "model_uri": candidate.model_uri,
        "run_id": candidate.run_id,
        "experiment_name": candidate.experiment_name,
        "model_type": candidate.model_type,
        "config_hash": candidate.config_hash,
        "score": score,
        "coverage": coverage,
        "timestamp": timestamp,
        "pipeline_run_id": candidate.pipeline_run_id,
        "bundle": candidate.bundle.model_dump(mode="json"),
    }


def moved_pointer(target: Mapping[str, Any], *, pipeline_run_id: str, timestamp: str) -> dict[str, Any]:
    """Return the pointer of a rollback: an earlier champion under the new run's id, so that it moves forward."""
    pointer = {name: target.get(name) for name in POINTER_FIELDS}
    return {**pointer, "pipeline_run_id": pipeline_run_id, "timestamp": timestamp}


def _defence(best: Standing, champion: Champion, rules: GateRules) -> tuple[bool, Reason]:
    """Say whether the champion holds its place against the best candidate, and why."""
    if best.bundle_sha256 == champion.bundle_sha256:
        return True, Reason("same_bundle", f"{best.model_type} is the champion already")
    if not rules.against_champion:
        return False, Reason("champion_not_asked", "GATE_AGAINST_CHAMPION is off: the champion does not defend itself")
    if champion.score is None:
        return False, champion.why_not_scored or Reason("champion_not_scored", "the champion could not be scored")
    if not math.isfinite(champion.score):
        return False, Reason("champion_not_finite", "the champion's forecasts of these rows are not finite")
    compared = f"{best.model_type} scores {best.score:.6f}, the champion {champion.model_type} {champion.score:.6f}"
    if best.score < champion.score * (1 - TIE):
        return False, Reason("beats_champion", compared)
    return True, Reason("champion_not_beaten", compared)


def _best_score(passing: Sequence[Standing]) -> Reason:
    best = passing[0]
    if len(passing) == 1:
        return Reason("best_score", f"{best.model_type} scores {best.score:.6f} and alone passes the gate")
    runner_up = f"the next {passing[1].model_type} {passing[1].score:.6f}"
    return Reason("best_score", f"{best.model_type} scores {best.score:.6f}, {runner_up}")
