"""Choose the model to promote among candidates that were scored on the same rows: a pure function."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from eval_container.domain.gate import GateRules, Passing, Reason, Verdict, keep_champion, select
from eval_container.domain.scoring import Scorecard
from flts.bundle.forecaster import Forecaster
from flts.contracts.events import ModelTraining
from flts.forecasting.series import BoolArray, FloatArray, IntArray

Decision = Literal["promoted", "kept", "refused", "superseded"]

BASELINE = "baseline"
"""Code of the reason for which a baseline is promoted."""
LEAST_COMPARED_ROWS = 20
"""Rows of a data set from which its baselines are compared; of fewer, one to four are test rows, which show nothing."""
NO_ORIGINS: IntArray = np.empty(0, dtype=np.int64)
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
    "horizon_steps",
    "rows_required",
    "baseline",
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
    """Lower is cheaper: timestamps before windows, then the bytes of the model times the passes of a forecast."""
    card: Scorecard | None = None
    """Its scores on the held-out rows; None before scoring and if it cannot be scored."""
    verdict: Verdict | None = None
    """The gate's result; None before the gate and without a score."""
    reasons: tuple[Reason, ...] = ()
    """Why it cannot be promoted; empty if it passes the gate."""
    members: Mapping[str, float] = field(default_factory=dict)
    """Mean weight of each member of a combination, by model type; empty for every other candidate."""

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
    unseen: BoolArray | None = None
    """(n,) origins after the last row that it was fitted on; None if that row is not known, so that all count."""

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
    """Model type that is promoted, or that was chosen and does not replace the champion."""
    reasons: tuple[Reason, ...]

    @property
    def why_baseline(self) -> str | None:
        """Why a baseline is promoted; None if a model passed the gate."""
        promoted = self.decision == "promoted" and bool(self.reasons) and self.reasons[0].code == BASELINE
        return self.reasons[0].message if promoted else None


def choose(
    candidates: Sequence[Candidate],
    champion: Champion | None,
    rules: GateRules,
    *,
    best: Candidate | None = None,
    rows: int | None = None,
    origins: IntArray = NO_ORIGINS,
) -> Choice:
    """Choose the candidate to promote among those that pass the gate, else the best baseline.

    The champion is kept where the chosen model is worse on the rows that neither was fitted on.

    Parameters
    ----------
    candidates : sequence of Candidate
        After the gate.
    champion : Champion, optional
    rules : GateRules
    best : Candidate, optional
        The best baseline; None if there is none that can be served.
    rows : int, optional
        Rows of the data set; if they are fewer than `LEAST_COMPARED_ROWS`, ``best`` is persistence.
    origins : (n,)
        Rows of the origins of all losses.
    """
    passing = [one for one in candidates if one.card is not None and not one.reasons]
    selection = select([Passing(one.model_type, one.serving_cost, _losses(one)) for one in passing], origins, rules)
    failures = tuple(
        Reason(reason.code, f"{candidate.model_type}: {reason.message}")
        for candidate in candidates
        for reason in candidate.reasons
    )
    if selection is not None:
        winner = next(one for one in passing if one.model_type == selection.winner)
        reasons: tuple[Reason, ...] = (selection.reason,)
    elif best is not None:
        winner = best
        text = f"no model passes the gate, so the best baseline is served: {best.model_type}"
        if rows is not None and rows < LEAST_COMPARED_ROWS:
            text = f"{rows} rows are too few to compare forecasts, so the last value is served: {best.model_type}"
        reasons = (Reason(BASELINE, text), *failures)
    else:
        return Choice("refused", None, failures or (Reason("no_candidate", "no trainer delivered a model"),))
    if champion is None:
        return Choice("promoted", winner.model_type, reasons)
    kept, reason = _defence(winner, champion, rules)
    if kept:
        return Choice("kept", winner.model_type, (reason,))
    return Choice("promoted", winner.model_type, (reasons[0], reason, *reasons[1:]))


def new_pointer(
    candidate: ModelTraining,
    *,
    score: float | None,
    coverage: float | None,
    timestamp: str,
    horizon_steps: int | None = None,
    rows_required: int | None = None,
    baseline: str | None = None,
) -> dict[str, Any]:
    """Return the document ``current.json`` for a promoted model; the store adds the pointer that it replaces.

    Parameters
    ----------
    coverage : float, optional
        The least share, over targets, of test rows inside the interval one step ahead.
    horizon_steps : int, optional
        The horizon that the model was judged at.
    rows_required : int, optional
        Rows that a forecast request must contain.
    baseline : str, optional
        Why a baseline is served; None for a model that passed the gate.
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
        "horizon_steps": horizon_steps,
        "rows_required": rows_required,
        "baseline": baseline,
    }


def moved_pointer(target: Mapping[str, Any], *, pipeline_run_id: str, timestamp: str) -> dict[str, Any]:
    """Return the pointer of a rollback: an earlier champion with the new run's id, as a pointer only moves forward.

    It has no ``stage``: the rollback's own run decided it, also if the earlier champion was a refitted one.
    """
    pointer = {name: target.get(name) for name in POINTER_FIELDS}
    return {**pointer, "pipeline_run_id": pipeline_run_id, "timestamp": timestamp}


def _defence(winner: Candidate, champion: Champion, rules: GateRules) -> tuple[bool, Reason]:
    """Return whether the champion is kept against the chosen model, and why."""
    if winner.bundle_sha256 == champion.bundle_sha256:
        return True, Reason("same_bundle", f"{winner.model_type} is the champion already")
    if rules.against_champion and champion.card is None:
        return False, champion.why_not_scored or Reason("champion_not_scored", "the champion could not be scored")
    losses = _losses(winner)
    theirs = losses if champion.card is None else champion.card.losses
    later = slice(None) if champion.unseen is None else champion.unseen
    return keep_champion(winner.model_type, losses[later], champion.model_type, theirs[later], rules)


def _losses(candidate: Candidate) -> FloatArray:
    assert candidate.card is not None
    return candidate.card.losses
