"""Delete all objects of an identifier, in an order in which a crash at any point can be repaired by a repetition.

The pointer is removed first, so that serving ends at once. The index of runs is removed last, because a repetition
finds the remaining objects by it. A run that is in work meanwhile finds the tombstone when it ends, and removes its own
objects (`flts.housekeeping.guard`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from flts.contracts.ids import new_pipeline_run_id, run_created_seconds
from flts.errors import ObjectNotFoundError
from flts.observability.logs import get_logger
from flts.settings import StoreSettings
from flts.storage import layout
from flts.storage.ports import ObjectStore
from flts.storage.runs import Runs
from flts.storage.tombstones import Tombstones
from flts.tracking.record import ForgetDocument
from flts.tracking.spool import Spool

log = get_logger(__name__)

SPOOLS = (layout.SPOOLED, layout.SPOOL_REJECTED)
REMOVED_FIRST = (layout.CURRENT, layout.CURRENT_OF_CONFIG, layout.RUN)
PARALLEL = 8
"""Deletions at the same time: on S3 each is a round trip."""

Tell = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Held:
    """Objects of one kind."""

    bucket: str
    what: str
    keys: tuple[str, ...]
    size_bytes: int

    def view(self) -> dict[str, Any]:
        """Return the answer for people."""
        return {"bucket": self.bucket, "what": self.what, "objects": len(self.keys), "bytes": self.size_bytes}


class Deletion:
    """Deletes identifiers.

    Parameters
    ----------
    store : ObjectStore
    runs : Runs
    settings : StoreSettings
        Names of the buckets.
    """

    def __init__(self, store: ObjectStore, runs: Runs, settings: StoreSettings) -> None:
        self._store = store
        self._runs = runs
        self._settings = settings
        self._spool = Spool(store, settings.bucket_pipeline_runs)
        self.tombstones = Tombstones(store, settings)

    def plan(self, identifier: str) -> list[Held]:
        """Return all that there is of an identifier, in the order in which it is removed."""
        settings, runs_bucket = self._settings, self._settings.bucket_pipeline_runs
        runs = self._known_runs(identifier)
        below = layout.below(identifier)
        records = list(self._store.list(runs_bucket, below))
        return [
            self._below(settings.promotion_bucket, "pointers", below),
            self._held(runs_bucket, "idempotency keys", self._idempotency_keys(runs)),
            self._held(runs_bucket, "records for MLflow", self._spooled(identifier)),
            self._below(settings.bucket_inference_logs, "forecast logs", below),
            self._below(settings.bucket_model_bundles, "bundles", below),
            self._below(settings.bucket_processed_data, "processed data", below),
            self._below(settings.bucket_raw_data, "uploads", below, layout.INCOMING.prefix(identifier)),
            Held(
                runs_bucket,
                "run records",
                tuple(sorted((*(info.key for info in records), *self._marks(identifier, runs)), key=_turn)),
                sum(info.size for info in records),
            ),
        ]

    def carry_out(self, identifier: str, *, told: Tell, before: str | None = None) -> list[Held]:
        """Remove all that there is now, and whatever a run from before now still adds to it; return what was removed.

        May be repeated: after a crash in the middle the next call finds what is left.

        Parameters
        ----------
        told : callable
            Called when the champion is gone and again when all is, so that replicas look at once.
        before : str, optional
            A UUIDv7: the runs older than it are deleted; those older than this moment unless given.
        """
        cut = before or new_pipeline_run_id()
        self.tombstones.bury(identifier, cut)
        # Runs are listed after the tombstone is written: a run recorded earlier is on the list, a later one is refused.
        found = self.plan(identifier)
        for number, held in enumerate(found):
            self._remove(held.bucket, held.keys)
            if number == 0:
                told()
        self._spool.put(ForgetDocument(identifier, cut))
        self.sweep(identifier, record=False)
        self.tombstones.finish(identifier)
        told()
        return found

    def sweep(self, identifier: str, *, record: bool = True) -> int:
        """Remove what runs from before the tombstone have left since; return how many objects.

        Parameters
        ----------
        record : bool
            Whether something of it may have reached MLflow.
        """
        cut = self.tombstones.before(identifier)
        if cut is None:
            return 0
        left = self.leftovers(identifier)
        by_bucket: dict[str, list[str]] = {}
        for bucket, key, _ in left:
            by_bucket.setdefault(bucket, []).append(key)
        for bucket, keys in by_bucket.items():
            self._remove(bucket, keys)
        old = {run for run in self._known_runs(identifier) if run < cut}
        self._remove(self._settings.bucket_pipeline_runs, self._marks(identifier, old))
        if left and record:
            self._spool.put(ForgetDocument(identifier, cut))
        return len(left)

    def leftovers(self, identifier: str) -> list[tuple[str, str, int]]:
        """Return (bucket, key, bytes) of what runs from before the tombstone have left since."""
        cut = self.tombstones.before(identifier)
        if cut is None:
            return []
        settings, below = self._settings, layout.below(identifier)
        # Objects are listed before newer runs: a newer run is recorded first, so none of its objects is on this list.
        made = [
            (bucket, info)
            for bucket in (
                settings.bucket_inference_logs,
                settings.bucket_model_bundles,
                settings.bucket_processed_data,
            )
            for info in self._store.list(bucket, below)
        ]
        # The gateway stores an upload before it records the run, so only uploads older than the tombstone are removed.
        uploads = self._store.list(settings.bucket_raw_data, below)
        made += [(settings.bucket_raw_data, info) for info in uploads if info.modified < run_created_seconds(cut)]
        if any(run >= cut for run in self._known_runs(identifier)):
            made = []
        pointers = [
            (settings.promotion_bucket, info)
            for info in self._store.list(settings.promotion_bucket, below)
            if self._run_of(settings.promotion_bucket, info.key) < cut
        ]
        records = []
        for info in self._store.list(settings.bucket_pipeline_runs, below):
            of_job = layout.JOB.parse(info.key) is not None
            of = self._run_of(settings.bucket_pipeline_runs, info.key) if of_job else layout.run_of(info.key)
            if of < cut:
                records.append((settings.bucket_pipeline_runs, info))
        return [(bucket, info.key, info.size) for bucket, info in (*pointers, *made, *records)]

    def recorded(self, identifier: str) -> bool:
        """Return whether MLflow has recorded the deletion; otherwise it was spooled."""
        waiting = self._spool.keys()
        return layout.SPOOLED_FORGET(identifier) not in waiting

    def _known_runs(self, identifier: str) -> set[str]:
        """Return the runs that have a record, or only an index."""
        indexed = {name.pipeline_run_id for name in self._runs.recent() if name.identifier == identifier}
        return indexed | set(self._runs.of(identifier))

    def _marks(self, identifier: str, runs: Iterable[str]) -> list[str]:
        return [key for run in sorted(runs) for key in self._runs.marks_of(identifier, run)]

    def _idempotency_keys(self, runs: set[str]) -> list[str]:
        bucket = self._settings.bucket_pipeline_runs
        keys = [info.key for info in self._store.list(bucket, layout.IDEMPOTENCY.prefix())]
        return [key for key in keys if (self._read(bucket, key) or {}).get("pipeline_run_id") in runs]

    def _spooled(self, identifier: str) -> list[str]:
        """Return the documents for MLflow of this identifier, but for the one that says to forget it."""
        bucket = self._settings.bucket_pipeline_runs
        keys = [info.key for kind in SPOOLS for info in self._store.list(bucket, kind.prefix())]
        keys = [key for key in keys if key != layout.SPOOLED_FORGET(identifier)]
        return [key for key in keys if (self._read(bucket, key) or {}).get("experiment") == identifier]

    def _below(self, bucket: str, what: str, *prefixes: str) -> Held:
        found = [info for prefix in prefixes for info in self._store.list(bucket, prefix)]
        keys = sorted((info.key for info in found), key=lambda key: (_turn(key), key))
        return Held(bucket, what, tuple(keys), sum(info.size for info in found))

    def _held(self, bucket: str, what: str, keys: Sequence[str]) -> Held:
        size = 0
        for key in keys:
            try:
                size += self._store.head(bucket, key).size
            except ObjectNotFoundError:
                continue
        return Held(bucket, what, tuple(keys), size)

    def _run_of(self, bucket: str, key: str) -> str:
        return str((self._read(bucket, key) or {}).get("pipeline_run_id", ""))

    def _read(self, bucket: str, key: str) -> dict[str, Any] | None:
        try:
            record = json.loads(self._store.get(bucket, key)[0])
        except (ObjectNotFoundError, ValueError):
            return None
        return record if isinstance(record, dict) else None

    def _remove(self, bucket: str, keys: Sequence[str]) -> int:
        with ThreadPoolExecutor(PARALLEL, thread_name_prefix="delete") as pool:
            for _, together in groupby(sorted(keys, key=_turn), key=_turn):
                for _ in pool.map(lambda key: self._store.delete(bucket, key), together):
                    pass
        return len(keys)


def _turn(key: str) -> int:
    """Return when an object is removed: once all of the turns before are gone, side by side with those of its own."""
    if any(kind.parse(key) is not None for kind in REMOVED_FIRST):
        return 0  # pointers, so that replicas drop the champion; run.json, so that no service resumes the run
    if layout.INDEX_MARK.parse(key) is not None:
        return 2  # the index goes last: it lets a repeated deletion find the rest after a crash
    return 1
