"""The histories in the store: the worker writes the last rows of each data set in a form that numpy alone reads.

It writes one when the test rows of a run arrive, long before the run is decided. For champions of an earlier release,
which wrote none, it does so at its start and when their pointers move.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence

from flts.contracts.claim_check import ClaimCheck
from flts.contracts.events import Event
from flts.errors import (
    FltsError,
    HashMismatchError,
    NotFoundError,
    PreconditionFailedError,
    RejectedError,
    RetryableError,
)
from flts.forecasting.series import Series
from flts.observability.logs import get_logger
from flts.storage import layout
from flts.storage.claims import read_claimed
from flts.storage.frames import last_rows_from_parquet
from flts.storage.pointers import Pointers
from flts.storage.ports import ObjectStore
from inference_container.history_file import encode
from inference_container.settings import WorkerSettings

log = get_logger(__name__)

MOST_ROWS = 20_000
MOST_CELLS = 2_000_000
"""Cells of one history, 16 MB of doubles; the tails of the gateway have the same limit."""
MOST_OBJECT_BYTES = 64 * 2**20
"""Bytes of the Parquet file of the test rows, which the worker holds in memory; its container has 304 MiB."""


class StoredHistories:
    """Writes the histories to the store, each once.

    Parameters
    ----------
    store : ObjectStore
    pointers : Pointers
    settings : WorkerSettings
    """

    def __init__(self, store: ObjectStore, pointers: Pointers, settings: WorkerSettings) -> None:
        self._store = store
        self._pointers = pointers
        self._bucket = settings.bucket_processed_data
        self._promotion_bucket = settings.promotion_bucket
        self._lock = threading.Lock()
        self._hinted: set[str] | None = None
        """Identifiers whose champions may lack a history; None is all of them."""

    def hint(self, identifier: str) -> None:
        """Check the champion of this identifier at the next tick, because its pointer moved."""
        with self._lock:
            if self._hinted is not None:
                self._hinted.add(identifier)

    def tick(self) -> Sequence[Event]:
        """Write the histories that champions lack. After an error of the store the next tick tries again."""
        with self._lock:
            hinted, self._hinted = self._hinted, set()
        try:
            listed = self._store.list_folders(self._promotion_bucket) if hinted is None else hinted
            for identifier in sorted(listed):
                self._add_for_champion(identifier)
        except RetryableError as error:
            log.warning("history_waits", error=error)
            with self._lock:
                self._hinted = None if hinted is None else hinted | (self._hinted or set())
        return ()

    def add(self, identifier: str, config_hash: str, claim: ClaimCheck) -> None:
        """Write the history of a data set from its raw test rows, or the reason why there is none, create-only.

        Raises
        ------
        RetryableError
            If the store does not answer.
        """
        key = layout.HISTORY(identifier, config_hash)
        if self._has(identifier, config_hash):
            return  # by an earlier run on the same data
        content: Series | str
        try:
            content = self._read(claim)
        except FltsError as error:
            if isinstance(error, RetryableError):
                raise
            log.warning("history_missing", object_key=claim.object_key, error=error)
            content = _reason(error)
        try:
            self._store.put(self._bucket, key, encode(content), create_only=True)
        except PreconditionFailedError:
            return  # another replica wrote it meanwhile
        log.info("history_written", object_key=key, rows=0 if isinstance(content, str) else len(content))

    def _add_for_champion(self, identifier: str) -> None:
        try:
            pointer = self._pointers.current(identifier)
            config_hash = str(pointer[0]["config_hash"]) if pointer else ""
            if not config_hash or self._has(identifier, config_hash):
                return  # without its description being read
            document, _ = self._store.get(self._bucket, layout.TEST_META(identifier, config_hash))
            self.add(identifier, config_hash, ClaimCheck.model_validate(json.loads(document)["raw_data"]))
            if self._pointers.current(identifier) is None:  # the data set was deleted meanwhile
                self._store.delete(self._bucket, layout.HISTORY(identifier, config_hash))
        except RetryableError:
            raise
        except (FltsError, KeyError, TypeError, ValueError) as error:
            log.warning("history_missing", identifier=identifier, error=str(error))

    def _has(self, identifier: str, config_hash: str) -> bool:
        try:
            self._store.head(self._bucket, layout.HISTORY(identifier, config_hash))
        except NotFoundError:
            return False
        return True

    def _read(self, claim: ClaimCheck) -> Series:
        if claim.size > MOST_OBJECT_BYTES:
            msg = f"the file of the test rows has {claim.size} bytes, more than {MOST_OBJECT_BYTES}"
            raise RejectedError(msg, code="too_large")
        return last_rows_from_parquet(read_claimed(self._store, claim), rows=MOST_ROWS, cells=MOST_CELLS)


def _reason(error: FltsError) -> str:
    """Return why there is no history, for clients: without addresses and keys of the store, which the log shows."""
    if isinstance(error, NotFoundError):
        return "the store has them no longer"
    return "they are damaged in the store" if isinstance(error, HashMismatchError) else error.message
