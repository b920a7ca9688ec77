"""The spool: documents in the store that MLflow has not recorded yet."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flts.storage import layout
from flts.storage.ports import ObjectInfo
from flts.tracking.record import ChampionDocument, Document, ForgetDocument

if TYPE_CHECKING:
    from flts.storage.ports import ObjectStore


class Spool:
    """The documents in the folder ``_spool/`` of the bucket of runs."""

    def __init__(self, store: ObjectStore, bucket: str) -> None:
        self._store = store
        self._bucket = bucket

    def put(self, document: Document) -> str:
        """Store a document and return its key.

        The complete document of a run, the champion of an experiment and its deletion each replace the earlier document
        of the same kind. An addition to a run gets a key of its own.
        """
        data = document.to_json()
        if isinstance(document, ChampionDocument):
            key = layout.SPOOLED_CHAMPION(document.experiment)
        elif isinstance(document, ForgetDocument):
            key = layout.SPOOLED_FORGET(document.experiment)
        elif document.status is not None:
            key = layout.SPOOLED_RUN(document.run_id)
        else:
            key = layout.SPOOLED_ADDITION(document.run_id, hashlib.sha256(data).hexdigest()[:12])
        self._store.put(self._bucket, key, data)
        return key

    def keys(self) -> list[str]:
        """Return the keys in the order of recording: runs, then additions to runs and deletions, then champions."""
        return sorted((info.key for info in self._list()), key=_rank)

    def read(self, key: str) -> tuple[bytes, ObjectInfo]:
        """Return the bytes and the info of a document; raises `ObjectNotFoundError` if it was removed."""
        return self._store.get(self._bucket, key)

    def remove(self, key: str, etag: str | None = None) -> None:
        """Remove a document; with ``etag`` only if another document has not replaced it."""
        if etag is None or self._store.head(self._bucket, key).etag == etag:
            self._store.delete(self._bucket, key)

    def reject(self, key: str) -> str:
        """Move a document that MLflow can never record out of the spool, for an operator to read; return its key."""
        aside = layout.SPOOL_REJECTED(_name(key))
        self._store.copy(self._bucket, key, aside)
        self._store.delete(self._bucket, key)
        return aside

    def _list(self) -> Iterator[ObjectInfo]:
        return self._store.list(self._bucket, layout.SPOOLED.prefix())


def _rank(key: str) -> tuple[bool, bool, str]:
    return layout.SPOOLED_CHAMPION.parse(key) is not None, "-" in _name(key), key


def _name(key: str) -> str:
    return key.removeprefix(layout.SPOOLED.prefix()).removesuffix(".json")
