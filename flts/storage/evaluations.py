"""Records on which eval decides a run, and the decision."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flts.contracts.events import ModelTraining
from flts.storage import layout
from flts.storage.layout import RunName
from flts.storage.records import Record, Records, parse_event

if TYPE_CHECKING:
    from flts.contracts.claim_check import ClaimCheck


class Evaluations:
    """What eval waits for, what trainers delivered, scoreboards and decisions.

    Parameters
    ----------
    records : Records
        Of the bucket of runs.
    """

    def __init__(self, records: Records) -> None:
        self._records = records

    def put_expected(self, identifier: str, pipeline_run_id: str, expected: Mapping[str, Any]) -> Record:
        """Record what eval waits for, unless it is recorded; return the record in the store."""
        return self._records.adopt(layout.EXPECTED(identifier, pipeline_run_id), expected)[0]

    def expected(self, identifier: str, pipeline_run_id: str) -> Record | None:
        """Return what eval waits for, or None."""
        return self._records.read(layout.EXPECTED(identifier, pipeline_run_id))

    def put_trained(self, event: ModelTraining) -> bool:
        """Record a model type's final event; return whether this call wrote it.

        The first one stays, but for a failure, which a success replaces as long as the run has no decision.
        """
        name = RunName(event.identifier, event.pipeline_run_id)

        def change(stored: Record | None) -> Record | None:
            if stored is not None:
                better = stored.get("status") == "FAILED" and event.status == "SUCCESS"
                if not better or self._records.exists(layout.DECISION(*name)):
                    return None
            return event.model_dump(mode="json")

        return self._records.change(layout.TRAINED(*name, event.model_type), change)

    def trained(self, identifier: str, pipeline_run_id: str) -> dict[str, ModelTraining]:
        """Return the final events recorded so far, by model type."""
        name = RunName(identifier, pipeline_run_id)
        found = self._records.folder(layout.TRAINED.prefix(*name))
        return {kind: parse_event(ModelTraining, record, layout.TRAINED(*name, kind)) for kind, record in found}

    def put_scoreboard(self, identifier: str, pipeline_run_id: str, data: bytes) -> ClaimCheck:
        """Store a scoreboard under its own hash and return its claim."""
        key = layout.SCOREBOARD(identifier, pipeline_run_id, hashlib.sha256(data).hexdigest())
        return self._records.put_claimed(key, data)

    def decide(self, identifier: str, pipeline_run_id: str, decision: Mapping[str, Any]) -> tuple[Record, bool]:
        """Decide a run, once: return the decision in the store, and whether it is this one."""
        return self._records.adopt(layout.DECISION(identifier, pipeline_run_id), decision)

    def decision(self, identifier: str, pipeline_run_id: str) -> Record | None:
        """Return the run's decision, or None."""
        return self._records.read(layout.DECISION(identifier, pipeline_run_id))
