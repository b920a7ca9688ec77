"""Deletes all objects of an identifier. After a crash at any point a repeated deletion removes the rest.

The deletion removes the champion pointer first, so that replicas stop serving at once. It removes the index of runs
last, because a repeated deletion finds the remaining objects by the index. A service that works on a run of the
identifier meanwhile reads the tombstone after its work and removes the run's objects (`flts.housekeeping.guard`).
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
"""Concurrent deletions of objects; on S3 each deletion is a round trip."""

Tell = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Held:
    """The objects of one kind in one bucket."""

    bucket: str
    what: str
    keys: tuple[str, ...]
    size_bytes: int

    def view(self) -> dict[str, Any]:
        """Return the counts for the API's answer."""
        return {"bucket": self.bucket, "what": self.what, "objects": len(self.keys), "bytes": self.size_bytes}


class Deletion:
    """Deletes all objects of an identifier, and the objects that its deleted runs write later.

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
        """Return all objects of an identifier, in the order of their removal."""
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

    def carry_out(self, identifier: str, *, report: Tell, before: str | None = None) -> list[Held]:
        """Remove all objects of an identifier and return them.

        The tombstone that it writes makes services remove what an older run still writes. The call can be repeated:
        after a crash the next call removes the remaining objects.

        Parameters
        ----------
        report : callable
            Called after the champion pointer was removed and again at the end. The gateway then publishes an event, so
            that the replicas read the store at once.
        before : str, optional
            A UUIDv7: runs with an earlier id are deleted. The default is a new id, which deletes all present runs.
        """
        cut = before or new_pipeline_run_id()
        self.tombstones.bury(identifier, cut)
        # The plan is made after the tombstone, so no old run is missed: the plan contains each run that was recorded
        # before the tombstone, and the run store refuses an old run that is recorded after it.
        found = self.plan(identifier)
        for number, held in enumerate(found):
            self._remove(held.bucket, held.keys)
            if number == 0:
                report()
        self._spool.put(ForgetDocument(identifier, cut))
        self.sweep(identifier, record=False)
        self.tombstones.finish(identifier)
        report()
        return found

    def sweep(self, identifier: str, *, record: bool = True) -> int:
        """Remove the objects that runs older than the tombstone have written since; return their number.

        Parameters
        ----------
        record : bool
            Whether MLflow may have a record of such a run, so that its deletion there is spooled again.
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
        """Return (bucket, key, bytes) of the objects that runs older than the tombstone have written since."""
        cut = self.tombstones.before(identifier)
        if cut is None:
            return []
        settings, below = self._settings, layout.below(identifier)
        # Objects are listed here, and runs are listed afterwards by `_known_runs`. A run is recorded before it writes
        # objects, so if one of the listed objects belongs to a newer run, `_known_runs` returns this run, and no listed
        # object is removed.
        made = [
            (bucket, info)
            for bucket in (
                settings.bucket_inference_logs,
                settings.bucket_model_bundles,
                settings.bucket_processed_data,
            )
            for info in self._store.list(bucket, below)
        ]
        # The gateway stores an upload before it records the run. An upload newer than the tombstone may belong to a run
        # that is not recorded yet, so only older uploads are removed.
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
        """Return whether MLflow has recorded the deletion; until then a document in the spool requests it."""
        waiting = self._spool.keys()
        return layout.SPOOLED_FORGET(identifier) not in waiting

    def _known_runs(self, identifier: str) -> set[str]:
        """Return the runs that have records, or only an entry in the index."""
        indexed = {name.pipeline_run_id for name in self._runs.recent() if name.identifier == identifier}
        return indexed | set(self._runs.of(identifier))

    def _marks(self, identifier: str, runs: Iterable[str]) -> list[str]:
        return [key for run in sorted(runs) for key in self._runs.marks_of(identifier, run)]

    def _idempotency_keys(self, runs: set[str]) -> list[str]:
        bucket = self._settings.bucket_pipeline_runs
        keys = [info.key for info in self._store.list(bucket, layout.IDEMPOTENCY.prefix())]
        return [key for key in keys if (self._read(bucket, key) or {}).get("pipeline_run_id") in runs]

    def _spooled(self, identifier: str) -> list[str]:
        """Return the keys of this identifier's spooled documents for MLflow, without the document of its deletion."""
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
    """Return an object's turn: objects of one turn are removed in parallel, after all objects of earlier turns."""
    if any(kind.parse(key) is not None for kind in REMOVED_FIRST):
        return 0  # pointers first, so that replicas drop the champion; run.json, so that no service resumes the run
    if layout.INDEX_MARK.parse(key) is not None:
        return 2  # the index last: after a crash the next deletion finds the remaining objects by the index
    return 1
