"""Read an uploaded file from the store in one pass, which parses and hashes it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from typing import Any

from flts.contracts.claim_check import ClaimCheck
from flts.errors import HashMismatchError, RejectedError
from flts.ingest.reader import read_table
from flts.ingest.table import RawTable
from flts.recipe_settings import ReadSettings
from flts.settings import UploadLimits
from flts.storage.ports import ObjectStore
from flts.times import TimeFormat


def read_raw(
    store: ObjectStore,
    claim: ClaimCheck,
    *,
    limits: UploadLimits,
    settings: ReadSettings,
    name: str,
    like: TimeFormat | None = None,
) -> RawTable:
    """Return the table of a claimed object; apart from the table, the memory is constant.

    Parameters
    ----------
    like
        Form of the times of the data set's other file.

    Raises
    ------
    ObjectNotFoundError, HashMismatchError
        If the object is missing or differs from its claim check; this error precedes any refusal of the content.
    RejectedError
        By `read_table`.
    """
    source = _HashedObject(store.stream(claim.bucket, claim.object_key))
    try:
        buffered = io.BufferedReader(source, 1 << 20)
        table = read_table(buffered, limits=limits, settings=settings, like=like, name=name)
    except RejectedError:
        source.check(claim)
        raise
    source.check(claim)
    return table


class _HashedObject(io.RawIOBase):
    """Chunks of an object as a file that hashes the bytes that are read."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self._chunks = chunks
        self._kept = b""
        self._digest = hashlib.sha256()
        self._size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        if not self._kept:
            self._kept = self._next()
        part, self._kept = self._kept[: len(buffer)], self._kept[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)

    def check(self, claim: ClaimCheck) -> None:
        """Read the remaining bytes, and compare size and hash with the claim check."""
        while self._size <= claim.size and self._next():
            pass
        if self._size != claim.size or self._digest.hexdigest() != claim.sha256:
            msg = (
                f"{claim.bucket}/{claim.object_key} is not the object that was claimed: {claim.size} bytes with "
                f"SHA-256 {claim.sha256}"
            )
            raise HashMismatchError(msg)

    def _next(self) -> bytes:
        for chunk in self._chunks:
            if chunk:
                self._digest.update(chunk)
                self._size += len(chunk)
                return chunk
        return b""
