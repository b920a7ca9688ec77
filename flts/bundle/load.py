"""Load a bundle from the store or a folder, and check its bytes against their hashes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from flts.bundle import BUNDLE_FILE, MODEL_FILE
from flts.bundle.format import MAX_BUNDLE_BYTES, MAX_MODEL_BYTES, Bundle
from flts.contracts.claim_check import ClaimCheck
from flts.errors import HashMismatchError, NotFoundError, RejectedError
from flts.storage import layout
from flts.storage.ports import ObjectStore


def fetch_bundle(store: ObjectStore, claim: ClaimCheck) -> tuple[Bundle, bytes]:
    """Return a bundle and its ONNX bytes.

    Parameters
    ----------
    store : ObjectStore
    claim : ClaimCheck
        The claim check of ``bundle.json``; the model is in the same folder.

    Raises
    ------
    HashMismatchError
        If the size or hash of either object differs.
    ObjectNotFoundError
        If either object does not exist.
    RejectedError
        ``bad_bundle`` if the document is malformed or too large.
    """
    if claim.object_key != layout.beside(claim.object_key, BUNDLE_FILE):
        msg = f"the claim names {claim.object_key}, not a {BUNDLE_FILE}"
        raise RejectedError(msg, code="bad_bundle")
    _check_size(BUNDLE_FILE, claim.size, MAX_BUNDLE_BYTES)
    # The claim check may state a size that is too small, so the object's size in the store is checked too, before the
    # download.
    _check_size(BUNDLE_FILE, store.head(claim.bucket, claim.object_key).size, MAX_BUNDLE_BYTES)
    data, _ = store.get(claim.bucket, claim.object_key)
    _check_hash(claim.object_key, data, claim.size, claim.sha256)
    bundle = Bundle.from_json(data)
    model_key = layout.beside(claim.object_key, MODEL_FILE)
    _check_size(MODEL_FILE, store.head(claim.bucket, model_key).size, MAX_MODEL_BYTES)
    model_bytes, _ = store.get(claim.bucket, model_key)
    _check_hash(model_key, model_bytes, bundle.model_size, bundle.model_sha256)
    return bundle, model_bytes


def read_bundle_folder(path: Path) -> tuple[Bundle, bytes]:
    """Return a bundle from a folder, such as the cache of a replica.

    Raises
    ------
    NotFoundError
        ``bundle_not_found`` if a file cannot be read.
    HashMismatchError, RejectedError
        As in `fetch_bundle`. The hash of ``bundle.json`` is not checked.
    """
    files = {name: path / name for name in (BUNDLE_FILE, MODEL_FILE)}
    limits = {BUNDLE_FILE: MAX_BUNDLE_BYTES, MODEL_FILE: MAX_MODEL_BYTES}
    content = {}
    for name, file in files.items():
        try:
            _check_size(name, file.stat().st_size, limits[name])
            content[name] = file.read_bytes()
        except OSError as error:
            msg = f"{file} cannot be read: {error.strerror or error}"
            raise NotFoundError(msg, code="bundle_not_found") from error
    bundle = Bundle.from_json(content[BUNDLE_FILE])
    _check_hash(str(files[MODEL_FILE]), content[MODEL_FILE], bundle.model_size, bundle.model_sha256)
    return bundle, content[MODEL_FILE]


def _check_size(name: str, size: int, limit: int) -> None:
    if size > limit:
        msg = f"{name} has {size} bytes, more than {limit}"
        raise RejectedError(msg, code="bad_bundle")


def _check_hash(name: str, data: bytes, size: int, sha256: str) -> None:
    digest = hashlib.sha256(data).hexdigest()
    if len(data) != size or digest != sha256:
        msg = f"{name} holds {len(data)} bytes with SHA-256 {digest[:12]}..., promised were {size} and {sha256[:12]}..."
        raise HashMismatchError(msg)
