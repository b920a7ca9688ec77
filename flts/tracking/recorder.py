"""Send one document to MLflow, and continue where the last attempt stopped. Only this module imports mlflow.

All code here runs in the tracker's thread. Each step can be repeated: the recorder searches a run, and also a model
version, by its tag ``run_id`` before it creates it. A repeated metric has the same step and time. A repeated artifact
overwrites the first.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from math import ceil
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from flts.errors import BackendAwayError, FltsError, NotFoundError, RejectedError
from flts.observability.logs import get_logger, without_userinfo
from flts.storage.claims import read_claimed
from flts.tracking.record import Artifact, Metric, Registration, RunDocument

if TYPE_CHECKING:
    from flts.observability.metrics import Metrics
    from flts.settings import TrackingSettings
    from flts.storage.ports import ObjectStore
    from flts.tracking.breaker import Breaker

CHAMPION = "champion"
RUN_TAG = "run_id"
_MADE_TAG = "flts.made_ms"
_BATCH = 1000  # metrics per log_batch; MLflow's limit
_BATCH_PARAMS = 100
_SEARCHED = 100
_AWAY_STATUSES = frozenset({401, 403, 408, 425, 429})  # a proxy's refusal may be temporary, so it counts as an outage
_SERVER_ERROR = 500
_CLIENT_ERROR = 400

log = get_logger(__name__)


class TrackerAwayError(BackendAwayError):
    """MLflow did not answer in time, or the circuit breaker is open."""


class TrackerRefusedError(RejectedError):
    """MLflow refused a call; a retry would be refused too."""

    code = "tracking_refused"


class NotRecordedError(NotFoundError):
    """MLflow does not yet have a run or model version with this run_id."""


@dataclass(slots=True)
class Cursor:
    """The parts of a document that MLflow has acknowledged."""

    mlflow_run_id: str | None = None
    artifact_uri: str = ""
    ended_ms: int = 0
    """Epoch milliseconds of the end that MLflow had when the recorder found the run; 0 without an end."""
    params_sent: int = 0
    tags_sent: int = 0
    metrics: int = 0
    artifacts: int = 0
    registered: bool = False
    ended: bool = False

    def reset(self) -> None:
        """Mark nothing as acknowledged, because MLflow no longer has the run."""
        for one in fields(self):
            setattr(self, one.name, getattr(Cursor(), one.name))


class Recorder:
    """Makes calls with a timeout to one MLflow server, and counts them in the metrics."""

    def __init__(
        self, settings: TrackingSettings, store: ObjectStore | None, breaker: Breaker, metrics: Metrics
    ) -> None:
        self._settings = settings
        self._store = store
        self._breaker = breaker
        self._metrics = metrics
        self._client: Any = None
        self._experiments: dict[str, str] = {}
        self._models: set[str] = set()

    def connect(self) -> None:
        """Create the client without a call to the server."""
        self._connected()

    def record(self, document: RunDocument, cursor: Cursor, *, create: bool) -> None:
        """Send the parts of the document that MLflow has not acknowledged according to the cursor.

        Parameters
        ----------
        create : bool
            Whether to create the run if MLflow has no run with this run_id.

        Raises
        ------
        TrackerAwayError
            If a call failed; the cursor contains the parts that were acknowledged.
        NotRecordedError
            If there is no run and ``create`` is false.
        """
        try:
            self._record(document, cursor, create=create)
        except TrackerRefusedError as error:
            if not _is_gone(error):
                raise
            # MLflow's data were removed, so the cached ids are not valid. The caches are cleared, and the whole
            # document is sent again, once.
            self._experiments.clear()
            self._models.clear()
            cursor.reset()
            self._record(document, cursor, create=create)

    def set_champion(self, experiment: str, run_id: str) -> None:
        """Move the alias ``champion`` to the version of a run.

        Raises
        ------
        NotRecordedError
            If no version of the registered model has this run_id.
        """
        version = self._version(experiment, run_id)
        if version is None:
            msg = f"no version of {experiment} has run_id {run_id}"
            raise NotRecordedError(msg)
        self._call("set_registered_model_alias", experiment, CHAMPION, version)

    def forget(self, name: str, before: str) -> None:
        """Delete the runs and model versions of an identifier that are older than the pipeline run ``before``.

        If none is newer, the experiment and the registered model are deleted. A deleted experiment keeps its name, and
        `_experiment` would restore it at the next upload. So it is renamed first. ``mlflow gc`` removes its artifacts.
        """
        self._experiments.pop(name, None)
        self._models.discard(name)
        found = self._call("get_experiment_by_name", name)
        if found is not None and found.lifecycle_stage == "active":
            runs = self._pages("search_runs", [found.experiment_id], max_results=_BATCH)
            old = [run for run in runs if _is_before(run.data.tags, before)]
            if len(old) == len(runs):
                self._call("rename_experiment", found.experiment_id, f"{name} deleted before {before}")
                self._call("delete_experiment", found.experiment_id)
            else:
                for run in old:
                    self._call("delete_run", run.info.run_id)
        versions = self._pages("search_model_versions", f"name = '{name}'", max_results=_BATCH)
        old_versions = [version for version in versions if _is_before(version.tags, before)]
        if len(old_versions) < len(versions):
            for version in old_versions:
                self._call("delete_model_version", name, str(version.version))
            return
        try:
            self._call("delete_registered_model", name)
        except TrackerRefusedError as error:
            if not _is_gone(error):
                raise

    def end_running(self, before_ms: int) -> int:
        """End runs of FLTS that started before a time and are RUNNING, at most 100, as KILLED; return how many."""
        experiments = [found.experiment_id for found in self._call("search_experiments", max_results=_BATCH)]
        if not experiments:
            return 0
        condition = f"attributes.status = 'RUNNING' and attributes.start_time < {before_ms}"
        found = self._call("search_runs", experiments, filter_string=condition, max_results=_SEARCHED)
        ours = [run for run in found if RUN_TAG in run.data.tags]
        for run in ours:
            self._call("set_terminated", run.info.run_id, "KILLED")
        return len(ours)

    def _pages(self, name: str, *args: Any, **options: Any) -> list[Any]:
        found: list[Any] = []
        token = None
        while True:
            page = self._call(name, *args, **options, page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def _record(self, document: RunDocument, cursor: Cursor, *, create: bool) -> None:
        if cursor.mlflow_run_id is None:
            self._find_or_make(document, cursor, create=create)
        run = cursor.mlflow_run_id
        self._describe(document, cursor)
        while cursor.metrics < len(document.metrics):
            batch = document.metrics[cursor.metrics : cursor.metrics + _BATCH]
            self._skip_refused(document, "metrics", lambda batch=batch: self._log_metrics(run, batch))  # type: ignore[misc]
            cursor.metrics += len(batch)
        while cursor.artifacts < len(document.artifacts):
            artifact = document.artifacts[cursor.artifacts]
            self._skip_refused(document, artifact.path, lambda one=artifact: self._log_artifact(run, one))  # type: ignore[misc]
            cursor.artifacts += 1
        if document.registration is not None and not cursor.registered:
            self._register(document, document.registration, cursor)
            cursor.registered = True
        if document.status is not None and not cursor.ended:
            # A later attempt may have ended the run before a spooled document is sent. The later end wins, so an older
            # document does not replace the status.
            if document.end_ms is None or document.end_ms >= cursor.ended_ms:
                self._call("set_terminated", run, document.status, end_time=document.end_ms)
            cursor.ended = True

    def _find_or_make(self, document: RunDocument, cursor: Cursor, *, create: bool) -> None:
        experiment = self._experiment(document.experiment)
        found = self._runs(experiment, document.run_id)
        if not found:
            if not create:
                msg = f"MLflow has no run with run_id {document.run_id} in {document.experiment}"
                raise NotRecordedError(msg)
            tags = {**document.tags, RUN_TAG: document.run_id, _MADE_TAG: str(time.time_ns() // 1_000_000)}
            run = self._call(
                "create_run", experiment, start_time=document.start_ms, tags=tags, run_name=document.name or None
            )
            # A call that timed out may have created a run too. So all runs with this id are listed, and all except the
            # first are deleted.
            found = self._runs(experiment, document.run_id) or [run]
        for double in found[1:]:
            self._call("delete_run", double.info.run_id)
        cursor.mlflow_run_id = found[0].info.run_id
        cursor.artifact_uri = found[0].info.artifact_uri
        cursor.ended_ms = int(found[0].info.end_time or 0)

    def _runs(self, experiment: str, run_id: str) -> list[Any]:
        """Return the runs with this run_id, in the order of their creation."""
        found = self._call("search_runs", [experiment], filter_string=f"tags.{RUN_TAG} = '{run_id}'")
        return sorted(found, key=lambda run: (int(run.data.tags.get(_MADE_TAG, 0)), run.info.run_id))

    def _experiment(self, name: str) -> str:
        if name in self._experiments:
            return self._experiments[name]
        found = self._call("get_experiment_by_name", name)
        if found is None:
            try:
                self._call("create_experiment", name)
            except TrackerRefusedError as error:
                if not _exists_already(error):
                    raise
            found = self._call("get_experiment_by_name", name)  # another trainer may have created it meanwhile
        elif found.lifecycle_stage == "deleted":
            self._call("restore_experiment", found.experiment_id)
        self._experiments[name] = str(found.experiment_id)
        return self._experiments[name]

    def _describe(self, document: RunDocument, cursor: Cursor) -> None:
        from mlflow.entities import Param, RunTag  # noqa: PLC0415 - see _connected

        params, tags = list(document.params.items()), list(document.tags.items())
        while cursor.params_sent < len(params) or cursor.tags_sent < len(tags):
            some = params[cursor.params_sent : cursor.params_sent + _BATCH_PARAMS]
            more = tags[cursor.tags_sent : cursor.tags_sent + _BATCH_PARAMS]
            sent = {"params": [Param(*one) for one in some], "tags": [RunTag(*one) for one in more]}
            self._skip_refused(
                document,
                "params",
                lambda sent=sent: self._call("log_batch", cursor.mlflow_run_id, **sent, synchronous=True),  # type: ignore[misc]
            )
            cursor.params_sent += len(some)
            cursor.tags_sent += len(more)

    def _log_metrics(self, run: str | None, metrics: list[Metric]) -> None:
        from mlflow import entities  # noqa: PLC0415 - see _connected

        sent = [entities.Metric(one.name, one.value, one.time_ms, one.step) for one in metrics]
        self._call("log_batch", run, metrics=sent, synchronous=True)

    def _log_artifact(self, run: str | None, artifact: Artifact) -> None:
        path = PurePosixPath(artifact.path)
        data = artifact.data
        if artifact.claim is not None:
            if self._store is None:
                msg = f"{artifact.path} lies in a store that this tracker does not have"
                raise TrackerRefusedError(msg)
            data = read_claimed(self._store, artifact.claim)
        with tempfile.TemporaryDirectory(prefix="flts-") as folder:
            local = Path(folder) / path.name
            local.write_bytes(data or b"")
            above = str(path.parent)
            self._call("log_artifact", run, str(local), artifact_path=None if above == "." else above)

    def _register(self, document: RunDocument, registration: Registration, cursor: Cursor) -> None:
        model = document.experiment
        if model not in self._models:
            try:
                self._call("create_registered_model", model)
            except TrackerRefusedError as error:
                if not _exists_already(error):
                    raise
            self._models.add(model)
        if self._version(model, document.run_id) is not None:
            return
        self._call(
            "create_model_version",
            model,
            f"{cursor.artifact_uri}/{registration.model_type}",
            run_id=cursor.mlflow_run_id,
            tags={**document.tags, **registration.tags, RUN_TAG: document.run_id},
            await_creation_for=0,
        )
        self._version(model, document.run_id)  # removes a second version, which a lost answer can cause

    def _version(self, model: str, run_id: str) -> str | None:
        """Return the first version with this run_id, or None; delete further versions with it."""
        found = self._call("search_model_versions", f"name = '{model}' and tags.{RUN_TAG} = '{run_id}'")
        versions = sorted((str(version.version) for version in found), key=int)
        for double in versions[1:]:
            self._call("delete_model_version", model, double)
        return versions[0] if versions else None

    def _skip_refused(self, document: RunDocument, what: str, send: Callable[[], Any]) -> None:
        """Omit a part of the document that MLflow refuses, so that the other parts are recorded."""
        try:
            send()
        except (TrackerAwayError, BackendAwayError):
            raise
        except FltsError as error:
            if isinstance(error, TrackerRefusedError) and _is_gone(error):
                raise
            log.warning("tracking_refused", run_id=document.run_id, what=what, reason=str(error))

    def _call(self, name: str, *args: Any, **options: Any) -> Any:
        if self._breaker.is_open:
            msg = f"MLflow at {self._address} did not answer a moment ago"
            raise TrackerAwayError(msg)
        try:
            answer = getattr(self._connected(), name)(*args, **options)
        except Exception as error:
            status, code = _status_of(error)
            # MLflow's errors contain the address, which may contain a password.
            message = without_userinfo(f"{name}: {error}")
            if _CLIENT_ERROR <= status < _SERVER_ERROR and status not in _AWAY_STATUSES:
                self._metrics.mlflow_calls.labels("refused").inc()
                raise TrackerRefusedError(message, code=code) from error
            if self._breaker.failed():
                self._metrics.mlflow_breaker_open.set(1)
                log.warning("tracking_unavailable", address=self._address, reason=message[:500])
            self._metrics.mlflow_calls.labels("failed").inc()
            raise TrackerAwayError(message) from error
        if self._breaker.succeeded():
            self._metrics.mlflow_breaker_open.set(0)
            log.info("tracking_available", address=self._address)
        self._metrics.mlflow_calls.labels("done").inc()
        return answer

    @property
    def _address(self) -> str:
        return without_userinfo(self._settings.mlflow_tracking_uri)

    def _connected(self) -> Any:
        """Return the client. The first call creates it, because importing mlflow needs 1.5 s and 164 MB."""
        if self._client is None:
            # MLflow reads these settings only from the environment, some of them at import. By default it retries for
            # many minutes, and botocore makes five attempts if artifacts go directly to S3.
            seconds = str(max(1, ceil(self._settings.mlflow_timeout_seconds)))
            environment = os.environ  # noqa: TID251 - written, because MLflow has no other interface for these settings
            environment["MLFLOW_HTTP_REQUEST_TIMEOUT"] = seconds
            environment["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
            environment["MLFLOW_DISABLE_TELEMETRY"] = "true"
            environment["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # standard output is for JSON lines
            environment.setdefault("AWS_MAX_ATTEMPTS", "1")
            environment.setdefault("GIT_PYTHON_REFRESH", "quiet")
            from mlflow import MlflowClient  # noqa: PLC0415 - see above

            uri = self._settings.mlflow_tracking_uri
            self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        return self._client


def _status_of(error: Exception) -> tuple[int, str]:
    """Return the HTTP status of an error, or 599 without an answer, and the error code of MLflow."""
    code = getattr(error, "error_code", None)
    status_of = getattr(error, "get_http_status_code", None)
    if code is not None and status_of is not None:
        return int(status_of()), str(code)
    response = getattr(error, "response", None)  # an error of the package requests, from an upload of an artifact
    status = getattr(response, "status_code", None)
    return (int(status), str(status)) if status is not None else (599, type(error).__name__)


def _exists_already(error: TrackerRefusedError) -> bool:
    return error.code == "RESOURCE_ALREADY_EXISTS"


def _is_gone(error: TrackerRefusedError) -> bool:
    # MLflow's message for a deleted run: "The run must be in the 'active' state. Current state is deleted."
    deleted = error.code == "INVALID_PARAMETER_VALUE" and "Current state is deleted" in error.message
    return deleted or error.code == "RESOURCE_DOES_NOT_EXIST"


def _is_before(tags: Mapping[str, str], before: str) -> bool:
    return str(tags.get("pipeline_run_id", "")) < before
