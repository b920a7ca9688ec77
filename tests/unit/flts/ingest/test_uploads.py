from __future__ import annotations

import os
from pathlib import Path

import pytest

from flts.ingest.uploads import newest_upload, upload_hash
from flts.storage import layout
from flts.storage.filesystem import FilesystemStore

ONE, TWO = "1" * 64, "2" * 64


def test_the_upload_hash_tells_files_and_their_roles_apart() -> None:
    hashes = {upload_hash(ONE), upload_hash(TWO), upload_hash(ONE, TWO), upload_hash(TWO, ONE), upload_hash(ONE, ONE)}

    assert len(hashes) == 5


@pytest.fixture
def store(tmp_path: Path) -> FilesystemStore:
    store = FilesystemStore(tmp_path)
    store.ensure_bucket("raw-data")
    return store


def test_the_newest_upload_is_the_one_whose_training_file_was_written_last(
    store: FilesystemStore, tmp_path: Path
) -> None:
    for age, digest in ((30, ONE), (10, TWO)):
        key = layout.UPLOAD("series", digest, "train")
        store.put("raw-data", key, b"x")
        path = next(tmp_path.rglob(f"{digest}/train.csv*"))
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - age))
    store.put("raw-data", layout.UPLOAD("series", TWO, "test"), b"y")
    store.put("raw-data", layout.UPLOAD("series", "3" * 64, "test"), b"newer, but no training file yet")
    store.put("raw-data", layout.UPLOAD("series-2", ONE, "train"), b"another series")

    newest = newest_upload(store, "raw-data", "series")

    assert newest is not None
    assert newest.upload_hash == TWO
    assert newest.test is not None
    assert newest_upload(store, "raw-data", "other") is None
