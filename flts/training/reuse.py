"""Find the bundle that an earlier training or refit of the same rows and settings stored."""

from __future__ import annotations

from flts.bundle import proof
from flts.bundle.format import Bundle
from flts.bundle.load import fetch_bundle
from flts.bundle.write import find_bundle
from flts.contracts.claim_check import ClaimCheck
from flts.contracts.events import TrainingData
from flts.contracts.ids import run_created_seconds
from flts.errors import RejectedError
from flts.observability.logs import get_logger
from flts.storage import layout
from flts.storage.layout import Key
from flts.storage.ports import ObjectStore
from flts.training.bundling import Identity

log = get_logger(__name__)


def reusable_bundle(
    store: ObjectStore, bucket: str, event: TrainingData, identity: Identity, *, form: Key = layout.BUNDLE
) -> tuple[ClaimCheck, Bundle] | None:
    """Return the stored bundle of the same data and settings if it passes its check, else None.

    If the event forces a new training, a bundle that is older than the event's run is not reused. ``form`` is the form
    of the key, that of a judged or of a refitted bundle.
    """
    key = form(identity.identifier, identity.config_hash, identity.model_type, identity.train_hash)
    found = find_bundle(store, bucket, key)
    if found is None:
        return None
    claim, info = found
    if event.force and info.modified < run_created_seconds(event.pipeline_run_id):
        return None
    try:
        bundle, model_bytes = fetch_bundle(store, claim)
        proof.prove(bundle, model_bytes)
    except RejectedError as error:
        log.warning("train_stored_bundle_refused", object_key=claim.object_key, reason=error.message)
        return None
    return claim, bundle
