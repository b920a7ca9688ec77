"""The port of the object store: the promises of every adapter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object's info: size, etag, time of modification."""

    key: str
    size: int
    etag: str
    """Opaque; other bytes under the key have another one."""
    modified: float
    """Epoch seconds."""


class ObjectStore(Protocol):
    """Objects in buckets.

    Every call is bounded in time. A store that does not answer raises `BackendAwayError`; an object that is not there
    `ObjectNotFoundError`; a failed condition `PreconditionFailedError`. Nothing returns None for a failure.
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
        """Write an object whole.

        ``create_only`` raises `PreconditionFailedError` where the key exists; ``if_match`` unless the stored object has
        this etag.
        """
        ...

    def put_file(self, bucket: str, key: str, path: Path, *, create_only: bool = False) -> ObjectInfo:
        """Write a file as an object, streaming (multipart where the store has it)."""
        ...

    def put_stream(self, bucket: str, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
        """Write an object from chunks in constant memory; nothing is left behind if the iterable raises."""
        ...

    def get(self, bucket: str, key: str) -> tuple[bytes, ObjectInfo]:
        """Return an object's bytes and its info."""
        ...

    def get_file(self, bucket: str, key: str, path: Path) -> ObjectInfo:
        """Write an object's bytes to a file, in constant memory."""
        ...

    def stream(self, bucket: str, key: str, *, chunk_bytes: int = 1 << 20) -> Iterator[bytes]:
        """Yield an object's bytes in chunks; raises `ObjectNotFoundError` before the first one."""
        ...

    def head(self, bucket: str, key: str) -> ObjectInfo:
        """Return an object's info."""
        ...

    def list(self, bucket: str, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield all objects whose key starts with ``prefix``, ordered by key, past any page size."""
        ...

    def list_folders(self, bucket: str, prefix: str = "") -> Iterator[str]:
        """Yield the distinct next path segments below ``prefix`` (which ends with "/" or is empty), ordered."""
        ...

    def copy(self, bucket: str, source_key: str, key: str, *, create_only: bool = False) -> ObjectInfo:
        """Copy an object within a bucket."""
        ...

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object; no error where there is none."""
        ...
