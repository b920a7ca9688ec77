from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flts.bundle.format import Bundle
from flts.bundle.load import fetch_bundle, read_bundle_folder
from flts.bundle.write import find_bundle, store_bundle
from flts.contracts.claim_check import ClaimCheck
from flts.errors import HashMismatchError, NotFoundError, ObjectNotFoundError, RejectedError
from flts.observability.metrics import default_metrics
from flts.storage import layout
from flts.storage.filesystem import FilesystemStore
from tests.linear_models import linear_bundle, linear_onnx, with_model
from tests.training_sets import made_series

BUCKET = "model-bundles"


@pytest.fixture(scope="module")
def made() -> tuple[Bundle, bytes]:
    return linear_bundle(made_series(200))


@pytest.fixture
def store(tmp_path: Path) -> FilesystemStore:
    store = FilesystemStore(tmp_path)
    store.ensure_bucket(BUCKET)
    return store


def find(store: FilesystemStore, bundle: Bundle) -> tuple[ClaimCheck, object] | None:
    key = layout.BUNDLE(bundle.identifier, bundle.config_hash, bundle.model_type, bundle.train_hash)
    return find_bundle(store, BUCKET, key)


def other_of(bundle: Bundle) -> tuple[Bundle, bytes]:
    """Return a different model with the bundle's names."""
    model_bytes = linear_onnx(np.full((36, 3), 0.01), np.zeros(3), length=4, features=9, horizon=1)
    return with_model(bundle, model_bytes), model_bytes


def conflicts() -> float:
    return default_metrics().registry.get_sample_value("flts_store_conflicts_total") or 0.0


def test_a_stored_bundle_is_found_and_fetched_as_it_was(store: FilesystemStore, made: tuple[Bundle, bytes]) -> None:
    bundle, model_bytes = made

    claim = store_bundle(store, BUCKET, bundle, model_bytes)
    found = find(store, bundle)
    fetched, fetched_bytes = fetch_bundle(store, claim)

    assert found is not None
    assert found[0] == claim
    assert fetched.to_json() == bundle.to_json()
    assert fetched_bytes == model_bytes
    assert claim.object_key == f"made/{'c' * 64}/LINEAR/{'d' * 64}/bundle.json"


def test_the_first_whole_bundle_wins_and_the_conflict_is_counted(
    store: FilesystemStore, made: tuple[Bundle, bytes]
) -> None:
    bundle, model_bytes = made
    first = store_bundle(store, BUCKET, bundle, model_bytes)
    before = conflicts()

    same = store_bundle(store, BUCKET, bundle, model_bytes)
    other = store_bundle(store, BUCKET, *other_of(bundle))

    assert same == first
    assert other == first
    assert conflicts() == before + 1
    assert fetch_bundle(store, other)[1] == model_bytes


def test_a_model_without_its_document_was_never_announced_and_is_replaced(
    store: FilesystemStore, made: tuple[Bundle, bytes]
) -> None:
    bundle, model_bytes = made
    key = layout.MODEL("made", "c" * 64, "LINEAR", "d" * 64)
    store.put(BUCKET, key, b"written by one who was killed")

    assert find(store, bundle) is None
    claim = store_bundle(store, BUCKET, bundle, model_bytes)

    assert fetch_bundle(store, claim)[1] == model_bytes


def test_a_pair_that_does_not_fit_together_is_replaced(store: FilesystemStore, made: tuple[Bundle, bytes]) -> None:
    bundle, model_bytes = made
    claim = store_bundle(store, BUCKET, bundle, model_bytes)
    store.put(BUCKET, claim.object_key.replace("bundle.json", "model.onnx"), b"rotten")

    assert find(store, bundle) is None
    with pytest.raises(HashMismatchError):
        fetch_bundle(store, claim)

    other, other_bytes = other_of(bundle)
    healed = store_bundle(store, BUCKET, other, other_bytes)

    assert fetch_bundle(store, healed)[1] == other_bytes


def test_a_claim_whose_document_changed_or_went_is_refused(store: FilesystemStore, made: tuple[Bundle, bytes]) -> None:
    bundle, model_bytes = made
    claim = store_bundle(store, BUCKET, bundle, model_bytes)

    with pytest.raises(HashMismatchError):
        fetch_bundle(store, claim.model_copy(update={"sha256": "0" * 64}))
    with pytest.raises(RejectedError, match=r"not a bundle\.json"):
        fetch_bundle(store, claim.model_copy(update={"object_key": "made/pickle.pkl"}))
    store.delete(BUCKET, claim.object_key)
    with pytest.raises(ObjectNotFoundError):
        fetch_bundle(store, claim)


def test_a_document_under_another_ones_key_is_not_found(store: FilesystemStore, made: tuple[Bundle, bytes]) -> None:
    bundle, model_bytes = made
    elsewhere = layout.folder_of(layout.BUNDLE("other", "c" * 64, "LINEAR", "d" * 64))
    store.put(BUCKET, f"{elsewhere}/bundle.json", bundle.to_json())
    store.put(BUCKET, f"{elsewhere}/model.onnx", model_bytes)

    assert find(store, replace(bundle, identifier="other")) is None


def test_model_bytes_that_the_bundle_does_not_name_are_not_stored(
    store: FilesystemStore, made: tuple[Bundle, bytes]
) -> None:
    bundle, _ = made

    with pytest.raises(HashMismatchError):
        store_bundle(store, BUCKET, bundle, b"other")
    assert list(store.list(BUCKET)) == []


def test_a_folder_is_read_like_the_store(tmp_path: Path, made: tuple[Bundle, bytes]) -> None:
    bundle, model_bytes = made
    (tmp_path / "bundle.json").write_bytes(bundle.to_json())
    with pytest.raises(NotFoundError, match=r"model\.onnx cannot be read"):
        read_bundle_folder(tmp_path)

    (tmp_path / "model.onnx").write_bytes(model_bytes)
    read, read_bytes = read_bundle_folder(tmp_path)
    assert read.to_json() == bundle.to_json()
    assert hashlib.sha256(read_bytes).hexdigest() == bundle.model_sha256

    (tmp_path / "model.onnx").write_bytes(model_bytes[::-1])
    with pytest.raises(HashMismatchError):
        read_bundle_folder(tmp_path)
