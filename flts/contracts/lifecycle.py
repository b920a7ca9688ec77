"""The state of a pipeline run, derived from its records in the store; `docs/architecture.md` shows the states."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Self

from flts.errors import RejectedError


class RunState(StrEnum):
    """The states of a run, in the order in which a run passes through them."""

    RECORDED = "recorded"
    """``run.json`` exists; the broker may not have the event of the run yet."""
    ANNOUNCED = "announced"
    PREPROCESSING = "preprocessing"
    """Also after a failure that a replay can repair."""
    TRAINING = "training"
    DECIDING = "deciding"
    """Also after the decision, while eval moves the champion pointer."""
    PROMOTED = "promoted"
    KEPT = "kept"
    """The earlier champion stays, because no model of the run was better."""
    REFUSED = "refused"
    """No model passed the gate."""
    SUPERSEDED = "superseded"
    """A newer run was promoted first."""
    REJECTED = "rejected"
    """Preprocess cannot make a data set from the upload."""
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
        """Whether no service works on the run any more."""
        return self in ENDS or self in {RunState.ENDED, RunState.DELETED}

    @classmethod
    def of_outcome(cls, outcome: Mapping[str, Any] | None) -> Self | None:
        """Return the final state in ``outcome.json``, or None without an ``outcome.json``.

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
"""The values of ``outcome`` in ``outcome.json`` that this release defines."""
SERVED = frozenset({RunState.PROMOTED, RunState.KEPT, RunState.SUPERSEDED})
"""Final states after which replicas serve a champion that is at least as good as the run's models, or newer."""


CANCELLED_REASON = "cancelled: "
"""Prefix of the reason in the decision of a cancelled run; releases without the field ``cancelled`` check it."""


def is_cancellation(decision: Mapping[str, Any]) -> bool:
    """Return whether ``decision.json`` is a cancellation, which the gateway writes so that eval cannot decide the run.

    A decision written before the field ``cancelled`` existed has only the prefix of the reason.
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
        Whether ``announced.json`` exists.
    stages : mapping
        The records below ``stages/``, by name.
    decision, outcome : mapping, optional
        ``decision.json`` and ``outcome.json``.
    deleted : bool
        Whether the identifier was deleted after the run began.

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
