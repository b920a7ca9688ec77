"""What eval does every so often: end waits that are too long, hand records to MLflow, remove what is old."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from eval_container.domain.retention import RunFacts, select_artefacts, select_logs, select_runs
from eval_container.domain.waiting import Patience, given_up, missing_types, type_of_service
from eval_container.settings import EvalSettings
from flts.contracts.events import EvaluateRequest, Event, ModelTraining, RunProgress
from flts.contracts.ids import derived_event_id
from flts.errors import RejectedError
from flts.observability.logs import bind, get_logger
from flts.runtime.adapters import Adapters
from flts.runtime.service import Progress
from flts.storage.ports import ObjectStore
from flts.storage.runs import RunName
from flts.tracking.spool import Spool

if TYPE_CHECKING:
    from flts.tracking.mlflow import Tracker

log = get_logger(__name__)

SETTLE_SECONDS = 30.0
"""A run that has all it needs is being decided, or its message comes again; only after this is it asked for."""
REMIND_SECONDS = 60.0
"""A run that was asked for and is still open is asked for again after this."""
CONFIG_POINTER = 3
"""Segments of ``<identifier>/<config_hash>/current.json``; the champion's own pointer has two."""
SPOOL_LEASE_SECONDS = 120.0
SPOOL_DOCUMENTS = 50
"""Handed to MLflow at one go at most; it ends sooner once half the lease is over."""

UNREADABLE = (RejectedError, AttributeError, LookupError, TypeError, ValueError)
"""Raised by a record that is no JSON, or holds something else than it should."""


class SignsOfLife:
    """When each model type was last heard of, in events and progress of any run.

    Kept in memory: after a restart nobody was heard of yet, so everybody has the whole silence again; how long a run
    may take in all is counted from its record in the store.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._since = now()
        self._seen: dict[str, float] = {}

    def __call__(self, event: Event, progress: Progress) -> Sequence[Event]:
        """Take in an event of run-progress or model-training; others say nothing."""
        del progress
        model_type = None
        if isinstance(event, RunProgress):
            model_type = type_of_service(event.service)
        elif isinstance(event, ModelTraining):
            model_type = event.model_type
        if model_type is not None:
            self._seen[model_type] = self._now()
        return []

    def last(self, model_types: Sequence[str]) -> dict[str, float]:
        """Return epoch seconds of each type's last sign; the start of this process where there was none."""
        return {kind: self._seen.get(kind, self._since) for kind in model_types}


class Overdue:
    """Finds runs that waited too long, or that were left between decision and outcome.

    It decides nothing: it asks for a decision on model-training, where the run's partition has one owner and models
    run in the child process.
    """

    def __init__(
        self, settings: EvalSettings, adapters: Adapters, signs: SignsOfLife, *, now: Callable[[], float] = time.time
    ) -> None:
        self._runs = adapters.run_store
        self._patience = Patience(settings.eval_silence_seconds, settings.eval_max_seconds)
        self._signs = signs
        self._now = now
        self._asked: dict[RunName, float] = {}
        self._complete_since: dict[RunName, float] = {}

    def __call__(self) -> Sequence[Event]:
        """Return a request for each run that is to be decided now."""
        now = self._now()
        names = self._runs.open_runs()
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
        """Return whether a run is due; one broken record must not hold up the other runs."""
        try:
            return self._is_due(name, now)
        except UNREADABLE:
            log.exception("run_unreadable", identifier=name.identifier, pipeline_run_id=name.pipeline_run_id)
            return False

    def _is_due(self, name: RunName, now: float) -> bool:
        if self._runs.decision(*name) is not None:
            return self._has_settled(name, now)
        expected = self._runs.expected(*name)
        if expected is None:
            return False
        missing = missing_types(expected["model_types"], self._runs.trained(*name))
        if not missing:
            return self._has_settled(name, now)
        return given_up(
            missing,
            now=now,
            started=float(expected["started"]),
            last_sign=self._signs.last(missing),
            patience=self._patience,
        )

    def _has_settled(self, name: RunName, now: float) -> bool:
        return now - self._complete_since.setdefault(name, now) >= SETTLE_SECONDS


class DrainSpool:
    """Hands MLflow what it has not taken yet; one replica at a time."""

    def __init__(
        self, settings: EvalSettings, adapters: Adapters, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._adapters = adapters
        self._clock = clock
        self._spool = Spool(adapters.store, settings.bucket_pipeline_runs)
        self._owner = uuid.uuid4().hex

    def __call__(self) -> Sequence[Event]:
        """Drain some of the spool."""
        waiting = len(self._spool.keys())
        self._adapters.metrics.spool_documents.set(waiting)
        # The tracker is made, and MLflow's 164 MB imported, only where there is something for it.
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
        """Hand on one document after another, for half the lease: a last one has the other half for itself."""
        began = self._clock()
        drained = 0
        limit = 1
        for _ in range(min(waiting, SPOOL_DOCUMENTS)):
            if self._clock() - began >= SPOOL_LEASE_SECONDS / 2:
                break
            taken = tracker.drain_spool(limit)
            drained += taken
            # What was not taken stays at the head of the queue: it is stepped over, not waited for.
            limit += taken == 0
        return drained


STALE_SECONDS = 86_400.0
"""Longer than any training: WORK_DEADLINE_SECONDS times its tries."""


@dataclass(frozen=True, slots=True)
class Removal:
    """What a round of the janitor removes of one identifier."""

    identifier: str
    runs: tuple[str, ...]
    objects: tuple[tuple[str, str], ...]
    """(bucket, key)."""


class Janitor:
    """Removes old runs, what only they name, and old forecast logs; one replica, once a period."""

    def __init__(self, settings: EvalSettings, adapters: Adapters, *, now: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._adapters = adapters
        self._runs = adapters.run_store
        self._store: ObjectStore = adapters.store
        self._now = now

    def __call__(self) -> Sequence[Event]:
        """Do a round, unless a replica did one within the period."""
        # The lease is kept to its end, under a new owner each time: it also says when the last round was.
        period = self._settings.janitor_period_seconds
        if self._runs.acquire_lease("janitor", uuid.uuid4().hex, period * 0.99):
            for identifier in self._runs.identifiers():
                try:
                    self.carry_out(self._plan(identifier))
                except UNREADABLE:
                    # Nothing of an identifier goes unless all of its records can be read; the others do not wait.
                    log.exception("janitor_skipped", identifier=identifier)
            self._end_stale_records()
        return []

    def plan(self) -> Iterator[Removal]:
        """Yield what would be removed, identifier by identifier, changing nothing."""
        for identifier in self._runs.identifiers():
            yield self._plan(identifier)

    def carry_out(self, removal: Removal) -> None:
        """Remove what was planned; may be repeated. Data go before the records that tell they are not needed."""
        removed = 0
        for bucket, key in removal.objects:
            self._store.delete(bucket, key)
            removed += 1
        for run in removal.runs:
            removed += self._runs.delete_run(removal.identifier, run)
        if removed:
            self._adapters.metrics.janitor_removed.inc(removed)
            with bind(identifier=removal.identifier):
                log.info("janitor_removed", objects=removed, runs=len(removal.runs))

    def _end_stale_records(self) -> None:
        """End runs that MLflow shows as running though their trainer is long gone."""
        started = [_created(name.pipeline_run_id) for name in self._runs.recent_runs()]
        # Without a run that old there is none to end, and MLflow's import is saved.
        if any(self._now() - seconds > STALE_SECONDS for seconds in started) and self._adapters.tracker is not None:
            self._adapters.tracker.end_stale_runs(STALE_SECONDS)

    def _plan(self, identifier: str) -> Removal:
        settings = self._settings
        # Artefacts are listed before runs: what a run that begins meanwhile stores is younger than any that goes.
        artefacts = {
            bucket: {info.key: info.modified for info in self._store.list(bucket, f"{identifier}/")}
            for bucket in (settings.bucket_processed_data, settings.bucket_model_bundles)
        }
        facts = [self._facts(RunName(identifier, run)) for run in self._runs.runs(identifier)]
        pointers = self._pointers(identifier)
        selection = select_runs(
            facts,
            now=self._now(),
            retain_runs=settings.retain_runs,
            pointed_runs={str(pointer["pipeline_run_id"]) for pointer in pointers},
            pointed_configs={str(pointer["config_hash"]) for pointer in pointers},
            pointed_bundles={
                _folder(pointer["bundle"]["object_key"]) for pointer in (*pointers, *self._config_pointers(identifier))
            },
        )
        unfinished = {run.config_hash for run in facts if not run.finished and run.config_hash}
        objects = [
            (bucket, key)
            for bucket, listed in artefacts.items()
            for key in select_artefacts(listed, selection, now=self._now(), unfinished_configs=unfinished)
        ]
        logs = settings.bucket_inference_logs
        today = datetime.fromtimestamp(self._now(), UTC).date()
        keys = (info.key for info in self._store.list(logs, f"{identifier}/"))
        objects += [(logs, key) for key in select_logs(keys, today=today, retain_days=settings.retain_log_days)]
        return Removal(identifier, selection.runs, tuple(objects))

    def _facts(self, name: RunName) -> RunFacts:
        expected = self._runs.expected(*name)
        trained = self._runs.trained(*name)
        waiting = self._runs.inference(*name) is not None and self._runs.forecast(*name) is None
        return RunFacts(
            pipeline_run_id=name.pipeline_run_id,
            finished=self._runs.outcome(*name) is not None and not waiting,
            config_hash=expected["training_data"].get("config_hash") if expected else None,
            created=_created(name.pipeline_run_id),
            bundle_prefixes=frozenset(_folder(event.bundle.object_key) for event in trained.values() if event.bundle),
        )

    def _pointers(self, identifier: str) -> list[Mapping[str, Any]]:
        """Return the current pointer and its predecessor."""
        current = self._runs.current(identifier)
        if current is None:
            return []
        previous = current[0].get("previous")
        return [current[0], previous] if previous else [current[0]]

    def _config_pointers(self, identifier: str) -> list[Mapping[str, Any]]:
        """Return the pointers of single configurations: their bundles stay, the data that made them may go."""
        keys = (info.key.split("/") for info in self._store.list(self._settings.promotion_bucket, f"{identifier}/"))
        found = (self._runs.current_of_config(identifier, parts[1]) for parts in keys if len(parts) == CONFIG_POINTER)
        return [pointer for pointer in found if pointer is not None]


def _request(name: RunName, now: float) -> EvaluateRequest:
    return EvaluateRequest(
        event_id=derived_event_id(name.pipeline_run_id, "overdue"),
        identifier=name.identifier,
        pipeline_run_id=name.pipeline_run_id,
        created_at=datetime.fromtimestamp(now, UTC),
        of_run=name.pipeline_run_id,
    )


def _created(pipeline_run_id: str) -> float:
    """Return the epoch seconds that a UUIDv7 begins with."""
    return (uuid.UUID(pipeline_run_id).int >> 80) / 1000


def _folder(object_key: str) -> str:
    return object_key.rpartition("/")[0] + "/"


@contextmanager
def _lease(adapters: Adapters, name: str, owner: str, seconds: float) -> Iterator[bool]:
    mine = adapters.run_store.acquire_lease(name, owner, seconds)
    try:
        yield mine
    finally:
        if mine:
            adapters.run_store.release_lease(name, owner)
