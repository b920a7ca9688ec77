"""The periodic work of eval: end overdue waits, record spooled documents in MLflow, run the janitor."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from eval_container.domain.waiting import Patience, awaited_types, given_up
from eval_container.settings import EvalSettings
from flts.contracts.events import EvaluateRequest, Event, ModelTraining, RunProgress
from flts.contracts.ids import derived_event_id, run_created_seconds
from flts.errors import ConflictError
from flts.housekeeping.janitor import UNREADABLE, Janitor
from flts.observability.logs import get_logger
from flts.runtime.adapters import Adapters
from flts.service import Progress
from flts.storage.layout import RunName
from flts.tracking.spool import Spool
from flts.trainers import trained_by

if TYPE_CHECKING:
    from flts.tracking.mlflow import Tracker

log = get_logger(__name__)

SETTLE_SECONDS = 30.0
"""Seconds from the last result of a run to a request; before this, the message of the result leads to a decision."""
REMIND_SECONDS = 60.0
"""Seconds between two requests for a run that is still open."""
SPOOL_LEASE_SECONDS = 120.0
SPOOL_DOCUMENTS = 50
"""Most documents that one tick records in MLflow; a tick also ends after half of the lease."""


class SignsOfLife:
    """The time of the last event or progress of each model type, in any run.

    The times are in memory, so after a restart the allowed silence of each type begins again. The longest duration of a
    run is counted from its record in the store.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._since = now()
        self._seen: dict[str, float] = {}

    def __call__(self, event: Event, progress: Progress) -> Sequence[Event]:
        """Record the time of an event of run-progress or model-training; other events are ignored."""
        del progress
        model_types: tuple[str, ...] = ()
        if isinstance(event, RunProgress):
            model_types = trained_by(event.service)
        elif isinstance(event, ModelTraining):
            model_types = (event.model_type,)
        self._seen |= dict.fromkeys(model_types, self._now())
        return []

    def last(self, model_types: Sequence[str]) -> dict[str, float]:
        """Return epoch seconds of each type's last event or progress, or else of the start of this process."""
        return {kind: self._seen.get(kind, self._since) for kind in model_types}


class Overdue:
    """Finds runs that waited too long, or that were left between decision and outcome.

    It decides nothing. It publishes a request to the topic model-training: there one replica owns the run's partition,
    and models run in the child process.
    """

    def __init__(
        self, settings: EvalSettings, adapters: Adapters, signs: SignsOfLife, *, now: Callable[[], float] = time.time
    ) -> None:
        self._evaluations = adapters.run_store.evaluations
        self._runs = adapters.run_store.runs
        self._patience = Patience(settings.eval_silence_seconds, settings.eval_max_seconds)
        self._signs = signs
        self._now = now
        self._asked: dict[RunName, float] = {}
        self._complete_since: dict[RunName, float] = {}

    def __call__(self) -> Sequence[Event]:
        """Return a request for each run that is to be decided now."""
        now = self._now()
        names = self._runs.unfinished()
        for remembered in (self._asked, self._complete_since):
            for name in remembered.keys() - set(names):
                del remembered[name]
        requests = []
        for name in names:
            if now - self._asked.get(name, -REMIND_SECONDS) >= REMIND_SECONDS and self._is_due_if_readable(name, now):
                self._asked[name] = now
                log.info("run_overdue", identifier=name.identifier, pipeline_run_id=name.pipeline_run_id)
                requests.append(_request(name, now))
        return requests

    def _is_due_if_readable(self, name: RunName, now: float) -> bool:
        """Return whether a run is due; a broken record must not delay the other runs."""
        try:
            return self._is_due(name, now)
        except UNREADABLE:
            log.exception("run_unreadable", identifier=name.identifier, pipeline_run_id=name.pipeline_run_id)
            return False

    def _is_due(self, name: RunName, now: float) -> bool:
        if self._evaluations.decision(*name) is not None:
            return self._has_settled(name, now)
        expected = self._evaluations.expected(*name)
        if expected is None:
            return False
        awaited = awaited_types(expected["model_types"], self._evaluations.trained(*name))
        if not awaited:
            return self._has_settled(name, now)
        return given_up(
            awaited,
            now=now,
            started=float(expected["started"]),
            last_sign=self._signs.last(awaited),
            patience=self._patience,
        )

    def _has_settled(self, name: RunName, now: float) -> bool:
        return now - self._complete_since.setdefault(name, now) >= SETTLE_SECONDS


class DrainSpool:
    """Records spooled documents in MLflow; one replica at a time."""

    def __init__(
        self, settings: EvalSettings, adapters: Adapters, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._adapters = adapters
        self._clock = clock
        self._spool = Spool(adapters.store, settings.bucket_pipeline_runs)
        self._owner = uuid.uuid4().hex

    def __call__(self) -> Sequence[Event]:
        """Record some of the spooled documents."""
        waiting = len(self._spool.keys())
        self._adapters.metrics.spool_documents.set(waiting)
        # Reading `tracker` loads MLflow (164 MB), so `tracker` is read only if a document waits.
        tracker = self._adapters.tracker if waiting else None
        if tracker is None:
            return []
        with _lease(self._adapters, "spool", self._owner, SPOOL_LEASE_SECONDS) as mine:
            if mine:
                drained = self._drain(tracker, waiting)
                if drained:
                    log.info("spool_drained", documents=drained)
        return []

    def _drain(self, tracker: Tracker, waiting: int) -> int:
        """Record one document after another during half of the lease; the other half is left for the last document."""
        began = self._clock()
        drained = 0
        limit = 1
        for _ in range(min(waiting, SPOOL_DOCUMENTS)):
            if self._clock() - began >= SPOOL_LEASE_SECONDS / 2:
                break
            taken = tracker.drain_spool(limit)
            drained += taken
            # MLflow did not accept any of these documents, and they stay first in the queue. The next pass of this loop
            # reads one document more, so that it also reaches the document behind them.
            limit += taken == 0
        return drained


STALE_SECONDS = 86_400.0
"""Seconds; longer than any training, which is limited by WORK_DEADLINE_SECONDS times its attempts."""


class JanitorTick:
    """Runs a round of the janitor, in one replica, once per period, and ends stale runs in MLflow."""

    def __init__(self, settings: EvalSettings, adapters: Adapters, *, now: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._adapters = adapters
        self._leases = adapters.run_store.leases
        self._runs = adapters.run_store.runs
        self._janitor = Janitor(adapters.store, adapters.run_store, settings, adapters.metrics, now=now)
        self._now = now

    def __call__(self) -> Sequence[Event]:
        """Do a round, unless a replica did a round within the period."""
        # The lease is not released after the round. It expires after almost one period, so until then no replica
        # acquires it and starts another round.
        period = self._settings.janitor_period_seconds
        if self._leases.acquire("janitor", uuid.uuid4().hex, period * 0.99):
            try:
                self._janitor.round()
            except ConflictError:
                log.info("janitor_waits", reason="a person has it do a round")
            self._end_stale_records()
        return []

    def _end_stale_records(self) -> None:
        """End runs that MLflow shows as running although their trainer ended long ago."""
        started = [run_created_seconds(name.pipeline_run_id) for name in self._runs.recent()]
        # MLflow is imported only if a run is old enough to be stale.
        if any(self._now() - seconds > STALE_SECONDS for seconds in started) and self._adapters.tracker is not None:
            self._adapters.tracker.end_stale_runs(STALE_SECONDS)


def _request(name: RunName, now: float) -> EvaluateRequest:
    return EvaluateRequest(
        event_id=derived_event_id(name.pipeline_run_id, "overdue"),
        identifier=name.identifier,
        pipeline_run_id=name.pipeline_run_id,
        created_at=datetime.fromtimestamp(now, UTC),
        of_run=name.pipeline_run_id,
    )


@contextmanager
def _lease(adapters: Adapters, name: str, owner: str, seconds: float) -> Iterator[bool]:
    mine = adapters.run_store.leases.acquire(name, owner, seconds)
    try:
        yield mine
    finally:
        if mine:
            adapters.run_store.leases.release(name, owner)
