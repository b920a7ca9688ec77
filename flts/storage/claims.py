"""Objects that claim checks name: they are written once, and their hash and size are verified when they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from flts.contracts.claim_check import ClaimCheck
from flts.errors import BackendAwayError, HashMismatchError, ObjectNotFoundError, PreconditionFailedError
from flts.observability.logs import get_logger
from flts.observability.metrics import default_metrics

if TYPE_CHECKING:
    from flts.storage.ports import ObjectStore

log = get_logger(__name__)

_TRIES = 5


def put_claimed(
    store: ObjectStore,
    bucket: str,
    key: str,
    data: bytes,
    *,
    rows: int | None = None,
    columns: int | None = None,
    create_only: bool = True,
) -> ClaimCheck:
    """Write an object and return its claim check; with ``create_only`` an existing object stays.

    Parameters
    ----------
    rows, columns : int, optional
        Shape, if the object is a table.

    Returns
    -------
    ClaimCheck
        The claim check of the stored object. If another writer stored other bytes first, it describes those bytes,
        with the shape read from a Parquet object, and ``flts_store_conflicts_total`` is incremented.
    """
    claim = ClaimCheck(
        bucket=bucket,
        object_key=key,
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        rows=rows,
        columns=columns,
    )
    for _ in range(_TRIES):
        try:
            store.put(bucket, key, data, create_only=create_only)
        except PreconditionFailedError:
            try:
                return _adopt(store, claim)
            except ObjectNotFoundError:
                continue  # another process removed the object, or another writer's put has not finished
        return claim
    msg = f"{bucket}/{key} can be neither written nor read"
    raise BackendAwayError(msg)


def read_claimed(store: ObjectStore, claim: ClaimCheck) -> bytes:
    """Return the bytes of the object that a claim check names.

    Raises
    ------
    ObjectNotFoundError
        If there is no object under the key.
    HashMismatchError
        If its size or hash differs; reading stops when the object is larger than claimed.
    """
    parts: list[bytes] = []
    size = 0
    for chunk in store.stream(claim.bucket, claim.object_key):
        parts.append(chunk)
        size += len(chunk)
        if size > claim.size:
            raise _mismatch(claim, f"more than {claim.size} bytes")
    data = b"".join(parts)
    _check(claim, size, hashlib.sha256(data).hexdigest())
    return data


def check_claimed(store: ObjectStore, claim: ClaimCheck) -> None:
    """Compare an object with its claim check in constant memory; raises as `read_claimed`."""
    _check(claim, *hash_of(store.stream(claim.bucket, claim.object_key)))


def hash_of_file(path: Path) -> tuple[int, str]:
    """Return a file's size in bytes and its SHA-256."""
    with path.open("rb") as file:
        return hash_of(iter(lambda: file.read(1 << 20), b""))


def hash_of(chunks: Iterable[bytes]) -> tuple[int, str]:
    """Return the total size in bytes and the SHA-256 of the chunks."""
    digest = hashlib.sha256()
    size = 0
    for chunk in chunks:
        digest.update(chunk)
        size += len(chunk)
    return size, digest.hexdigest()


def _adopt(store: ObjectStore, claim: ClaimCheck) -> ClaimCheck:
    size, sha256 = hash_of(store.stream(claim.bucket, claim.object_key))
    if sha256 == claim.sha256:
        return claim
    default_metrics().store_conflicts.inc()
    log.warning(
        "store_conflict", object_key=f"{claim.bucket}/{claim.object_key}", sha256=claim.sha256, stored_sha256=sha256
    )
    stored = claim.model_copy(update={"size": size, "sha256": sha256})
    if claim.rows is None or not claim.object_key.endswith(".parquet"):
        return stored
    from flts.storage.frames import parquet_shape  # noqa: PLC0415 - pyarrow is imported only for a table

    rows, columns = parquet_shape(read_claimed(store, stored))
    return stored.model_copy(update={"rows": rows, "columns": columns})


def _check(claim: ClaimCheck, size: int, sha256: str) -> None:
    if size != claim.size:
        raise _mismatch(claim, f"{size} bytes")
    if sha256 != claim.sha256:
        raise _mismatch(claim, f"SHA-256 {sha256}")


def _mismatch(claim: ClaimCheck, found: str) -> HashMismatchError:
    msg = f"{claim.bucket}/{claim.object_key} has {found}, its claim says {claim.size} bytes, SHA-256 {claim.sha256}"
    return HashMismatchError(msg)
