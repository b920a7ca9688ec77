"""Documents that MLflow has not recorded yet, kept in the store until it has."""

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
    """The folder ``_spool/`` of the bucket of runs."""

    def __init__(self, store: ObjectStore, bucket: str) -> None:
        self._store = store
        self._bucket = bucket

    def put(self, document: Document) -> str:
        """Keep a document and return its key.

        A run's own document and the champion of an experiment replace an earlier one, which they contain or overtake;
        what is added to a run lies beside it.
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
        """Return the documents in the order in which they can be recorded: runs, additions to runs, champions."""
        return sorted((info.key for info in self._list()), key=_rank)

    def read(self, key: str) -> tuple[bytes, ObjectInfo]:
        """Return a document's bytes; raises `ObjectNotFoundError` if it is gone."""
        return self._store.get(self._bucket, key)

    def remove(self, key: str, etag: str | None = None) -> None:
        """Forget a document; with ``etag`` only if it was not replaced since."""
        if etag is None or self._store.head(self._bucket, key).etag == etag:
            self._store.delete(self._bucket, key)

    def reject(self, key: str) -> str:
        """Put a document that can never be recorded aside, for a person to look at; return where."""
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
