"""The janitor removes old runs, the artefacts that only these runs name, old forecast logs, remains of deletions."""

from __future__ import annotations

import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flts.contracts.ids import run_created_seconds
from flts.errors import ConflictError, RejectedError
from flts.housekeeping.deletion import Deletion
from flts.housekeeping.retention import RunFacts, select_artefacts, select_logs, select_runs
from flts.observability.logs import bind, get_logger
from flts.settings import RetentionSettings
from flts.storage import layout
from flts.storage.layout import RunName

if TYPE_CHECKING:
    from flts.observability.metrics import Metrics
    from flts.storage.ports import ObjectStore
    from flts.storage.run_store import RunStore

log = get_logger(__name__)

LEASE = "janitor-round"
LEASE_SECONDS = 600.0
"""Seconds; the janitor renews the lease before it removes the objects of each identifier."""
SHOWN_KEYS = 100

UNREADABLE = (RejectedError, AttributeError, LookupError, TypeError, ValueError)
"""Errors that a record raises if it is not JSON or has an unexpected content."""


@dataclass(frozen=True, slots=True)
class Doomed:
    """An object that a round removes, with the reason."""

    bucket: str
    key: str
    size_bytes: int
    why: str


@dataclass(frozen=True, slots=True)
class Removal:
    """The objects of one identifier that a round removes."""

    identifier: str
    runs: tuple[str, ...]
    objects: tuple[Doomed, ...]
    why_runs: str = ""
    run_objects: int = 0
    """Number of records of the removed runs."""
    run_bytes: int = 0

    def view(self) -> dict[str, Any]:
        """Return the removal as JSON, with the first hundred keys of each bucket and reason."""
        groups: dict[tuple[str, str], list[Doomed]] = defaultdict(list)
        for one in self.objects:
            groups[one.bucket, one.why].append(one)
        return {
            "identifier": self.identifier,
            "runs": list(self.runs),
            "why_runs": self.why_runs if self.runs else None,
            "run_objects": self.run_objects,
            "run_bytes": self.run_bytes,
            "objects": [
                {
                    "bucket": bucket,
                    "why": why,
                    "objects": len(those),
                    "bytes": sum(one.size_bytes for one in those),
                    "keys": [one.key for one in those[:SHOWN_KEYS]],
                }
                for (bucket, why), those in groups.items()
            ],
        }


class Janitor:
    """Plans and runs rounds of removal.

    Parameters
    ----------
    store : ObjectStore
    run_store : RunStore
    settings : RetentionSettings
    metrics : Metrics
    now : callable
        Epoch seconds.
    """

    def __init__(
        self,
        store: ObjectStore,
        run_store: RunStore,
        settings: RetentionSettings,
        metrics: Metrics,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._evaluations = run_store.evaluations
        self._forecasts = run_store.forecasts
        self._leases = run_store.leases
        self._pointers = run_store.pointers
        self._runs = run_store.runs
        self._stages = run_store.stages
        self._settings = settings
        self._metrics = metrics
        self._now = now
        self._deletion = Deletion(store, run_store.runs, settings)

    def plan(self) -> Iterator[Removal]:
        """Yield the removal of each identifier without removing anything.

        An identifier with an unreadable record is skipped as a whole; the round continues with the next identifier.
        """
        deleted = self._deletion.tombstones.identifiers()
        for identifier in sorted({*self._runs.identifiers(), *deleted}):
            try:
                yield self._plan(identifier, deleted=identifier in deleted)
            except UNREADABLE:
                log.exception("janitor_skipped", identifier=identifier)

    def round(self) -> list[Removal]:
        """Remove the planned objects and return the plan.

        Raises
        ------
        ConflictError
            With code ``janitor_busy`` while another round runs.
        """
        removals = []
        with self._alone() as renew:
            for removal in self.plan():
                renew()
                self.carry_out(removal)
                removals.append(removal)
        return removals

    def carry_out(self, removal: Removal) -> None:
        """Remove the planned objects before the records of the runs. The call can be repeated after a crash."""
        removed = 0
        for one in removal.objects:
            self._store.delete(one.bucket, one.key)
            removed += 1
        for run in removal.runs:
            removed += self._runs.delete(removal.identifier, run)
        if removed:
            self._metrics.janitor_removed.inc(removed)
            with bind(identifier=removal.identifier):
                log.info("janitor_removed", objects=removed, runs=len(removal.runs))

    @contextmanager
    def _alone(self) -> Iterator[Callable[[], None]]:
        owner = uuid.uuid4().hex
        if not self._leases.acquire(LEASE, owner, LEASE_SECONDS):
            msg = "another round of the janitor goes on; `flts why` shows it when it is done"
            raise ConflictError(msg, code="janitor_busy")

        def renew() -> None:
            self._leases.acquire(LEASE, owner, LEASE_SECONDS)

        try:
            yield renew
        finally:
            self._leases.release(LEASE, owner)

    def _plan(self, identifier: str, *, deleted: bool) -> Removal:
        settings = self._settings
        # Artefacts are listed before runs. A run that begins between the two listings writes its artefacts after the
        # first, so the plan does not contain them and the janitor does not remove them.
        artefacts = {
            bucket: {info.key: info for info in self._store.list(bucket, layout.below(identifier))}
            for bucket in (settings.bucket_processed_data, settings.bucket_model_bundles)
        }
        facts = [self._facts(RunName(identifier, run)) for run in self._runs.of(identifier)]
        pointers = self._current_and_previous(identifier)
        selection = select_runs(
            facts,
            now=self._now(),
            retain_runs=settings.retain_runs,
            pointed_runs={str(pointer["pipeline_run_id"]) for pointer in pointers},
            pointed_configs={str(pointer["config_hash"]) for pointer in pointers},
            pointed_bundles={
                layout.folder_of(pointer["bundle"]["object_key"])
                for pointer in (*pointers, *self._config_pointers(identifier))
            },
        )
        unfinished = {run.config_hash for run in facts if not run.finished and run.config_hash}
        objects = [
            Doomed(bucket, key, listed[key].size, "no kept run and no pointer names it")
            for bucket, listed in artefacts.items()
            for key in select_artefacts(
                {key: info.modified for key, info in listed.items()},
                selection,
                now=self._now(),
                unfinished_configs=unfinished,
            )
        ]
        objects += self._old_logs(identifier)
        if deleted:
            known = {(one.bucket, one.key) for one in objects}
            left = (Doomed(*one, "left by a run of a deleted data set") for one in self._deletion.leftovers(identifier))
            objects += [one for one in left if (one.bucket, one.key) not in known]
        records = [
            info
            for run in selection.runs
            for info in self._store.list(settings.bucket_pipeline_runs, layout.below(identifier, run))
        ]
        return Removal(
            identifier,
            selection.runs,
            tuple(objects),
            f"finished, beyond the newest {settings.retain_runs} runs (RETAIN_RUNS), and no pointer names them",
            len(records),
            sum(info.size for info in records),
        )

    def _old_logs(self, identifier: str) -> list[Doomed]:
        bucket, days = self._settings.bucket_inference_logs, self._settings.retain_log_days
        listed = {info.key: info.size for info in self._store.list(bucket, layout.below(identifier))}
        today = datetime.fromtimestamp(self._now(), UTC).date()
        old = select_logs(listed, today=today, retain_days=days)
        return [Doomed(bucket, key, listed[key], f"older than {days} days (RETAIN_LOG_DAYS)") for key in old]

    def _facts(self, name: RunName) -> RunFacts:
        expected = self._evaluations.expected(*name)
        trained = self._evaluations.trained(*name)
        waiting = self._forecasts.inference(*name) is not None and self._forecasts.read(*name) is None
        claims = [event.bundle.object_key for event in trained.values() if event.bundle]
        for record in (self._evaluations.provisional, self._evaluations.decision, self._evaluations.refit):
            claims += _bundles_of(record(*name))
        finished = self._runs.end(*name) is not None and not waiting
        config_hash = expected["training_data"].get("config_hash") if expected else None
        if config_hash is None and not finished:
            # An installation that was stopped may not have delivered the data to eval, for days. It still has to.
            config_hash = (self._stages.read(*name, "preprocess") or {}).get("config_hash")
        return RunFacts(
            pipeline_run_id=name.pipeline_run_id,
            finished=finished,
            config_hash=config_hash,
            created=run_created_seconds(name.pipeline_run_id),
            bundle_folders=frozenset(map(layout.folder_of, claims)),
        )

    def _current_and_previous(self, identifier: str) -> list[Mapping[str, Any]]:
        """Return the champion pointer and its predecessor."""
        current = self._pointers.current(identifier)
        return [] if current is None else _with_previous(current[0])

    def _config_pointers(self, identifier: str) -> list[Mapping[str, Any]]:
        """Return the pointers of single configurations and their predecessors.

        Their bundles stay; their processed data may be removed.
        """
        listed = self._store.list(self._settings.promotion_bucket, layout.below(identifier))
        named = (layout.CURRENT_OF_CONFIG.parse(info.key) for info in listed)
        found = (
            self._pointers.current_of_config(identifier, parts["config_hash"]) for parts in named if parts is not None
        )
        return [named for pointer in found if pointer is not None for named in _with_previous(pointer)]


def _with_previous(pointer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    previous = pointer.get("previous")
    return [pointer, previous] if previous else [pointer]


def _bundles_of(record: Mapping[str, Any] | None) -> list[str]:
    """Return the keys of the bundles that the record of a stage names, itself or by its pointer."""
    named = () if record is None else (record, record.get("pointer") or {})
    return [str(one["bundle"]["object_key"]) for one in named if one.get("bundle")]
