from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from flts.errors import BackendAwayError, HashMismatchError, ObjectNotFoundError, PreconditionFailedError
from flts.observability.metrics import default_metrics
from flts.storage.claims import put_claimed, read_claimed
from flts.storage.filesystem import FilesystemStore
from flts.storage.ports import ObjectInfo, ObjectStore
from tests.stores import folder_store

BUCKET = "processed-data"


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return folder_store(tmp_path / "store")


def conflicts() -> float:
    return default_metrics().registry.get_sample_value("flts_store_conflicts_total") or 0.0


def test_a_claim_says_where_what_and_how_much(store: ObjectStore) -> None:
    claim = put_claimed(store, BUCKET, "a/b", b"12345", rows=2, columns=3)

    assert claim.model_dump() == {
        "bucket": BUCKET,
        "object_key": "a/b",
        "size": 5,
        "sha256": hashlib.sha256(b"12345").hexdigest(),
        "rows": 2,
        "columns": 3,
    }
    assert read_claimed(store, claim) == b"12345"


def test_putting_the_same_again_claims_the_same_and_counts_no_conflict(store: ObjectStore) -> None:
    before = conflicts()

    first, second = (put_claimed(store, BUCKET, "a", b"same") for _ in range(2))

    assert first == second
    assert conflicts() == before


def test_what_was_stored_first_wins_and_the_conflict_is_counted(store: ObjectStore) -> None:
    first = put_claimed(store, BUCKET, "a", b"first", rows=1)
    before = conflicts()

    second = put_claimed(store, BUCKET, "a", b"second one", rows=1)

    assert first == second
    assert read_claimed(store, second) == b"first"
    assert conflicts() == before + 1


def test_without_create_only_the_last_one_wins(store: ObjectStore) -> None:
    put_claimed(store, BUCKET, "a", b"first")

    claim = put_claimed(store, BUCKET, "a", b"second", create_only=False)

    assert read_claimed(store, claim) == b"second"


@pytest.mark.parametrize("stored", [b"other", b"shorter"[:4], b"longer than it was", b""])
def test_other_bytes_than_promised_are_refused(store: ObjectStore, stored: bytes) -> None:
    claim = put_claimed(store, BUCKET, "a", b"right")
    store.put(BUCKET, "a", stored)

    with pytest.raises(HashMismatchError, match="its claim says 5 bytes"):
        read_claimed(store, claim)


def test_no_more_bytes_are_read_than_were_promised(store: ObjectStore) -> None:
    claim = put_claimed(store, BUCKET, "a", b"right")
    store.put(BUCKET, "a", bytes(50 * 2**20))
    chunks = []
    stream = store.stream

    def counted(bucket: str, key: str) -> object:
        for chunk in stream(bucket, key):
            chunks.append(len(chunk))
            yield chunk

    store.stream = counted  # type: ignore[method-assign,assignment]

    with pytest.raises(HashMismatchError):
        read_claimed(store, claim)
    assert len(chunks) == 1


def test_an_object_that_vanishes_between_the_conflict_and_the_look_is_put_again(tmp_path: Path) -> None:
    class Vanishing(FilesystemStore):
        refusals = 0

        def put(
            self, bucket: str, key: str, data: bytes, *, create_only: bool = False, if_match: str | None = None
        ) -> ObjectInfo:
            if self.refusals < 2:
                self.refusals += 1
                msg = "another one's, gone in a moment"
                raise PreconditionFailedError(msg)
            return super().put(bucket, key, data, create_only=create_only, if_match=if_match)

    store = Vanishing(tmp_path)
    store.ensure_bucket(BUCKET)

    claim = put_claimed(store, BUCKET, "a", b"mine")

    assert read_claimed(store, claim) == b"mine"
    store.refusals = -1000
    with pytest.raises(BackendAwayError, match="neither written nor read"):
        put_claimed(store, BUCKET, "b", b"mine")


def test_a_claim_of_nothing_is_not_found(store: ObjectStore) -> None:
    claim = put_claimed(store, BUCKET, "a", b"x")
    store.delete(BUCKET, "a")

    with pytest.raises(ObjectNotFoundError):
        read_claimed(store, claim)
