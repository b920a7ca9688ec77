"""Where uploads lie in the raw-data bucket; gateway and Job agree on it here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from flts.storage.ports import ObjectInfo, ObjectStore

TRAIN_FILE = "train.csv"
TEST_FILE = "test.csv"


@dataclass(frozen=True, slots=True)
class RawUpload:
    """One upload of an identifier, found in the store."""

    identifier: str
    upload_hash: str
    train: ObjectInfo
    test: ObjectInfo | None


def upload_hash(train_sha256: str, test_sha256: str | None = None) -> str:
    """Return the SHA-256 of both files: of their hashes, one a line, so that neither file is needed again."""
    text = "\n".join(digest for digest in (train_sha256, test_sha256) if digest)
    return hashlib.sha256(text.encode()).hexdigest()


def raw_key(identifier: str, upload: str, part: Literal["train", "test"]) -> str:
    """Return the object key of an upload's file: ``<identifier>/<upload hash>/train.csv``."""
    return f"{identifier}/{upload}/{TRAIN_FILE if part == 'train' else TEST_FILE}"


def newest_upload(store: ObjectStore, bucket: str, identifier: str) -> RawUpload | None:
    """Return the identifier's upload whose training file was written last, or None."""
    found: dict[str, dict[str, ObjectInfo]] = {}
    for info in store.list(bucket, f"{identifier}/"):
        parts = info.key.split("/")
        if len(parts) == 3:  # noqa: PLR2004 - identifier, hash, file
            found.setdefault(parts[1], {})[parts[2]] = info
    uploads = [
        RawUpload(identifier, digest, files[TRAIN_FILE], files.get(TEST_FILE))
        for digest, files in found.items()
        if TRAIN_FILE in files
    ]
    return max(uploads, key=lambda upload: upload.train.modified, default=None)
