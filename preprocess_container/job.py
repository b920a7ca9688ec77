"""The Job: start a run on the data set that ``DATASET_NAME`` names, once per data set and recipe.

The Job joins no consumer group and preprocesses nothing. It does the same as the gateway after an upload, so that
``docker compose up`` and ``helm install`` alone end in a served forecast.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field

from flts.contracts.claim_check import ClaimCheck
from flts.contracts.events import RawData
from flts.contracts.ids import check_identifier, derived_event_id, new_pipeline_run_id, sha256_of
from flts.errors import BackendAwayError, FltsError, HashMismatchError, NotFoundError
from flts.ingest.sample import SAMPLE_IDENTIFIER, write_sample
from flts.ingest.uploads import newest_upload, upload_hash
from flts.messaging.kafka import Publisher, ensure_topics
from flts.observability.logs import bind, configure_logs, get_logger
from flts.runtime.adapters import connect
from flts.settings import WindowSettings
from flts.storage import layout
from flts.storage.checks import check_store
from flts.storage.claims import hash_of, hash_of_file
from flts.storage.ports import ObjectStore
from flts.storage.run_store import RunStore
from preprocess_container.domain.config_hash import config_hash
from preprocess_container.settings import PreprocessSettings

NAME = "preprocess-job"
WAIT_SECONDS = 1.0  # seconds between two attempts to reach a broker that is starting

log = get_logger(__name__)


class JobSettings(PreprocessSettings):
    """The Job's settings: preprocess's, and the name of a data set."""

    dataset_name: str = Field(min_length=1)
    """Identifier whose newest upload the Job starts a run on; `sample` is generated and uploaded if it is missing."""


class DatasetJob:
    """Starts one run per data set and recipe, however often it is executed."""

    def __init__(
        self,
        store: ObjectStore,
        run_store: RunStore,
        settings: JobSettings,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._runs = run_store.runs
        self._stages = run_store.stages
        self._settings = settings
        self._now = now

    def prepare(self) -> RawData | None:
        """Record the run and return the event that announces it, or None if that was done before.

        After a kill the next execution continues the same run, whose id is in the Job's record.

        Raises
        ------
        NotFoundError
            If nothing was uploaded under this name; the message contains the upload command.
        """
        identifier = check_identifier(self._settings.dataset_name)
        began = self._now()
        train, test = self._claims(identifier)
        run_id = new_pipeline_run_id()
        event = RawData(
            event_id=derived_event_id(run_id, RawData.HEADER_EVENT),
            identifier=identifier,
            pipeline_run_id=run_id,
            created_at=self._now(),
            train=train,
            test=test,
            cause="job",
        )
        record, first = self._runs.create_job(identifier, self._hash(train, test), event.model_dump(mode="json"))
        event = RawData.model_validate(record)
        if self._runs.create(event):
            size = event.train.size + (event.test.size if event.test is not None else 0)
            self._stages.put(identifier, event.pipeline_run_id, "upload", "done", began, size_bytes=size)
        if self._runs.announced(identifier, event.pipeline_run_id):
            log.info("job_done_before", pipeline_run_id=event.pipeline_run_id, first=first)
            return None
        return event

    def finish(self, event: RawData) -> None:
        """Record that the broker acknowledged the run's event."""
        self._runs.mark_announced(event.identifier, event.pipeline_run_id)

    def _claims(self, identifier: str) -> tuple[ClaimCheck, ClaimCheck | None]:
        bucket = self._settings.bucket_raw_data
        found = newest_upload(self._store, bucket, identifier)
        if found is not None:
            train = self._claim(bucket, found.train.key)
            test = self._claim(bucket, found.test.key) if found.test is not None else None
            if upload_hash(train.sha256, test.sha256 if test else None) != found.upload_hash:
                msg = f"the stored files of {identifier}/{found.upload_hash} are not the ones that were uploaded"
                raise HashMismatchError(msg)
            return train, test
        if identifier != SAMPLE_IDENTIFIER:
            msg = (
                f"nothing was uploaded as {identifier}; upload it first: "
                f"flts upload {identifier} train.csv --test test.csv"
            )
            raise NotFoundError(msg, code="no_upload", field="DATASET_NAME")
        with tempfile.TemporaryDirectory(prefix="flts-job-") as folder:
            return self._upload_sample(Path(folder))

    def _claim(self, bucket: str, key: str) -> ClaimCheck:
        # The upload is hashed while it is downloaded and is not written to disk: it may be larger than the container's
        # disk.
        size, sha256 = hash_of(self._store.stream(bucket, key))
        return ClaimCheck(bucket=bucket, object_key=key, size=size, sha256=sha256)

    def _upload_sample(self, folder: Path) -> tuple[ClaimCheck, ClaimCheck]:
        bucket = self._settings.bucket_raw_data
        train_path, test_path = write_sample(folder)
        (train_size, train_sha256), (test_size, test_sha256) = hash_of_file(train_path), hash_of_file(test_path)
        upload = upload_hash(train_sha256, test_sha256)
        train_key = layout.UPLOAD(SAMPLE_IDENTIFIER, upload, "train")
        test_key = layout.UPLOAD(SAMPLE_IDENTIFIER, upload, "test")
        # An upload counts as complete once its training file is stored, so the training file is stored after the test
        # file.
        self._store.put_file(bucket, test_key, test_path)
        self._store.put_file(bucket, train_key, train_path)
        log.info("sample_uploaded", identifier=SAMPLE_IDENTIFIER, object_key=train_key)
        return (
            ClaimCheck(bucket=bucket, object_key=train_key, size=train_size, sha256=train_sha256),
            ClaimCheck(bucket=bucket, object_key=test_key, size=test_size, sha256=test_sha256),
        )

    def _hash(self, train: ClaimCheck, test: ClaimCheck | None) -> str:
        digest = config_hash(self._settings, train_sha256=train.sha256, test_sha256=test.sha256 if test else None)
        windows = self._settings.hashed(WindowSettings)
        # Added only where it is set, so that a Job of the last release has the same hash.
        horizon = {} if self._settings.horizon == "auto" else {"horizon": self._settings.horizon}
        return sha256_of({"config_hash": digest, "windows": windows | horizon})


def main() -> int:
    """Start the run; return 0 also if it was started before, and 1 after an error, which is logged in one line."""
    settings = JobSettings.load()
    secret = settings.aws_secret_access_key
    configure_logs(NAME, settings.log_level, secrets=[secret.get_secret_value()] if secret else [])
    adapters = connect(settings)
    try:
        check_store(adapters.store, settings)
        job = DatasetJob(adapters.store, adapters.run_store, settings)
        event = job.prepare()
        if event is not None:
            with bind(identifier=event.identifier, pipeline_run_id=event.pipeline_run_id):
                _publish(event, settings)
                job.finish(event)
                log.info("raw_data_published", event_id=event.event_id, cause=event.cause)
    except FltsError as error:
        log.error("job_failed", error=error.message, error_code=error.code)  # noqa: TRY400 - a message, not a traceback
        return 1
    return 0


def _publish(event: RawData, settings: JobSettings) -> None:
    """Publish the event once the topics exist; wait for a broker that is still starting."""
    deadline = time.monotonic() + settings.backend_check_seconds
    while True:
        try:
            ensure_topics(settings, NAME)
            break
        except BackendAwayError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(WAIT_SECONDS)
    publisher = Publisher(settings, NAME)
    try:
        publisher.publish_all([event])
    finally:
        publisher.close()


if __name__ == "__main__":
    raise SystemExit(main())
