"""A store whose process is killed at a write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flts.storage.ports import ObjectStore


class KilledError(Exception):
    """Simulates SIGKILL."""


class DyingStore:
    """A store whose process is killed just before or just after its n-th write."""

    def __init__(self, store: ObjectStore, *, at_write: int, after: bool) -> None:
        self._store = store
        self._at_write = at_write
        self._after = after
        self.writes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put(self, *arguments: Any, **options: Any) -> Any:
        return self._write(lambda: self._store.put(*arguments, **options))

    def delete(self, bucket: str, key: str) -> None:
        self._write(lambda: self._store.delete(bucket, key))

    def _write(self, write: Callable[[], Any]) -> Any:
        self.writes += 1
        if self.writes == self._at_write and not self._after:
            raise KilledError
        try:
            return write()
        finally:
            if self.writes == self._at_write and self._after:
                raise KilledError  # also after a write that was refused
