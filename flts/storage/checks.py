"""The check of the object store when a service starts, with real requests."""

from __future__ import annotations

import hashlib
import os
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from flts.errors import BackendAwayError, FltsError, PreconditionFailedError, RejectedError
from flts.observability.logs import get_logger
from flts.storage import layout

if TYPE_CHECKING:
    from flts.settings import StoreSettings
    from flts.storage.ports import ObjectStore

log = get_logger(__name__)

PROBE_BYTES = 8 * 2**20
_RETRY_SECONDS = 0.5
ENSURE = "ensure buckets"


def check_store(store: ObjectStore, settings: StoreSettings) -> None:
    """Check that the store answers and obeys conditional puts; retry while the store is away.

    It creates the missing buckets. Under ``_probe/`` it checks that the store refuses a second create-only put and a
    put with a stale etag, and it writes 8 MiB by multipart, reads them back and deletes them.

    Raises
    ------
    BackendAwayError
        If a step did not succeed within ``settings.backend_check_seconds``; the message names the address and the step.
    RejectedError
        With code ``conditional_puts_ignored`` if the store overwrites an object despite the condition,
        ``probe_differs`` if it returns other bytes than were written, or the code of another error of the store.
    """
    address = str(getattr(store, "address", type(store).__name__))
    probe = _Probe(store, settings)
    # A server that answers byte by byte does not exceed the timeouts of single calls. So the check runs in a thread,
    # and its total time is limited here.
    thread = threading.Thread(target=probe.run, name="store-check", daemon=True)
    thread.start()
    thread.join(settings.backend_check_seconds)
    probe.stop.set()
    error = probe.error
    if thread.is_alive() or (error is not None and isinstance(error, BackendAwayError)):
        reason = f": {error}" if error else ""
        msg = f"store {address}: '{probe.step}' did not succeed within {settings.backend_check_seconds:g} s{reason}"
        code = error.code if isinstance(error, FltsError) else None
        raise BackendAwayError(msg, code=code) from error
    if isinstance(error, FltsError):
        msg = f"store {address}: '{probe.step}' failed: {error}"
        raise RejectedError(msg, code=error.code) from error
    if error is not None:
        raise error


def write_steps(store: ObjectStore, settings: StoreSettings) -> dict[str, Callable[[], None]]:
    """Return the steps that check writing to a store, by name. No step creates a bucket."""
    steps = _Probe(store, settings).steps
    return {name: take for name, take in steps.items() if name != ENSURE}


class _Probe:
    """The steps of the check, in their order; ``step`` is the name of the running step."""

    def __init__(self, store: ObjectStore, settings: StoreSettings) -> None:
        self.step = "connect"
        self.error: Exception | None = None
        self.stop = threading.Event()
        self._store = store
        self._settings = settings
        self._bucket = settings.bucket_pipeline_runs
        self._deadline = time.monotonic() + settings.backend_check_seconds
        self.steps: dict[str, Callable[[], None]] = {
            ENSURE: self._ensure_buckets,
            "create-only put": self._create_only,
            "put on a stale etag": self._stale_etag,
            "put, read and delete 8 MiB": self._round_trip,
        }

    def run(self) -> None:
        """Run the steps. Repeat a step while the store is away; end at the deadline or at any other error."""
        for step, take in self.steps.items():
            self.step = step
            while not self._take(take):
                if isinstance(self.error, BackendAwayError) and time.monotonic() < self._deadline:
                    if self.stop.wait(_RETRY_SECONDS):
                        return
                    continue
                return

    def _take(self, take: Callable[[], None]) -> bool:
        try:
            take()
        except Exception as error:  # noqa: BLE001 - passed to the thread that started the check
            self.error = error
            return False
        self.error = None
        return True

    def _ensure_buckets(self) -> None:
        settings = self._settings
        for bucket in (
            settings.bucket_raw_data,
            settings.bucket_processed_data,
            settings.bucket_model_bundles,
            settings.promotion_bucket,
            settings.bucket_pipeline_runs,
            settings.bucket_inference_logs,
        ):
            try:
                self._store.ensure_bucket(bucket)
            except FltsError as error:
                log.warning("bucket_ensure_error", bucket=bucket, reason=str(error))
                raise
            log.info("bucket_exists", bucket=bucket)

    def _create_only(self) -> None:
        key = layout.PROBE(str(uuid.uuid4()))
        try:
            self._store.put(self._bucket, key, b"first", create_only=True)
            self._must_refuse(key, b"second", create_only=True)
        finally:
            self._remove(key)

    def _stale_etag(self) -> None:
        key = layout.PROBE(str(uuid.uuid4()))
        try:
            stale = self._store.put(self._bucket, key, b"first").etag
            fresh = self._store.put(self._bucket, key, b"second", if_match=stale).etag
            self._must_refuse(key, b"third", if_match=stale)
            self._store.put(self._bucket, key, b"fourth", if_match=fresh)
        finally:
            self._remove(key)

    def _must_refuse(self, key: str, data: bytes, *, create_only: bool = False, if_match: str | None = None) -> None:
        with suppress(PreconditionFailedError):
            self._store.put(self._bucket, key, data, create_only=create_only, if_match=if_match)
            msg = (
                "it overwrites an object that a conditional put was to keep, so two writers could undo each "
                "other's decisions; use a server with conditional puts (If-None-Match, If-Match)"
            )
            raise RejectedError(msg, code="conditional_puts_ignored")

    def _round_trip(self) -> None:
        key = layout.PROBE(str(uuid.uuid4()))
        block = os.urandom(1 << 20)
        count = PROBE_BYTES // len(block)
        digest = hashlib.sha256()
        try:
            self._store.put_stream(self._bucket, key, (block for _ in range(count)))
            for chunk in self._store.stream(self._bucket, key):
                digest.update(chunk)
        finally:
            self._remove(key)
        if digest.digest() != hashlib.sha256(block * count).digest():
            msg = "it returned other bytes than it was given"
            raise RejectedError(msg, code="probe_differs")

    def _remove(self, key: str) -> None:
        with suppress(FltsError):  # the step's error is reported; the janitor removes the probe object
            self._store.delete(self._bucket, key)
