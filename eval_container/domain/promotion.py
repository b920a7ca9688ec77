"""Choose the model to promote among candidates that were scored on the same rows: a pure function."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from eval_container.domain.gate import Advantage, GateRules, Reason
from eval_container.domain.scoring import Scorecard
from flts.bundle.forecaster import Forecaster
from flts.contracts.events import ModelTraining

Decision = Literal["promoted", "kept", "refused", "superseded"]

TIE = 1e-6
"""Relative difference up to which scores are equal: then the serving cost decides, and a champion is not beaten."""
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
class Candidate:
    """One expected model type of a run; loading, scoring and the gate each return a copy with more fields set."""

    model_type: str
    event: ModelTraining | None = None
    """The trainer's final event; None for a type that sent none."""
    status: str = "scored"
    """scored, failed (its trainer failed), missing (its trainer was silent or too slow) or unusable (its bundle)."""
    forecaster: Forecaster | None = None
    """None unless the status is scored."""
    serving_cost: tuple[int, int] = (0, 0)
    """Lower is cheaper: timestamps before windows, then bytes of the model. Set when the bundle is loaded."""
    card: Scorecard | None = None
    """Its scores on the held-out rows; None before scoring and if it cannot be scored."""
    advantage: Advantage | None = None
    """Advantage over persistence, as the gate tests it; None before the gate and if the score is not finite."""
    reasons: tuple[Reason, ...] = ()
    """Why it cannot be promoted; empty if it passes the gate."""

    @property
    def score(self) -> float:
        """The score, NaN if the candidate was not scored."""
        return math.nan if self.card is None else self.card.score

    @property
    def bundle_sha256(self) -> str | None:
        """The bundle's hash that the trainer announced, None without a bundle."""
        return None if self.event is None or self.event.bundle is None else self.event.bundle.sha256

    def refused(self, reason: Reason) -> Candidate:
        """Return the candidate as one that cannot be scored."""
        return replace(self, forecaster=None, status="unusable", reasons=(*self.reasons, reason))


@dataclass(frozen=True, slots=True)
class Champion:
    """The current champion, compared on the same rows as the candidates."""

    pointer: Mapping[str, Any]
    """The document ``current.json``."""
    forecaster: Forecaster | None = None
    """None if the champion is not compared, or if a candidate with the same bundle is scored instead."""
    card: Scorecard | None = None
    """None if the champion could not be scored; then a candidate that passes the gate replaces it."""
    why_not_scored: Reason | None = None

    @property
    def model_type(self) -> str:
        """Its model type."""
        return str(self.pointer["model_type"])

    @property
    def bundle_sha256(self) -> str:
        """Its bundle's hash."""
        return str(self.pointer["bundle"]["sha256"])

    def refused(self, reason: Reason) -> Champion:
        """Return the champion as one that cannot be scored."""
        return replace(self, forecaster=None, why_not_scored=reason)


@dataclass(frozen=True, slots=True)
class Choice:
    """The decision on a run's candidates."""

    decision: Decision
    winner: str | None
    """Model type of the best candidate that passes the gate: promoted, or not better than the champion."""
    reasons: tuple[Reason, ...]


def choose(candidates: Sequence[Candidate], champion: Champion | None, rules: GateRules) -> Choice:
    """Choose the candidate with the lowest score among those that pass the gate, unless the champion is kept."""
    passing = ranked([candidate for candidate in candidates if not candidate.reasons])
    if not candidates:
        return Choice("refused", None, (Reason("no_candidate", "no trainer delivered a model"),))
    if not passing:
        reasons = tuple(
            Reason(reason.code, f"{candidate.model_type}: {reason.message}")
            for candidate in candidates
            for reason in candidate.reasons
        )
        return Choice("refused", None, reasons)
    best = passing[0]
    if champion is None:
        return Choice("promoted", best.model_type, (_best_score(passing),))
    held, reason = _defence(best, champion, rules)
    if held:
        return Choice("kept", best.model_type, (reason,))
    return Choice("promoted", best.model_type, (_best_score(passing), reason))


def ranked(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return candidates by score; candidates with equal scores by serving cost, then by name."""
    rest = sorted(candidates, key=lambda candidate: (candidate.score, candidate.model_type))
    ordered: list[Candidate] = []
    while rest:
        limit = rest[0].score * (1 + TIE)
        tied = [candidate for candidate in rest if candidate.score <= limit]
        tied.sort(key=lambda candidate: (candidate.serving_cost, candidate.model_type))
        ordered += tied
        rest = rest[len(tied) :]
    return ordered


def new_pointer(
    candidate: ModelTraining, *, score: float | None, coverage: float | None, timestamp: str
) -> dict[str, Any]:
    """Return the document ``current.json`` for a promoted candidate; the store adds the pointer that it replaces.

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
    """Return the pointer of a rollback: an earlier champion with the new run's id, as a pointer only moves forward.

    It has no ``stage``: the rollback's own run decided it, also if the earlier champion was a refitted one.
    """
    pointer = {name: target.get(name) for name in POINTER_FIELDS}
    return {**pointer, "pipeline_run_id": pipeline_run_id, "timestamp": timestamp}


def _defence(best: Candidate, champion: Champion, rules: GateRules) -> tuple[bool, Reason]:
    """Return whether the champion is kept against the best candidate, and why."""
    if best.bundle_sha256 == champion.bundle_sha256:
        return True, Reason("same_bundle", f"{best.model_type} is the champion already")
    if not rules.against_champion:
        return False, Reason("champion_not_asked", "GATE_AGAINST_CHAMPION is off: the champion does not defend itself")
    if champion.card is None:
        return False, champion.why_not_scored or Reason("champion_not_scored", "the champion could not be scored")
    score = champion.card.score
    if not math.isfinite(score):
        return False, Reason("champion_not_finite", "the champion's forecasts of these rows are not finite")
    compared = f"{best.model_type} scores {best.score:.6f}, the champion {champion.model_type} {score:.6f}"
    if best.score < score * (1 - TIE):
        return False, Reason("beats_champion", compared)
    return True, Reason("champion_not_beaten", compared)


def _best_score(passing: Sequence[Candidate]) -> Reason:
    best = passing[0]
    if len(passing) == 1:
        return Reason("best_score", f"{best.model_type} scores {best.score:.6f} and alone passes the gate")
    runner_up = f"the next {passing[1].model_type} {passing[1].score:.6f}"
    return Reason("best_score", f"{best.model_type} scores {best.score:.6f}, {runner_up}")
