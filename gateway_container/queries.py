"""Queries of runs, data sets and champions in the store. The functions block, so routes call them in a thread."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from flts.contracts.claim_check import ClaimCheck
from flts.contracts.ids import IDENTIFIER_PATTERN
from flts.errors import HashMismatchError, NotFoundError, ObjectNotFoundError
from flts.ingest.uploads import newest_upload
from flts.observability.logs import get_logger
from flts.storage.claims import read_claimed
from flts.storage.layout import RunName
from flts.storage.ports import ObjectStore
from flts.storage.run_store import RunStore
from gateway_container.domain import views
from gateway_container.live import LiveRuns

log = get_logger(__name__)

MOST_FINISHED = 2000


class Queries:
    """Answers queries; keeps the summaries of finished runs in memory, so that a list reads fewer objects."""

    def __init__(
        self,
        store: ObjectStore,
        run_store: RunStore,
        live: LiveRuns,
        *,
        raw_bucket: str,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._evaluations = run_store.evaluations
        self._pointers = run_store.pointers
        self._runs = run_store.runs
        self._stages = run_store.stages
        self._live = live
        self._raw_bucket = raw_bucket
        self._now = now
        self._lock = threading.Lock()
        self._finished: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def identifier_of(self, run_id: str) -> str:
        """Return the identifier that a run belongs to.

        Raises
        ------
        NotFoundError
            If there is no such run.
        """
        identifier = self._runs.identifier_of(run_id)
        if identifier is None:
            msg = f"there is no run {run_id[:60]}; `flts runs` lists them"
            raise NotFoundError(msg, code="unknown_run", field="pipeline_run_id")
        return identifier

    def run(self, run_id: str, identifier: str | None = None) -> dict[str, Any]:
        """Return the complete view of a run.

        Raises
        ------
        NotFoundError
            If there is no such run.
        """
        identifier = identifier or self.identifier_of(run_id)
        records = self._records(identifier, run_id, full=True)
        if records is None:
            msg = f"the run {run_id[:60]} has no record any more"
            raise NotFoundError(msg, code="unknown_run", field="pipeline_run_id")
        return views.run_view(records, self._live.progress(run_id), now=self._now())

    def ended(self, run_id: str, identifier: str) -> bool:
        """Return whether a run has ended."""
        return self._runs.end(identifier, run_id) is not None

    def runs(self, identifier: str | None, limit: int) -> list[dict[str, Any]]:
        """Return the newest runs, of one identifier or of all; run ids are ordered by time."""
        if identifier is None:
            names = self._runs.recent(limit)
        else:
            names = [RunName(identifier, run_id) for run_id in self._runs.of(identifier)[:limit]]
        summaries = (self._summary(*name) for name in names)
        return [summary for summary in summaries if summary is not None]

    def identifiers(self) -> list[str]:
        """Return the identifiers that have an upload or a run, ordered."""
        uploaded = {name for name in self._store.list_folders(self._raw_bucket) if IDENTIFIER_PATTERN.fullmatch(name)}
        return sorted(uploaded | set(self._runs.identifiers()))

    def datasets(self) -> list[dict[str, Any]]:
        """Return each identifier with its newest upload, last run and champion."""
        return [self._dataset(identifier) for identifier in self.identifiers()]

    def champions(self) -> dict[str, dict[str, Any]]:
        """Return the content of each champion pointer, by identifier."""
        return {name: views.champion_view(pointer) for name, pointer in self._pointers.champions().items()}

    def _dataset(self, identifier: str) -> dict[str, Any]:
        upload = newest_upload(self._store, self._raw_bucket, identifier)
        runs = self._runs.of(identifier)
        current = self._pointers.current(identifier)
        return views.plain_record(
            {
                "identifier": identifier,
                "newest_upload": None
                if upload is None
                else {
                    "sha256": upload.upload_hash,
                    "train": {"object_key": upload.train.key, "size_bytes": upload.train.size},
                    "test": None
                    if upload.test is None
                    else {"object_key": upload.test.key, "size_bytes": upload.test.size},
                    "uploaded_at": datetime.fromtimestamp(upload.train.modified, UTC).isoformat(),
                },
                "runs": len(runs),
                "last_run": self._summary(identifier, runs[0]) if runs else None,
                "champion": views.champion_view(current[0]) if current else None,
            }
        )

    def _summary(self, identifier: str, run_id: str) -> dict[str, Any] | None:
        with self._lock:
            known = self._finished.get(run_id)
        if known is not None:
            return known
        records = self._records(identifier, run_id, full=False)
        if records is None:
            return None
        summary = views.summary_view(records, self._live.progress(run_id), now=self._now())
        if records.outcome is not None and "forecast" in records.stages:
            # The forecast of the test rows is a run's last stage, so this run has ended. Its summary is kept and not
            # computed again: the stages in it keep the status that they have now.
            with self._lock:
                self._finished[run_id] = summary
                while len(self._finished) > MOST_FINISHED:
                    self._finished.popitem(last=False)
        return summary

    def _records(self, identifier: str, run_id: str, *, full: bool) -> views.RunRecords | None:
        run = self._runs.read(identifier, run_id)
        if run is None:
            return None
        outcome = self._runs.outcome(identifier, run_id)
        decision = self._evaluations.decision(identifier, run_id)
        return views.RunRecords(
            run=run,
            stages=self._stages.of(identifier, run_id),
            announced=full and self._runs.announced(identifier, run_id),
            expected=self._evaluations.expected(identifier, run_id) if full else None,
            trained={
                name: event.model_dump(mode="json")
                for name, event in self._evaluations.trained(identifier, run_id).items()
            }
            if full
            else {},
            provisional=self._evaluations.provisional(identifier, run_id) if full else None,
            decision=decision,
            refit=self._evaluations.refit(identifier, run_id) if full else None,
            scoreboard=self._scoreboard(decision) if full and decision else None,
            outcome=outcome,
            deleted=full and self._runs.deleted(identifier, run_id),
        )

    def _scoreboard(self, decision: dict[str, Any]) -> dict[str, Any] | None:
        claim = decision.get("scoreboard")
        if not claim:
            return None
        try:
            content = json.loads(read_claimed(self._store, ClaimCheck.model_validate(claim)))
        except (ObjectNotFoundError, HashMismatchError, ValueError):
            log.exception("scoreboard_unreadable", object_key=claim.get("object_key"))
            return None
        return dict(content)
