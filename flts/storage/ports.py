"""The port of the object store: the interface and the guarantees of every adapter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """The metadata of an object."""

    key: str
    size: int
    etag: str
    """Opaque; it differs if the key has other bytes."""
    modified: float
    """Time of the last write, epoch seconds."""


class ObjectStore(Protocol):
    """Objects in buckets.

    Every call is bounded in time. If the store does not answer, a method raises `BackendAwayError`; if the object does
    not exist, `ObjectNotFoundError`; if a condition does not hold, `PreconditionFailedError`.
    """

    def ensure_bucket(self, bucket: str) -> None:
        """Create the bucket unless it exists."""
        ...

    def put(
        self,
        bucket: str,
        key: str,
        data: bytes,
        *,
        create_only: bool = False,
        if_match: str | None = None,
    ) -> ObjectInfo:
        """Write an object atomically.

        ``create_only`` raises `PreconditionFailedError` if the key exists; ``if_match`` raises it if the stored object
        does not have this etag.
        """
        ...

    def put_file(self, bucket: str, key: str, path: Path, *, create_only: bool = False) -> ObjectInfo:
        """Write a file as an object in constant memory (S3 uses multipart for large files)."""
        ...

    def put_stream(self, bucket: str, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
        """Write an object from chunks in constant memory; write nothing if the iterable raises."""
        ...

    def get(self, bucket: str, key: str) -> tuple[bytes, ObjectInfo]:
        """Return an object's bytes and its info."""
        ...

    def get_file(self, bucket: str, key: str, path: Path) -> ObjectInfo:
        """Write an object's bytes to a file, in constant memory."""
        ...

    def stream(self, bucket: str, key: str, *, chunk_bytes: int = 1 << 20) -> Iterator[bytes]:
        """Yield an object's bytes in chunks; raises `ObjectNotFoundError` before the first chunk."""
        ...

    def head(self, bucket: str, key: str) -> ObjectInfo:
        """Return an object's info."""
        ...

    def list(self, bucket: str, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield all objects whose key starts with ``prefix``, ordered by key, with no limit of their number."""
        ...

    def list_folders(self, bucket: str, prefix: str = "") -> Iterator[str]:
        """Yield the distinct next path segments below ``prefix`` (which ends with "/" or is empty), ordered."""
        ...

    def copy(self, bucket: str, source_key: str, key: str, *, create_only: bool = False) -> ObjectInfo:
        """Copy an object within a bucket."""
        ...

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object; no error if it does not exist."""
        ...
