"""Store a bundle under its hashes, and find the bundle that an earlier run stored.

``bundle.json`` is written last. A model without ``bundle.json`` was never published and may be replaced. A pair whose
hashes match is never replaced.
"""

from __future__ import annotations

import hashlib

from flts.bundle import BUNDLE_FILE, MODEL_FILE
from flts.bundle.format import Bundle
from flts.bundle.load import fetch_bundle
from flts.bundle.model import check_model_bytes
from flts.contracts.claim_check import ClaimCheck
from flts.errors import ObjectNotFoundError, PreconditionFailedError, RejectedError, RetryableError
from flts.observability.metrics import default_metrics
from flts.storage import layout
from flts.storage.ports import ObjectInfo, ObjectStore

STORE_ROUNDS = 3
"""Attempts; two writers that replace each other's incomplete pair need at most two."""


def store_bundle(store: ObjectStore, settings_bucket: str, bundle: Bundle, model_bytes: bytes) -> ClaimCheck:
    """Store a bundle and return the claim check of its ``bundle.json``.

    Parameters
    ----------
    store : ObjectStore
    settings_bucket : str
        Name of the bucket of bundles.
    bundle : Bundle
    model_bytes : bytes
        The ONNX file that the bundle names.

    Returns
    -------
    ClaimCheck
        The claim check of the stored bundle. A different complete bundle under the same key stays: its claim check is
        returned, and ``flts_store_conflicts_total`` is incremented.

    Raises
    ------
    RetryableError
        If other writers changed the pair in every attempt.
    """
    check_model_bytes(bundle, model_bytes)
    data = bundle.to_json()
    key = _key(bundle)
    for _ in range(STORE_ROUNDS):
        for name, content in ((MODEL_FILE, model_bytes), (BUNDLE_FILE, data)):
            _put_unless_whole(store, settings_bucket, key, name, content)
        stored = _whole_bundle(store, settings_bucket, key)
        if stored is not None:
            claim, _ = stored
            if claim.sha256 != hashlib.sha256(data).hexdigest():
                default_metrics().store_conflicts.inc()
            return claim
    msg = f"other writers keep changing {settings_bucket}/{layout.folder_of(key)}"
    raise RetryableError(msg, code="bundle_contended")


def find_bundle(store: ObjectStore, bucket: str, key: str) -> tuple[ClaimCheck, ObjectInfo] | None:
    """Return the claim check and the object info of the bundle under a key if its hashes match, or None."""
    return _whole_bundle(store, bucket, key)


def _put_unless_whole(store: ObjectStore, bucket: str, bundle_key: str, name: str, content: bytes) -> None:
    """Create an object, or replace it if ``bundle.json`` and the model under this key do not match."""
    key = layout.beside(bundle_key, name)
    try:
        store.put(bucket, key, content, create_only=True)
    except PreconditionFailedError:
        pass
    else:
        return
    try:
        stored, info = store.get(bucket, key)
        if stored == content or _whole_bundle(store, bucket, bundle_key) is not None:
            return
        store.put(bucket, key, content, if_match=info.etag)
    except (ObjectNotFoundError, PreconditionFailedError):
        return  # another process changed the object meanwhile; `store_bundle` checks whether both objects match


def _whole_bundle(store: ObjectStore, bucket: str, key: str) -> tuple[ClaimCheck, ObjectInfo] | None:
    try:
        data, info = store.get(bucket, key)
        claim = ClaimCheck(bucket=bucket, object_key=key, size=len(data), sha256=hashlib.sha256(data).hexdigest())
        bundle, _ = fetch_bundle(store, claim)
    except RejectedError:  # an object is missing, damaged or of another format, so there is no bundle to announce
        return None
    return (claim, info) if _key(bundle) == key else None


def _key(bundle: Bundle) -> str:
    key = layout.REFITTED_BUNDLE if bundle.fit == "refitted" else layout.BUNDLE
    return key(bundle.identifier, bundle.config_hash, bundle.model_type, bundle.train_hash)
