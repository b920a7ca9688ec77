"""The tracker: a service uses it to record runs in MLflow. The tracker calls MLflow in a separate thread.

The pipeline does not depend on MLflow. No method raises an error of MLflow. A method that records a run waits at most
``MLFLOW_CLOSE_SECONDS`` for MLflow. A document that MLflow has not acknowledged by then is spooled to the store.
`Tracker.drain_spool` records it later and waits up to `DRAIN_SECONDS` per document.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from flts.errors import FltsError, ObjectNotFoundError, RejectedError
from flts.observability.logs import get_logger
from flts.observability.metrics import default_metrics
from flts.storage import layout
from flts.tracking.breaker import Breaker
from flts.tracking.record import (
    Artifact,
    ChampionDocument,
    Document,
    ForgetDocument,
    Registration,
    RunDocument,
    RunStatus,
    as_texts,
    document_from_json,
)
from flts.tracking.recorder import Cursor, NotRecordedError, Recorder, TrackerAwayError
from flts.tracking.spool import Spool

if TYPE_CHECKING:
    from flts.contracts.claim_check import ClaimCheck
    from flts.observability.metrics import Metrics
    from flts.settings import TrackingSettings
    from flts.storage.ports import ObjectStore

OPEN_SECONDS = 30.0
COALESCE_SECONDS = 0.2  # seconds; so metrics of the epoch and of the machine are sent in one call
DRAIN_SECONDS = 60.0  # seconds for one document; in practice a few seconds suffice
WAIT_FOR_VERSION_SECONDS = 24 * 3600.0
_WAITING = 1000
_MEGABYTE = 1e6

log = get_logger(__name__)


class Tracker:
    """Records runs and models in MLflow.

    Parameters
    ----------
    settings : TrackingSettings
        Address and timeouts.
    spool : ObjectStore, optional
        The store for documents that MLflow did not acknowledge; without a store they are lost (``tracking_lost``).
    bucket : str
        The bucket of runs.
    metrics : Metrics, optional
        Default: the metrics of the process.
    open_seconds : float
        Time without calls after a failure.
    """

    def __init__(
        self,
        settings: TrackingSettings,
        spool: ObjectStore | None = None,
        bucket: str = "pipeline-runs",
        *,
        metrics: Metrics | None = None,
        open_seconds: float = OPEN_SECONDS,
    ) -> None:
        self._settings = settings
        self._metrics = metrics or default_metrics()
        self._spool = Spool(spool, bucket) if spool is not None else None
        self._breaker = Breaker(open_seconds)
        self._recorder = Recorder(settings, spool, self._breaker, self._metrics)
        self._jobs: queue.Queue[_Job | None] = queue.Queue(_WAITING)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def start_run(
        self,
        run_id: str,
        experiment: str,
        name: str = "",
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, object] | None = None,
    ) -> TrackedRun:
        """Begin to record a run; return at once.

        Parameters
        ----------
        run_id : str
            Id in FLTS; an attempt with the same id continues the same run in MLflow.
        experiment : str
            The identifier, which is also the name of the registered model.
        """
        document = RunDocument(run_id, experiment, name, _now_ms(), as_texts(params or {}), as_texts(tags or {}))
        return TrackedRun(self, document)

    def warm_up(self) -> None:
        """Begin to import MLflow's client, which takes seconds, before the first document; return at once."""
        self.submit(self._recorder.connect)

    def append(
        self,
        run_id: str,
        experiment: str,
        *,
        metrics: Mapping[str, float | None] | None = None,
        artifacts: Mapping[str, bytes | str | ClaimCheck] | None = None,
        step: int = 0,
        tags: Mapping[str, object] | None = None,
    ) -> bool:
        """Add to a run that another process recorded; return True if MLflow has the addition, False if spooled."""
        document = RunDocument(run_id, experiment, "", _now_ms(), tags=as_texts(tags or {}))
        document.add_metrics(metrics or {}, step, document.start_ms)
        for path, content in (artifacts or {}).items():
            _add_artifact(document, path, content)
        cursor = Cursor()
        # `create=False`: this document does not create a run. If MLflow lacks the run, the spool has a more complete
        # document, which creates it.
        if self._run(lambda: self.send(document, cursor, create=False), self._settings.mlflow_close_seconds):
            return True
        self.keep(document)
        return False

    def set_champion(self, experiment: str, run_id: str) -> bool:
        """Move the alias ``champion`` to the version of a run; return True if MLflow did it, False if it is spooled."""

        def move() -> None:
            self._recorder.set_champion(experiment, run_id)
            if self._spool is not None:
                # An older champion in the spool must not replace this champion later.
                self._spool.remove(layout.SPOOLED_CHAMPION(experiment))

        if self._run(move, self._settings.mlflow_close_seconds):
            return True
        self.keep(ChampionDocument(experiment, run_id))
        return False

    def drain_spool(self, limit: int = 100) -> int:
        """Record at most ``limit`` spooled documents; return how many MLflow accepted. The caller holds a lease."""
        if self._spool is None:
            return 0
        taken: list[str] = []
        try:
            keys = self._spool.keys()
            self._metrics.spool_documents.set(len(keys))
            for key in keys[:limit]:
                if not self._run(lambda key=key: self._drain(key, taken), DRAIN_SECONDS):  # type: ignore[misc]
                    break
            self._metrics.spool_documents.set(len(keys) - len(taken))
        except FltsError as error:
            log.warning("tracking_spool_unavailable", reason=str(error))
        return len(taken)

    def end_stale_runs(self, older_than_seconds: float = 86_400) -> int:
        """End runs of FLTS that are RUNNING for longer than this, because their process ended; return how many."""
        ended: list[int] = []
        before_ms = _now_ms() - int(older_than_seconds * 1000)
        self._run(lambda: ended.append(self._recorder.end_running(before_ms)), DRAIN_SECONDS)
        return sum(ended)

    @property
    def held_back(self) -> bool:
        """Whether the tracker makes no calls now, because a call failed less than ``open_seconds`` ago."""
        return self._breaker.is_open

    def close(self) -> None:
        """Let the thread end after the queued work."""
        with self._lock:
            if self._thread is not None:
                with suppress(queue.Full):
                    self._jobs.put_nowait(None)
                self._thread = None

    def submit(self, work: Callable[[], None]) -> _Job | None:
        """Queue work for the thread; return None if the queue is full, for example while the server is stuck."""
        job = _Job(work)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
                self._thread.start()
            try:
                self._jobs.put_nowait(job)
            except queue.Full:
                return None
        return job

    def send(self, document: RunDocument, cursor: Cursor, *, create: bool) -> None:
        """Record a document; must run in the tracker's thread."""
        self._recorder.record(document, cursor, create=create)

    @property
    def close_seconds(self) -> float:
        """Longest time that the end of a run waits for MLflow, in seconds."""
        return self._settings.mlflow_close_seconds

    def _drain(self, key: str, taken: list[str]) -> None:
        """Record one document; runs in the tracker's thread, so that this process sets no newer champion meanwhile."""
        assert self._spool is not None
        try:
            data, info = self._spool.read(key)
        except ObjectNotFoundError:
            return  # another process recorded the document
        try:
            document = document_from_json(data)
            if isinstance(document, ChampionDocument):
                self._recorder.set_champion(document.experiment, document.run_id)
            elif isinstance(document, ForgetDocument):
                self._recorder.forget(document.experiment, document.before)
            else:
                self._record_spooled(document)
        except NotRecordedError:
            # MLflow has not registered the model's version yet, so the document stays in the spool. After
            # WAIT_FOR_VERSION_SECONDS it is rejected.
            if time.time() - info.modified > WAIT_FOR_VERSION_SECONDS:
                log.warning("tracking_rejected", object_key=key, aside=self._spool.reject(key))
            return
        except RejectedError as error:
            log.warning("tracking_rejected", object_key=key, aside=self._spool.reject(key), reason=str(error))
            return
        taken.append(key)
        with suppress(ObjectNotFoundError):
            self._spool.remove(key, info.etag)

    def _record_spooled(self, document: RunDocument) -> None:
        try:
            self._recorder.record(document, Cursor(), create=document.status is not None)
        except NotRecordedError:
            # The document only adds to a run, and MLflow does not have this run. So the document is recorded as a
            # separate finished run.
            document.status, document.end_ms = "FINISHED", document.start_ms
            self._recorder.record(document, Cursor(), create=True)

    def _run(self, work: Callable[[], None], seconds: float) -> bool:
        """Run work in the thread; return whether it succeeded within ``seconds``."""
        if self._breaker.is_open:
            return False
        job = self.submit(work)
        return job is not None and job.wait(seconds)

    def keep(self, document: Document) -> None:
        """Spool a document."""
        if self._spool is None:
            log.warning("tracking_lost", run_id=document.run_id)
            return
        try:
            key = self._spool.put(document)
        except FltsError as error:
            log.warning("tracking_lost", run_id=document.run_id, reason=str(error))
        else:
            log.info("tracking_spooled", run_id=document.run_id, object_key=key)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()


class TrackedRun:
    """A run in progress. The caller adds to its document; the tracker's thread sends the additions to MLflow."""

    def __init__(self, tracker: Tracker, document: RunDocument) -> None:
        self._tracker = tracker
        self._document = document
        self._cursor = Cursor()
        self._lock = threading.Lock()
        self._queued = False
        self._finishing = threading.Event()
        self._given_up = False
        self._notify()

    @property
    def mlflow_run_id(self) -> str | None:
        """The id of the run in MLflow; None before MLflow has created it."""
        return self._cursor.mlflow_run_id

    def log_metrics(self, step: int, /, **values: float) -> None:
        """Record the values of a step (an epoch)."""
        with self._lock:
            self._document.add_metrics(values, step, _now_ms())
        self._notify()

    def log_system_metrics(self, step: int) -> None:
        """Record the machine's load and this process's memory."""
        import psutil  # noqa: PLC0415 - only images of services with a tracker contain psutil

        values = {
            "system/cpu_utilization_percentage": psutil.cpu_percent(),
            "system/system_memory_usage_megabytes": psutil.virtual_memory().used / _MEGABYTE,
            "system/process_memory_megabytes": psutil.Process().memory_info().rss / _MEGABYTE,
        }
        self.log_metrics(step, **values)

    def log_bytes(self, path: str, data: bytes) -> None:
        """Record a file."""
        self._log_artifact(path, bytes(data))

    def log_claim(self, path: str, claim: ClaimCheck) -> None:
        """Record a file whose bytes are in the store."""
        self._log_artifact(path, claim)

    def register(self, model_uri: str, model_type: str, **tags: object) -> None:
        """Create a version of the experiment's registered model from this run, after its artifacts are recorded."""
        with self._lock:
            self._document.registration = Registration(
                model_type, as_texts({**tags, "model_type": model_type, "model_uri": model_uri})
            )
        self._notify()

    def finish(self, status: RunStatus = "FINISHED") -> str | None:
        """End the run; return its id in MLflow, or None if MLflow has not created it.

        The call waits at most ``MLFLOW_CLOSE_SECONDS``. A document that MLflow has not acknowledged by then is spooled.
        """
        with self._lock:
            self._document.status = status
            self._document.end_ms = _now_ms()
        self._finishing.set()
        job = None if self._tracker.held_back else self._tracker.submit(self._send)
        if job is None or not job.wait(self._tracker.close_seconds) or not self._cursor.ended:
            self._given_up = True
            self._tracker.keep(self._document)
        return self._cursor.mlflow_run_id

    def _log_artifact(self, path: str, content: bytes | ClaimCheck) -> None:
        with self._lock:
            _add_artifact(self._document, path, content)
        self._notify()

    def _notify(self) -> None:
        with self._lock:
            if self._queued or self._tracker.held_back:
                return
            self._queued = True
        if self._tracker.submit(self._follow) is None:
            self._queued = False

    def _follow(self) -> None:
        self._finishing.wait(COALESCE_SECONDS)
        with self._lock:
            self._queued = False
        self._send()

    def _send(self) -> None:
        if not self._given_up and not self._cursor.ended:
            self._tracker.send(self._document, self._cursor, create=True)


class _Job:
    """Work for the tracker's thread, and whether it succeeded."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._done = threading.Event()
        self._succeeded = False

    def run(self) -> None:
        try:
            self._work()
            self._succeeded = True
        except (TrackerAwayError, NotRecordedError):
            pass  # `Recorder` logged the outage; the document is spooled
        except Exception as error:  # noqa: BLE001 - an error of the record must not end the thread or reach the pipeline
            log.warning("tracking_error", error=error)
        finally:
            self._done.set()

    def wait(self, seconds: float) -> bool:
        return self._done.wait(seconds) and self._succeeded


def _add_artifact(document: RunDocument, path: str, content: bytes | str | ClaimCheck) -> None:
    data = content.encode() if isinstance(content, str) else content
    try:
        document.add_artifact(Artifact(path, data=data) if isinstance(data, bytes) else Artifact(path, claim=data))
    except RejectedError as error:  # an invalid artifact path is a bug, but must not fail the training
        log.warning("tracking_refused", run_id=document.run_id, what=path, reason=str(error))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
