"""Records with which eval decides a run, and the decision."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flts.contracts.champion_stage import DECIDED, PROVISIONAL, stage_of
from flts.contracts.events import ModelTraining
from flts.storage import layout
from flts.storage.layout import RunName
from flts.storage.records import Record, Records, parse_event

if TYPE_CHECKING:
    from flts.contracts.claim_check import ClaimCheck


class Evaluations:
    """Records of expected model types, trainers' results, scoreboards and the stages of a champion.

    Parameters
    ----------
    records : Records
        The records of the bucket of runs.
    """

    def __init__(self, records: Records) -> None:
        self._records = records

    def put_expected(self, identifier: str, pipeline_run_id: str, expected: Mapping[str, Any]) -> Record:
        """Record the model types that a run waits for, unless a record exists; return the record in the store."""
        return self._records.adopt(layout.EXPECTED(identifier, pipeline_run_id), expected)[0]

    def expected(self, identifier: str, pipeline_run_id: str) -> Record | None:
        """Return the record of the model types that a run waits for, or None."""
        return self._records.read(layout.EXPECTED(identifier, pipeline_run_id))

    def put_trained(self, event: ModelTraining) -> bool:
        """Record the final event of a model type; return whether this call wrote it.

        The first event stays, with one exception: a success replaces a failure while the run has no decision.
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
        """Store a scoreboard under a key with its hash, and return its claim check."""
        key = layout.SCOREBOARD(identifier, pipeline_run_id, hashlib.sha256(data).hexdigest())
        return self._records.put_claimed(key, data)

    def decide(self, identifier: str, pipeline_run_id: str, decision: Mapping[str, Any]) -> tuple[Record, bool]:
        """Write a decision unless one exists; return the decision in the store, and whether this call wrote it."""
        return self._records.adopt(layout.DECISION(identifier, pipeline_run_id), decision)

    def decision(self, identifier: str, pipeline_run_id: str) -> Record | None:
        """Return the run's decision, or None."""
        return self._records.read(layout.DECISION(identifier, pipeline_run_id))

    def put_provisional(
        self, identifier: str, pipeline_run_id: str, provisional: Mapping[str, Any]
    ) -> tuple[Record, bool]:
        """Write the record of a provisional champion as `decide` writes a decision."""
        return self._records.adopt(layout.PROVISIONAL(identifier, pipeline_run_id), provisional)

    def provisional(self, identifier: str, pipeline_run_id: str) -> Record | None:
        """Return the record of the run's provisional champion, or None."""
        return self._records.read(layout.PROVISIONAL(identifier, pipeline_run_id))

    def put_refit(self, identifier: str, pipeline_run_id: str, refit: Mapping[str, Any]) -> tuple[Record, bool]:
        """Write the record of a refitted champion as `decide` writes a decision.

        ``pointer`` of a refit that was thrown away is null, so that no rollback returns to it.
        """
        return self._records.adopt(layout.REFIT(identifier, pipeline_run_id), refit)

    def refit(self, identifier: str, pipeline_run_id: str) -> Record | None:
        """Return the record of the run's refitted champion, or None."""
        return self._records.read(layout.REFIT(identifier, pipeline_run_id))

    def judged(self, identifier: str, pointer: Record) -> Record:
        """Return the pointer to the fit that was scored: for a refitted champion that of its run's decision.

        A refitted model was fitted on the held-out rows too, so its errors on them say nothing.
        """
        if stage_of(pointer) in {PROVISIONAL, DECIDED}:
            return pointer
        decision = self.decision(identifier, str(pointer.get("pipeline_run_id"))) or {}
        return decision.get("pointer") or pointer
