"""An object store with kill points before and after each access to an object; for tests only (`flts.killpoints`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flts.killpoints import reached

if TYPE_CHECKING:
    from flts.storage.ports import ObjectInfo, ObjectStore


class MortalStore:
    """Forwards every call to a store, and passes a kill point before and after each read, write or delete of an object.

    Parameters
    ----------
    store : ObjectStore
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.address = getattr(store, "address", type(store).__name__)

    def ensure_bucket(self, bucket: str) -> None:
        """Create the bucket unless it exists."""
        self._store.ensure_bucket(bucket)

    def put(
        self,
        bucket: str,
        key: str,
        data: bytes,
        *,
        create_only: bool = False,
        if_match: str | None = None,
    ) -> ObjectInfo:
        """Write an object atomically."""
        with _points("object-write", bucket, key):
            return self._store.put(bucket, key, data, create_only=create_only, if_match=if_match)

    def put_file(self, bucket: str, key: str, path: Path, *, create_only: bool = False) -> ObjectInfo:
        """Write a file as an object."""
        with _points("object-write", bucket, key):
            return self._store.put_file(bucket, key, path, create_only=create_only)

    def put_stream(self, bucket: str, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
        """Write an object from chunks."""
        with _points("object-write", bucket, key):
            return self._store.put_stream(bucket, key, chunks)

    def get(self, bucket: str, key: str) -> tuple[bytes, ObjectInfo]:
        """Return an object's bytes and its info."""
        with _points("object-read", bucket, key):
            return self._store.get(bucket, key)

    def get_file(self, bucket: str, key: str, path: Path) -> ObjectInfo:
        """Write an object's bytes to a file."""
        with _points("object-read", bucket, key):
            return self._store.get_file(bucket, key, path)

    def stream(self, bucket: str, key: str, *, chunk_bytes: int = 1 << 20) -> Iterator[bytes]:
        """Yield an object's bytes in chunks."""
        reached("object-read.before", bucket, key)
        chunks = self._store.stream(bucket, key, chunk_bytes=chunk_bytes)  # raises here if the object is missing
        return _until_read(chunks, bucket, key)

    def head(self, bucket: str, key: str) -> ObjectInfo:
        """Return an object's info."""
        return self._store.head(bucket, key)

    def list(self, bucket: str, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield all objects whose key starts with ``prefix``."""
        return self._store.list(bucket, prefix)

    def list_folders(self, bucket: str, prefix: str = "") -> Iterator[str]:
        """Yield the distinct next path segments below ``prefix``."""
        return self._store.list_folders(bucket, prefix)

    def copy(self, bucket: str, source_key: str, key: str, *, create_only: bool = False) -> ObjectInfo:
        """Copy an object within a bucket."""
        with _points("object-write", bucket, key):
            return self._store.copy(bucket, source_key, key, create_only=create_only)

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object."""
        with _points("object-delete", bucket, key):
            self._store.delete(bucket, key)


@contextmanager
def _points(what: str, bucket: str, key: str) -> Iterator[None]:
    reached(f"{what}.before", bucket, key)
    yield
    reached(f"{what}.after", bucket, key)


def _until_read(chunks: Iterator[bytes], bucket: str, key: str) -> Iterator[bytes]:
    yield from chunks
    reached("object-read.after", bucket, key)
