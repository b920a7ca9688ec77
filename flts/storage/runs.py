"""The records of pipeline runs and the champions' pointers.

Every record is one JSON object, written once unless said otherwise. What is open is also marked by an empty object,
so that looking for work costs one listing and not a look into every run there ever was.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import ValidationError

from flts.contracts.events import (
    EvaluateRequest,
    Event,
    InferenceData,
    ModelTraining,
    RawData,
    RollbackRequest,
)
from flts.contracts.ids import IDENTIFIER_PATTERN
from flts.contracts.lifecycle import RunState
from flts.errors import ConflictError, RejectedError
from flts.storage import layout, leases
from flts.storage.claims import put_claimed
from flts.storage.layout import Key, RunName
from flts.storage.records import TRIES, Record, Records, contended
from flts.storage.tombstones import Tombstones

if TYPE_CHECKING:
    from flts.contracts.claim_check import ClaimCheck
    from flts.settings import StoreSettings
    from flts.storage.ports import ObjectStore

E = TypeVar("E", bound=Event)
Moment = datetime | float | str
"""A time as datetime, epoch seconds or ISO 8601; stored as the last, in UTC."""
StageStatus = Literal["started", "done", "failed", "skipped"]
Move = Literal["moved", "same", "superseded"]

_RUN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ENDED = frozenset({"done", "skipped"})


class RunStore:
    """What must survive of every run.

    Parameters
    ----------
    store : ObjectStore
        One whose conditional puts were probed (`flts.storage.checks`).
    settings : StoreSettings
        Names of the buckets.
    clock : callable
        Epoch seconds.
    """

    def __init__(self, store: ObjectStore, settings: StoreSettings, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._bucket = settings.bucket_pipeline_runs
        self._runs = Records(store, settings.bucket_pipeline_runs)
        self._pointers = Records(store, settings.promotion_bucket)
        self._tombstones = Tombstones(store, settings, clock=clock)
        self._clock = clock

    # Runs

    def create_run(self, event: RawData | EvaluateRequest | RollbackRequest) -> bool:
        """Record a run before its event is published; return whether this call was the first.

        Raises
        ------
        ConflictError
            With code ``deleted`` if the identifier is being deleted, or was since this run began.
        """
        name = RunName(event.identifier, event.pipeline_run_id)
        # The marks come first: a run that is recorded is then always found, and a mark without a run is swept away.
        self._runs.mark(_mark(layout.INDEX_MARK, name))
        self._runs.mark(_mark(layout.OPEN_MARK, name))
        first = self._runs.create(layout.RUN(*name), event.model_dump(mode="json"))
        try:
            # Only now: who deletes leaves the tombstone before listing runs, so one of the two sees the other.
            self.refuse_deleted(*name)
        except ConflictError:
            self.delete_run(*name)
            raise
        return first

    def refuse_deleted(self, identifier: str, pipeline_run_id: str) -> None:
        """Raise `ConflictError` if a run of this id cannot be started, since its identifier is or was deleted."""
        if self._tombstones.unfinished(identifier):
            msg = f"{identifier} is being deleted; if that was cut off, `flts delete {identifier} --yes` ends it"
            raise ConflictError(msg, code="being_deleted", field="identifier")
        if self._tombstones.covers(identifier, pipeline_run_id):
            msg = f"{identifier} was deleted meanwhile; send the request again to start anew"
            raise ConflictError(msg, code="deleted", field="identifier")

    def deleted(self, identifier: str, pipeline_run_id: str) -> bool:
        """Return whether a run's identifier was deleted since the run began."""
        return self._tombstones.covers(identifier, pipeline_run_id)

    def read_run(self, identifier: str, pipeline_run_id: str) -> Record | None:
        """Return the event that started the run, ``raw-data`` or a request to eval, or None."""
        return self._runs.read(layout.RUN(identifier, pipeline_run_id))

    def find_run(self, pipeline_run_id: str) -> str | None:
        """Return the identifier of a run, or None if there is no such run."""
        if _RUN_ID.fullmatch(pipeline_run_id) is None:
            return None
        marks = self._runs.keys(layout.INDEX_MARK.prefix(pipeline_run_id))
        return next((key.rpartition("/")[2] for key in marks), None)

    def identifiers(self) -> list[str]:
        """Return the identifiers that have a run, ordered."""
        names = self._runs.folders()
        return [name for name in names if IDENTIFIER_PATTERN.fullmatch(name)]

    def runs(self, identifier: str) -> list[str]:
        """Return the pipeline_run_ids of an identifier, newest first."""
        names = self._runs.folders(layout.below(identifier))
        return sorted((name for name in names if _RUN_ID.fullmatch(name)), reverse=True)

    def recent_runs(self, limit: int | None = None) -> list[RunName]:
        """Return the runs of all identifiers, newest first."""
        return self._marked(layout.INDEX_MARK)[::-1][:limit]

    def open_runs(self) -> list[RunName]:
        """Return the runs without an outcome, oldest first."""
        return [name for name in self._marked(layout.OPEN_MARK) if self._is_open(name)]

    def unannounced_runs(self) -> list[RunName]:
        """Return the open runs whose event was not acknowledged by the broker, oldest first: the outbox."""
        return [name for name in self.open_runs() if not self._runs.exists(layout.ANNOUNCED(*name))]

    def mark_announced(self, identifier: str, pipeline_run_id: str) -> bool:
        """Record that the broker has the run's event; return whether this call was the first."""
        return self._runs.create(layout.ANNOUNCED(identifier, pipeline_run_id), {"at": self._now()})

    def announced(self, identifier: str, pipeline_run_id: str) -> bool:
        """Return whether the broker has the run's event."""
        return self._runs.exists(layout.ANNOUNCED(identifier, pipeline_run_id))

    def delete_run(self, identifier: str, pipeline_run_id: str) -> int:
        """Remove a run's records and return how many; may be repeated.

        ``run.json`` goes first and the index last: half removed it is no unfinished run, and is found again.
        """
        keys = self.keys_of_run(identifier, pipeline_run_id)
        for key in (*keys, *self.marks_of_run(identifier, pipeline_run_id)):
            self._runs.remove(key)
        return len(keys)

    def keys_of_run(self, identifier: str, pipeline_run_id: str) -> list[str]:
        """Return the keys of a run's records in the order in which they are removed."""
        first = layout.RUN(identifier, pipeline_run_id)
        return sorted(self._runs.keys(layout.below(identifier, pipeline_run_id)), key=lambda key: key != first)

    def marks_of_run(self, identifier: str, pipeline_run_id: str) -> list[str]:
        """Return the keys of a run's marks, there or not."""
        marks = (layout.OPEN_MARK, layout.FORECAST_MARK, layout.INDEX_MARK)
        return [_mark(mark, RunName(identifier, pipeline_run_id)) for mark in marks]

    # Stages

    def put_stage(  # noqa: PLR0917 - a stage and its span, as every service gives them
        self,
        identifier: str,
        pipeline_run_id: str,
        stage: str,
        status: StageStatus,
        start: Moment | None = None,
        end: Moment | None = None,
        **details: Any,
    ) -> bool:
        """Record how far a stage is; return False if it had already ended well, which stays.

        A start after a failure is a further try and replaces it. ``start`` defaults to now, or to the recorded one
        where the stage ends; ``end`` of one that ends to now.
        """
        name = RunName(identifier, pipeline_run_id)

        def change(stored: Record | None) -> Record | None:
            if stored is not None and stored.get("status") in _ENDED:
                return None
            known = None if stored is None or status == "started" else stored.get("start")
            started = start if start is not None else known or self._now()
            ended = end if end is not None or status == "started" else self._now()
            return {**details, "stage": stage, "status": status, "start": _iso(started), "end": _iso(ended)}

        return self._runs.change(layout.STAGE(*name, stage), change)

    def stage(self, identifier: str, pipeline_run_id: str, stage: str) -> Record | None:
        """Return how far a stage is, or None if it has not begun."""
        return self._runs.read(layout.STAGE(identifier, pipeline_run_id, stage))

    def stages(self, identifier: str, pipeline_run_id: str) -> dict[str, Record]:
        """Return the stages recorded so far, by name."""
        return dict(self._runs.folder(layout.STAGE.prefix(identifier, pipeline_run_id)))

    # Evaluation

    def put_expected(self, identifier: str, pipeline_run_id: str, expected: Mapping[str, Any]) -> Record:
        """Record what eval waits for, unless it is recorded; return what stands there."""
        return self._runs.adopt(layout.EXPECTED(identifier, pipeline_run_id), expected)[0]

    def expected(self, identifier: str, pipeline_run_id: str) -> Record | None:
        """Return what eval waits for, or None."""
        return self._runs.read(layout.EXPECTED(identifier, pipeline_run_id))

    def put_trained(self, event: ModelTraining) -> bool:
        """Record a model type's final event; return whether it stands there now because of this call.

        The first one stays, but for a failure, which a success replaces as long as the run has no decision.
        """
        name = RunName(event.identifier, event.pipeline_run_id)

        def change(stored: Record | None) -> Record | None:
            if stored is not None:
                better = stored.get("status") == "FAILED" and event.status == "SUCCESS"
                if not better or self._runs.exists(layout.DECISION(*name)):
                    return None
            return event.model_dump(mode="json")

        return self._runs.change(layout.TRAINED(*name, event.model_type), change)

    def trained(self, identifier: str, pipeline_run_id: str) -> dict[str, ModelTraining]:
        """Return the final events recorded so far, by model type."""
        name = RunName(identifier, pipeline_run_id)
        found = self._runs.folder(layout.TRAINED.prefix(*name))
        return {kind: _parse(ModelTraining, record, layout.TRAINED(*name, kind)) for kind, record in found}

    def put_scoreboard(self, identifier: str, pipeline_run_id: str, data: bytes) -> ClaimCheck:
        """Store a scoreboard under its own hash and return its claim."""
        key = layout.SCOREBOARD(identifier, pipeline_run_id, hashlib.sha256(data).hexdigest())
        return put_claimed(self._store, self._bucket, key, data)

    def decide(self, identifier: str, pipeline_run_id: str, decision: Mapping[str, Any]) -> tuple[Record, bool]:
        """Decide a run, once: return the decision that stands, and whether it is this one."""
        return self._runs.adopt(layout.DECISION(identifier, pipeline_run_id), decision)

    def decision(self, identifier: str, pipeline_run_id: str) -> Record | None:
        """Return the run's decision, or None."""
        return self._runs.read(layout.DECISION(identifier, pipeline_run_id))

    def put_outcome(self, identifier: str, pipeline_run_id: str, outcome: RunState, **details: Any) -> bool:
        """End a run; return whether this call did."""
        name = RunName(identifier, pipeline_run_id)
        first = self._runs.create(layout.OUTCOME(*name), {**details, "outcome": outcome, "at": self._now()})
        self._runs.remove(_mark(layout.OPEN_MARK, name))
        return first

    def outcome(self, identifier: str, pipeline_run_id: str) -> Record | None:
        """Return how and why the run ended, or None while it is unfinished."""
        return self._runs.read(layout.OUTCOME(identifier, pipeline_run_id))

    def end(self, identifier: str, pipeline_run_id: str) -> RunState | None:
        """Return how the run ended, or None while it is unfinished."""
        return RunState.of_outcome(self.outcome(identifier, pipeline_run_id))

    # Batch forecasts

    def put_inference(self, event: InferenceData) -> bool:
        """Keep test rows to be forecast until their run is decided; return whether this call was the first."""
        name = RunName(event.identifier, event.pipeline_run_id)
        self._runs.mark(_mark(layout.FORECAST_MARK, name))
        return self._runs.create(layout.INFERENCE(*name), event.model_dump(mode="json"))

    def inference(self, identifier: str, pipeline_run_id: str) -> InferenceData | None:
        """Return the test rows kept, or None."""
        key = layout.INFERENCE(identifier, pipeline_run_id)
        record = self._runs.read(key)
        return None if record is None else _parse(InferenceData, record, key)

    def waiting_forecasts(self) -> list[RunName]:
        """Return the runs whose test rows are kept and neither forecast nor skipped, oldest first."""
        waiting = []
        for name in self._marked(layout.FORECAST_MARK):
            if self._runs.exists(layout.FORECAST(*name)):
                self._runs.remove(_mark(layout.FORECAST_MARK, name))
            elif self._runs.exists(layout.INFERENCE(*name)):
                waiting.append(name)
        return waiting

    def put_forecast(
        self, identifier: str, pipeline_run_id: str, status: Literal["done", "skipped"], **details: Any
    ) -> bool:
        """Record what became of the test rows; return whether this call was the first."""
        name = RunName(identifier, pipeline_run_id)
        first = self._runs.create(layout.FORECAST(*name), {**details, "status": status, "at": self._now()})
        self._runs.remove(_mark(layout.FORECAST_MARK, name))
        return first

    def forecast(self, identifier: str, pipeline_run_id: str) -> Record | None:
        """Return what became of the test rows, or None."""
        return self._runs.read(layout.FORECAST(identifier, pipeline_run_id))

    # Champions

    def current(self, identifier: str) -> tuple[Record, str] | None:
        """Return the champion's pointer and its etag, or None."""
        return self._pointers.read_with_etag(layout.CURRENT(identifier))

    def current_of_config(self, identifier: str, config_hash: str) -> Record | None:
        """Return the pointer of one configuration, or None."""
        found = self._pointers.read_with_etag(layout.CURRENT_OF_CONFIG(identifier, config_hash))
        return found and found[0]

    def champions(self) -> dict[str, Record]:
        """Return the champions' pointers by identifier."""
        found = ((name, self.current(name)) for name in self._pointers.folders())
        return {name: pointer[0] for name, pointer in found if pointer is not None}

    def move_current(self, identifier: str, pointer: Mapping[str, Any]) -> Move:
        """Make a run's champion the current one, if no newer run was there first.

        The stored pointer also has ``previous``: the pointer that it replaced, without that one's own ``previous``.

        Returns
        -------
        "moved" | "same" | "superseded"
            ``same`` if the pointer already names this run; ``superseded`` if it names a newer one, and stays.
        """
        return self._move(layout.CURRENT(identifier), pointer)

    def put_config_pointer(self, identifier: str, config_hash: str, pointer: Mapping[str, Any]) -> Move:
        """Move the pointer of one configuration as `move_current` does."""
        return self._move(layout.CURRENT_OF_CONFIG(identifier, config_hash), pointer)

    # Jobs and leases

    def create_job(self, identifier: str, job_hash: str, details: Mapping[str, Any]) -> tuple[Record, bool]:
        """Record that a Job starts a run: return what stands there, and whether this call was the first."""
        return self._runs.adopt(layout.JOB(identifier, job_hash), details)

    def acquire_lease(self, name: str, owner: str, seconds: float) -> bool:
        """Take or renew a lease; return whether the owner has it for the next ``seconds``."""
        return leases.acquire(self._runs, name, owner, seconds, now=self._clock())

    def release_lease(self, name: str, owner: str) -> None:
        """Give a lease back, if the owner still has it."""
        leases.release(self._runs, name, owner)

    def _move(self, key: str, pointer: Mapping[str, Any]) -> Move:
        run = str(pointer["pipeline_run_id"])
        tried = False
        for _ in range(TRIES):
            found = self._pointers.read_with_etag(key)
            stored, etag = found or (None, None)
            stored_run = str(stored.get("pipeline_run_id", "")) if stored else ""
            if stored_run == run:
                # A put whose answer was lost and which was then repeated looks like a failed condition.
                return "moved" if tried else "same"
            if stored_run > run:  # UUIDv7: ordered by time
                return "superseded"
            previous = {name: value for name, value in stored.items() if name != "previous"} if stored else None
            tried = True
            if self._pointers.replace(key, {**pointer, "previous": previous}, etag):
                return "moved"
        raise contended(key)

    def _is_open(self, name: RunName) -> bool:
        if self._runs.exists(layout.OUTCOME(*name)):
            self._runs.remove(_mark(layout.OPEN_MARK, name))  # whoever ended the run was killed before this line
            return False
        return self._runs.exists(layout.RUN(*name))

    def _marked(self, mark: Key) -> list[RunName]:
        found = (mark.parse(key) for key in self._runs.keys(mark.prefix()))
        return [RunName(**parts) for parts in found if parts is not None]

    def _now(self) -> str:
        return str(_iso(self._clock()))


def _mark(mark: Key, name: RunName) -> str:
    return mark(name.pipeline_run_id, name.identifier)


def _parse(event: type[E], record: Record, key: str) -> E:
    try:
        return event.model_validate(record)
    except ValidationError as error:
        msg = f"{key} is no {event.__name__}: {error.error_count()} fields do not validate"
        raise RejectedError(msg, code="corrupt_record", field=key) from error


def _iso(moment: Moment | None) -> str | None:
    if moment is None or isinstance(moment, str):
        return moment
    when = datetime.fromtimestamp(moment, UTC) if isinstance(moment, int | float) else moment.astimezone(UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
