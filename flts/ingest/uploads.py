"""Uploads in the bucket raw-data: their list, and the hash that names an upload."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from flts.storage import layout
from flts.storage.ports import ObjectInfo, ObjectStore


@dataclass(frozen=True, slots=True)
class RawUpload:
    """One upload of an identifier, found in the store."""

    identifier: str
    upload_hash: str
    train: ObjectInfo
    test: ObjectInfo | None


def upload_hash(train_sha256: str, test_sha256: str | None = None) -> str:
    """Return the SHA-256 of the files' hashes, one per line, so that no file is read again."""
    text = "\n".join(digest for digest in (train_sha256, test_sha256) if digest)
    return hashlib.sha256(text.encode()).hexdigest()


def newest_upload(store: ObjectStore, bucket: str, identifier: str) -> RawUpload | None:
    """Return the identifier's upload whose training file was written last, or None."""
    found: dict[str, dict[str, ObjectInfo]] = {}
    for info in store.list(bucket, layout.below(identifier)):
        if parts := layout.UPLOAD.parse(info.key):
            found.setdefault(parts["upload_hash"], {})[parts["part"]] = info
    uploads = [
        RawUpload(identifier, digest, files["train"], files.get("test"))
        for digest, files in found.items()
        if "train" in files
    ]
    return max(uploads, key=lambda upload: upload.train.modified, default=None)
