"""The state of a pipeline run, derived from its records in the store (drawn in `docs/architecture.md`)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Self

from flts.errors import RejectedError


class RunState(StrEnum):
    """How far a run is, in the order in which runs pass through them."""

    RECORDED = "recorded"
    """The broker may not have its event yet."""
    ANNOUNCED = "announced"
    PREPROCESSING = "preprocessing"
    """Also after a failure that a replay can mend."""
    TRAINING = "training"
    DECIDING = "deciding"
    """Also while the pointer moves after the decision."""
    PROMOTED = "promoted"
    KEPT = "kept"
    """The champion before this run stays, since none of the run's models beat it."""
    REFUSED = "refused"
    """No model passed the gate."""
    SUPERSEDED = "superseded"
    """A newer run was promoted first."""
    REJECTED = "rejected"
    """Its data cannot be trained on."""
    CANCELLED = "cancelled"
    ENDED = "ended"
    """A newer release gave the run an outcome that this release does not define."""
    DELETED = "deleted"

    @property
    def decided(self) -> bool:
        """Whether eval ended the run."""
        return self in DECIDED

    @property
    def over(self) -> bool:
        """Whether the run is worked on no more."""
        return self in ENDS or self in {RunState.ENDED, RunState.DELETED}

    @classmethod
    def of_outcome(cls, outcome: Mapping[str, Any] | None) -> Self | None:
        """Return how a run ended by its ``outcome.json``, or None where there is none.

        Raises
        ------
        RejectedError
            With code ``corrupt_record`` if the record states no outcome.
        """
        if outcome is None:
            return None
        end = outcome.get("outcome")
        if not isinstance(end, str) or not end:
            msg = f"a run ends as {', '.join(sorted(ENDS))}; its outcome says {str(end)[:60]!r}"
            raise RejectedError(msg, code="corrupt_record", field="outcome")
        return cls(end) if end in ENDS else cls.ENDED


DECIDED = frozenset({RunState.PROMOTED, RunState.KEPT, RunState.REFUSED, RunState.SUPERSEDED})
ENDS = DECIDED | {RunState.REJECTED, RunState.CANCELLED}
"""What ``outcome.json`` can say."""
SERVED = frozenset({RunState.PROMOTED, RunState.KEPT, RunState.SUPERSEDED})
"""Ends after which a champion is served that is at least as good as the run's models, or newer."""


CANCELLED_REASON = "cancelled: "
"""Begins the reason in the decision of a cancelled run: readers without the field ``cancelled`` go by it."""


def is_cancellation(decision: Mapping[str, Any]) -> bool:
    """Return whether ``decision.json`` only keeps eval from deciding, since a person cancelled the run.

    Stores that were written before there was the field ``cancelled`` say it in the reason alone.
    """
    in_words = any(str(reason).startswith(CANCELLED_REASON) for reason in decision.get("reasons") or ())
    return decision.get("decision") == "refused" and (decision.get("cancelled") is True or in_words)


def run_state(
    *,
    announced: bool,
    stages: Mapping[str, Mapping[str, Any]],
    decision: Mapping[str, Any] | None,
    outcome: Mapping[str, Any] | None,
    deleted: bool = False,
) -> RunState:
    """Return a run's state.

    Parameters
    ----------
    announced : bool
        Whether there is ``announced.json``.
    stages : mapping
        The records below ``stages/`` by name.
    decision, outcome : mapping, optional
        ``decision.json`` and ``outcome.json``.
    deleted : bool
        Whether its identifier was deleted since it began.

    Raises
    ------
    RejectedError
        If ``outcome.json`` states no outcome.
    """
    if deleted:
        return RunState.DELETED
    if (end := RunState.of_outcome(outcome)) is not None:
        return end
    if decision is not None and is_cancellation(decision):
        return RunState.CANCELLED
    if decision is not None or "eval" in stages:
        return RunState.DECIDING
    if stages.get("preprocess", {}).get("status") == "done" or not stages.keys() <= {"upload", "preprocess"}:
        return RunState.TRAINING
    begun = RunState.ANNOUNCED if announced else RunState.RECORDED
    return RunState.PREPROCESSING if "preprocess" in stages else begun
